"""A backend from outside: installed beside our wheels it is listed, selected, shared or downgraded, and gets rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign import Environment, pip_install

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

ROLES = ("explorer", "trainer")
PLAIN = {"attaches": False, "measures": False, "relayed": False}
STEPS = 200
LAUNCHER = f"""
import os, subprocess, sys
from rolecall import MonitorConfig, launch

with launch(MonitorConfig.load("config.yaml")) as job:
    env = {{**os.environ, **job.config.to_env()}}
    roles = [subprocess.Popen([sys.executable, "role.py", role], env=env) for role in {ROLES}]
    assert [role.wait() for role in roles] == [0, 0]
"""
ROLE = f"""
import sys
from rolecall import MonitorConfig, open_monitor

with open_monitor(MonitorConfig.from_env(), role=sys.argv[1]) as monitor:
    for step in range(1, {STEPS} + 1):
        monitor.log({{"reward/mean": step / 8, "loss": 1 / step}}, step=step)
"""
CONTRACT = """
import json
from pathlib import Path

import pytest

from rolecall.testing import BackendContract


class Contract(BackendContract):
    @pytest.fixture
    def monitor_args(self, tmp_path):
        return {"directory": str(tmp_path / "rows")}

    def points(self, run):
        found = {}
        for line in lines(run):
            step = line.get("step")
            for key in line.keys() - {"writer", "step"} if "writer" in line else ():
                found.setdefault(key, []).append((step, line[key]))
        return found

    def axes(self, run):
        return {key: axis for line in lines(run) for key, axis in line.get("axes", {}).items()}

    def status(self, run):
        ends = [line for line in lines(run) if "closed" in line or ("opened" in line and is_primary(line))]
        return ends[-1].get("closed", "running")


class TestTogether(Contract):
    monitor_type = "together"
    can = frozenset({"shared", "axes", "status"})


class TestAlone(Contract):
    monitor_type = "alone"
    can = frozenset({"status"})
    cannot = {"shared": "one process owns a file"}


def lines(run):
    return map(json.loads, (Path(run.args["directory"]) / f"{run.id}.jsonl").read_text().splitlines())


def is_primary(line):
    return line["by"] is None or not line["shared"]
"""

Line = dict[str, Any]


@pytest.fixture
def job(environment: Environment) -> Callable[[str], Path]:
    """Write the config and the programs of a job with one backend; returns where its rows go."""

    def write(backend: str) -> Path:
        rows, monitor_dir = (environment.home / f"{kind}-{uuid.uuid4().hex}" for kind in ("rows", "monitor"))
        settings = {
            "project": "gsm8k",
            "name": "grpo-1",
            "monitor_type": backend,
            "monitor_args": {"directory": str(rows)},
            "shared_run": True,
            "monitor_dir": str(monitor_dir),
        }
        (environment.home / "config.yaml").write_text(json.dumps({"monitor": settings}))
        (environment.home / "launcher.py").write_text(LAUNCHER)
        (environment.home / "role.py").write_text(ROLE)
        return rows

    return write


def runs(rows: Path) -> dict[str, list[Line]]:
    """Each run's lines."""
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in rows.glob("*.jsonl")}


def test_installed_rolecall_is_not_this_repository(environment: Environment) -> None:
    where = environment.run("python", "-c", "import rolecall; print(rolecall.__file__)")
    assert Path(where.strip()).is_relative_to(environment.prefix)
    with pytest.raises(AssertionError, match="No module named 'numpy'"):
        environment.run("python", "-c", "import numpy")


def test_both_are_listed(environment: Environment) -> None:
    found = {one["name"]: one for one in json.loads(environment.run("rolecall", "backends", "--json"))}
    assert found["together"] == {
        "name": "together",
        "distribution": "together-tracker 2.5",
        "shared_run": True,
        "reason": "",
    }
    assert found["alone"] == {
        "name": "alone",
        "distribution": "alone-tracker 2.5",
        "shared_run": False,
        "reason": "one process owns a file; give each role a file of its own",
    }
    assert "together-tracker 2.5" in environment.run("rolecall", "backends")


def test_our_plugins_list_what_they_lack(environment: Environment) -> None:
    found = {one["name"]: one for one in json.loads(environment.run("rolecall", "backends", "--json"))}
    assert "which is not installed" in found["tensorboard"]["error"]
    assert "which is not installed" in found["mlflow"]["error"]
    assert "which is not installed" in found["wandb"]["error"]


@pytest.mark.parametrize(
    ("backend", "plan", "downgrades"),
    [
        ("together", {"backend": "together", "shared": True, "courier": "process", **PLAIN}, []),
        (
            "alone",
            {"backend": "alone", "shared": False, "courier": "process", **PLAIN},
            [
                {
                    "backend": "alone",
                    "setting": "shared_run",
                    "reason": "one process owns a file; give each role a file of its own. With shared_run: relay, one "
                    "process writes one run of all roles",
                }
            ],
        ),
    ],
)
def test_hook_decides_between_sharing_and_downgrade(
    environment: Environment, job: Callable[[str], Path], backend: str, plan: Line, downgrades: list[Line]
) -> None:
    job(backend)
    said = json.loads(environment.run("rolecall", "check", "config.yaml", "--json"))
    assert said == {"backends": [plan], "downgrades": downgrades, "system_metrics": False, "is_single": False}
    words = environment.run("rolecall", "check", "config.yaml")
    assert ("one run, shared by all roles" in words) is plan["shared"]
    assert all(one["reason"] in words for one in downgrades)


def test_shared_run_gets_every_row_once(environment: Environment, job: Callable[[str], Path]) -> None:
    rows = job("together")
    environment.run("python", "launcher.py")
    (lines,) = runs(rows).values()
    assert lines[0] == {"opened": "grpo-1", "by": None, "shared": True}
    assert {line["by"] for line in lines if "opened" in line} == {None, *ROLES}
    assert lines[-1] == {"closed": "finished"}
    assert sum("closed" in line for line in lines) == 1
    for role in ROLES:
        found = [line for line in lines if line.get("writer") == role]
        assert found == [
            {
                "writer": role,
                "step": step,
                f"{role}/reward/mean": step / 8,
                f"{role}/loss": 1 / step,
                f"{role}/step": step,
            }
            for step in range(1, STEPS + 1)
        ]


def test_axes_are_declared_before_their_rows(environment: Environment, job: Callable[[str], Path]) -> None:
    rows = job("together")
    environment.run("python", "launcher.py")
    (lines,) = runs(rows).values()
    bound: dict[str, str] = {}
    for line in lines:
        bound |= line.get("axes", {})
        if "writer" in line:
            keys = line.keys() - {"writer", "step", f"{line['writer']}/step"}
            assert {key: bound.get(key) for key in keys} == dict.fromkeys(keys, f"{line['writer']}/step")


def test_otherwise_each_role_has_its_run(environment: Environment, job: Callable[[str], Path]) -> None:
    rows = job("alone")
    environment.run("python", "launcher.py")
    found = {lines[0]["by"]: lines for lines in runs(rows).values()}
    assert found.keys() == set(ROLES)
    for role, lines in found.items():
        assert lines[0] == {"opened": f"grpo-1_{role}", "by": role, "shared": False}
        assert lines[1:-1] == [
            {"writer": role, "step": step, "reward/mean": step / 8, "loss": 1 / step} for step in range(1, STEPS + 1)
        ]
        assert lines[-1] == {"closed": "finished"}


def test_the_journals_hold_the_same(environment: Environment, job: Callable[[str], Path]) -> None:
    job("together")
    environment.run("python", "launcher.py")
    monitor_dir = json.loads((environment.home / "config.yaml").read_text())["monitor"]["monitor_dir"]
    said = json.loads(environment.run("rolecall", "show", monitor_dir, "--json"))
    assert {(one["writer"], one["rows"], one["state"]) for one in said["writers"]} == {
        (role, STEPS, "finished") for role in ROLES
    }
    assert environment.run("rolecall", "deliver", monitor_dir) == "all rows are delivered\n"


def test_both_pass_the_contract(environment: Environment) -> None:
    """With the wheel alone, as their authors run it; of the one that is alone, only what differs."""
    pip_install(environment.prefix, "pytest")
    (environment.home / "test_theirs.py").write_text(CONTRACT)
    (environment.home / "pytest.ini").write_text("[pytest]\n")  # or pytest looks above, where it may find ours
    chosen = "TestTogether or (TestAlone and (declared or shares or every_row or apart))"
    printed = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "test_theirs.py")
    assert " passed" in printed
    assert "failed" not in printed
