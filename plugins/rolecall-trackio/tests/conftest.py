"""Makes tickets and rows, and reads databases with trackio's own reader in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rolecall import Row, RunTicket, testing
from rolecall_trackio import plugin
from rolecall_trackio.args import TrackioArgs
from rolecall_trackio.run import TrackioRun

READ = """
import json, sys
from trackio.sqlite_storage import SQLiteStorage as storage
project, run_id = sys.argv[1:]
print(json.dumps({
    "runs": storage.get_run_records(project),
    "config": storage.get_run_config(project, None, run_id),
    "rows": storage.get_logs(project, None, run_id=run_id),
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The backend's own folder, which does not exist yet."""
    return tmp_path / "backends" / "trackio"


@pytest.fixture
def ticket(folder: Path) -> Callable[..., RunTicket]:
    run = {"project": "gsm8k", "name": "grpo-1", "group": "grpo", "job": "", "run_id": "k3x9"}
    return partial(testing.ticket, **run, writer="explorer/0", config={"lr": 0.1}, directory=folder)


@pytest.fixture
def open_run(ticket: Callable[..., RunTicket]) -> Callable[..., TrackioRun]:
    return lambda **changes: plugin.open_run(ticket(**changes), TrackioArgs(dir=Path()))


@pytest.fixture
def row() -> Callable[..., Row]:
    def make(seq: int, metrics: Mapping[str, float] | None = None, **fields: Any) -> Row:
        values = {"reward": seq / 2} if metrics is None else metrics
        return testing.row(**{"seq": seq, "writer": "explorer/0", "metrics": values, **fields})

    return make


@pytest.fixture
def read(folder: Path) -> Callable[..., dict[str, Any]]:
    """What trackio says of its runs, and of one of them: its config and its rows."""

    def ask(run_id: str = "k3x9", project: str = "gsm8k", directory: Path = folder) -> dict[str, Any]:
        env = {**os.environ, "TRACKIO_DIR": str(directory)}
        command = [sys.executable, "-c", READ, project, run_id]
        ran = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    return ask
