"""`rolecall verify` on a wandb server whose runs were changed behind rolecall's back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb_emulator import StoredRun, WandbServer
from wandb_scene import RUN, Scene

from rolecall import MonitorConfig, launch, open_monitor

pytestmark = pytest.mark.processes
STEPS = 100


def log_job(config: MonitorConfig) -> None:
    with launch(config, run_config={"lr": 0.1}) as job:
        for role in ("trainer", "explorer"):
            with open_monitor(job.config, role) as monitor:
                for step in range(1, STEPS + 1):
                    monitor.log({"loss": step / 7, "note": "a string"}, step)
                    monitor.log({"nan": float("nan") if step % 2 else float("inf")}, step)


def verify(directory: Path, *options: str, status: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "rolecall", "verify", str(directory), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return list(json.loads(done.stdout))


def found(reports: list[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    return [(each["state"], each["missing"], each["extra"], each["different"]) for each in reports]


def change(run: StoredRun) -> None:
    """Ten lines altered, ten doubled, and 40 deleted."""
    for at in range(10):
        entry = run.history[at]
        run.history[at] = replace(entry, line={**entry.line, f"{writer_of(entry.line)}/loss": 1e6})
    for entry in run.history[20:30]:
        run.history.append(replace(entry, step=len(run.history)))
    run.forget(range(40, 80))


def writer_of(line: Any) -> str:
    return "trainer" if "trainer/step" in line else "explorer"


@pytest.fixture
def delivered(scene: Scene) -> Scene:
    log_job(scene.config)
    scene.wait_for_end()
    return scene


@pytest.mark.servers
def test_changes_of_a_shared_run_are_found_and_repaired(delivered: Scene) -> None:
    directory = delivered.config.monitor_dir
    assert found(verify(directory, status=0)) == [("equal", 0, 0, 0)]
    change(delivered.run)
    # A line has two metrics.
    assert found(verify(directory, status=1)) == [("different", 80, 20, 10)]
    before = delivered.run.state
    (repaired,) = verify(directory, "--repair", status=1)
    assert found([repaired]) == [("different", 0, 20, 10)]
    assert delivered.run.state == before == "finished"
    delivered.check_bindings()


@pytest.mark.servers
def test_deleted_shared_run_is_sent_to_a_new_one(delivered: Scene, server: WandbServer) -> None:
    directory = delivered.config.monitor_dir
    del server.state.runs[RUN]
    assert found(verify(directory, status=1)) == [("gone", 0, 0, 0)]
    assert found(verify(directory, "--repair", status=1)) == [("gone", 0, 0, 0)]
    assert found(verify(directory, "--repair", "--new-run", status=0)) == [("equal", 0, 0, 0)]
    (run,) = server.runs.values()
    assert (run.id != RUN, run.state, len(run.history)) == (True, "finished", 2 * STEPS)
    assert found(verify(directory, status=0)) == [("equal", 0, 0, 0)]


@pytest.mark.servers
def test_changes_of_separate_runs_are_found(
    server: WandbServer, make_config: Callable[..., MonitorConfig], wait_until: Callable[..., None]
) -> None:
    config = make_config(shared_run=False)
    log_job(config)
    assert {state for state, *_ in found(verify(config.monitor_dir, status=0))} == {"equal"}
    for run in server.runs.values():
        assert (run.state, len(run.history)) == ("finished", STEPS)
        run.history[5] = replace(run.history[5], line={**run.history[5].line, "loss": 1e6})
        run.forget([10, 11])
    assert found(verify(config.monitor_dir, status=1)) == [("different", 4, 0, 1)] * 2
    (report, _) = verify(config.monitor_dir, "--repair", status=1)
    assert "no step below the last one" in report["problem"]
    assert found(verify(config.monitor_dir, "--repair", "--new-run", status=0)) == [("equal", 0, 0, 0)] * 2
    assert sorted(len(run.history) for run in server.runs.values()) == [98, 98, 100, 100]
