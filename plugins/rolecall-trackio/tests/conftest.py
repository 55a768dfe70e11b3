"""Makes tickets and rows, and reads databases with trackio's own reader in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rolecall import Row, RunTicket
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
    def make(**changes: Any) -> RunTicket:
        fields: dict[str, Any] = {
            "project": "gsm8k",
            "name": "grpo-1",
            "group": "grpo",
            "run_id": "k3x9",
            "backend_run_id": None,
            "shared": False,
            "primary": True,
            "writer": "explorer/0",
            "role": "explorer",
            "config": {"lr": 0.1},
            "directory": folder,
            "pid": 4711,
            "created": 1.7e9,
        }
        return RunTicket(**{**fields, **changes})

    return make


@pytest.fixture
def open_run(ticket: Callable[..., RunTicket]) -> Callable[..., TrackioRun]:
    return lambda **changes: plugin.open_run(ticket(**changes), TrackioArgs(dir=Path()))


@pytest.fixture
def row() -> Callable[..., Row]:
    def make(seq: int, metrics: Mapping[str, float] | None = None, **fields: Any) -> Row:
        defaults = {"writer": "explorer/0", "session": 1, "step": seq, "time": 1.7e9 + seq}
        return Row(seq=seq, metrics={"reward": seq / 2} if metrics is None else metrics, **{**defaults, **fields})

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
