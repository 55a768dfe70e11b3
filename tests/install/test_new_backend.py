"""What `rolecall new-backend` writes: built, installed, listed, and used by a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from foreign import Environment, build_wheel, pip_install

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

JOB = """
import rolecall

run = rolecall.init("docs", monitor_type="acme", monitor_dir="acme-runs")
run.log({"loss": 0.5})
run.finish()
"""


def test_new_backend_is_installed_from_its_wheel(environment: Environment, tmp_path: Path) -> None:
    environment.run("rolecall", "new-backend", "acme", "--into", str(tmp_path))
    build_wheel(tmp_path / "rolecall-acme", tmp_path / "dist")
    pip_install(environment.prefix, "--no-deps", *(tmp_path / "dist").glob("*.whl"))
    found = {each["name"]: each for each in json.loads(environment.run("rolecall", "backends", "--json"))}
    assert found["acme"]["distribution"] == "rolecall-acme 0.1.0"
    environment.run("python", "-c", JOB)
    (file,) = (environment.home / "acme-runs" / "backends" / "acme").glob("*.jsonl")
    row, end = map(json.loads, file.read_text().splitlines())
    assert (row["writer"], row["step"], row["metrics"], end) == ("main", 1, {"loss": 0.5}, {"status": "finished"})
