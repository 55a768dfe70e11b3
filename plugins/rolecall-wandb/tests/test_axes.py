"""Rows on several axes, and roles that share a prefix: in one run, in runs of their own, offline, and after deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from wandb_core import courier_of, delivered_rows
from wandb_emulator import Policy, StoredRun, WandbServer
from wandb_offline import offline_runs, sync
from wandb_scene import Scene

from rolecall import Monitor, MonitorConfig, Table, launch, open_monitor

pytestmark = pytest.mark.processes

BOUND = {"loss": "step", "reward": "rollout/step", "note": "rollout/step", "eval/accuracy": "eval/step"}


def log_axes(monitor: Monitor, start: int = 1) -> None:
    """Steps of three axes, which repeat, and decrease from one to the other."""
    for step in range(start, start + 10):
        monitor.log({"loss": 1 / step}, step)
        monitor.log({"reward": step / 8}, step=step // 2, axis="rollout")
        monitor.log({"note": "same line"}, step=step // 2, axis="rollout")
        if step % 5 == 0:
            monitor.log({"eval/accuracy": step / 100, "eval/step": step // 5}, step=step // 5, axis="eval")


def lines(run: StoredRun, axis: str) -> list[Mapping[str, Any]]:
    """The lines of an axis, without what the SDK adds."""
    found = (entry.line for entry in run.history if axis in entry.line)
    return [{key: value for key, value in line.items() if not key.startswith("_")} for line in found]


def bag(found: list[Mapping[str, Any]]) -> Counter[frozenset[tuple[str, Any]]]:
    """The lines in any order, as those that were lost come later."""
    return Counter(frozenset(line.items()) for line in found)


def values(found: list[Mapping[str, Any]]) -> Counter[tuple[str, Any, Any]]:
    """What the lines of the axis `rollout` hold, however it is spread over lines."""
    return Counter(
        (key, value, line["rollout/step"]) for line in found for key, value in line.items() if key != "rollout/step"
    )


def expected(prefix: str, steps: int) -> dict[str, list[Mapping[str, Any]]]:
    """Of each axis. No row is merged with one that has its keys, or that is not the next one."""
    return {
        f"{prefix}step": [{f"{prefix}loss": 1 / step, f"{prefix}step": step} for step in range(1, steps + 1)],
        f"{prefix}rollout/step": [
            {f"{prefix}reward": step / 8, f"{prefix}note": "same line", f"{prefix}rollout/step": step // 2}
            for step in range(1, steps + 1)
        ],
        f"{prefix}eval/step": [
            {f"{prefix}eval/accuracy": step / 100, f"{prefix}eval/step": step // 5} for step in range(5, steps + 1, 5)
        ],
    }


def require_equal(directory: Path, points: int) -> None:
    command = [sys.executable, "-m", "rolecall", "verify", str(directory), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = json.loads(done.stdout)
    assert [(each["state"], each["points"]) for each in reports] == [("equal", points)]


@pytest.mark.parametrize("policy", [Policy.REPLACE, pytest.param(Policy.MERGE, marks=pytest.mark.servers)])
def test_each_axis_of_a_shared_run(scene: Scene, server: WandbServer) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        log_axes(monitor)
    scene.wait_for_end()
    for axis, wanted in expected("trainer/", 10).items():
        assert lines(scene.run, axis) == wanted
    assert scene.run.bindings() == {f"trainer/{key}": f"trainer/{axis}" for key, axis in BOUND.items() if key != "note"}
    require_equal(scene.config.monitor_dir, 22)


@pytest.mark.servers
def test_two_roles_with_one_key_space(scene: Scene) -> None:
    """As slime's actor, and its second process that adds `perf/*` at the steps of its rollouts."""
    with (
        launch(scene.config) as job,
        open_monitor(job.config, "actor", prefix="") as actor,
        open_monitor(job.config, "perf", prefix="") as perf,
    ):
        for step in range(1, 6):
            actor.log({"train/loss": 1 / step, "train/step": 4 * step}, step=4 * step, axis="train")
            actor.log({"rollout/reward": step / 8}, step=step, axis="rollout")
            perf.log({"perf/tokens": 100 * step}, step=step, axis="rollout")
    scene.wait_for_end()
    assert scene.run.bindings() == {
        "train/loss": "train/step",
        "rollout/reward": "rollout/step",
        "perf/tokens": "rollout/step",
    }
    assert lines(scene.run, "train/step") == [{"train/loss": 1 / step, "train/step": 4 * step} for step in range(1, 6)]
    rewards = [{"rollout/reward": step / 8, "rollout/step": step} for step in range(1, 6)]
    tokens = [{"perf/tokens": 100 * step, "rollout/step": step} for step in range(1, 6)]
    assert bag(lines(scene.run, "rollout/step")) == bag([*rewards, *tokens])
    require_equal(scene.config.monitor_dir, 15)


@pytest.mark.servers
def test_run_of_its_own_from_its_second_axis_on(
    server: WandbServer, make_config: Callable[..., MonitorConfig], wait_until: Callable[..., None]
) -> None:
    """Before that, its lines are numbered by the steps, to the byte."""
    config = make_config(shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(3, 6):
            monitor.log({"before": step / 7}, step)
        # The courier has read these rows, and does not know yet that others will be on another axis.
        wait_until(lambda: any(run.history for run in server.runs.values()))
        log_axes(monitor)
        monitor.log({"samples": Table([{"prompt": "2+2", "reward": 1.0}])}, step=3, axis="eval")
    (run,) = server.runs.values()
    plain = [(entry.step, entry.line["before"]) for entry in run.history if "before" in entry.line]
    assert plain == [(step, step / 7) for step in range(3, 6)]
    found = expected("", 10)
    assert [line for line in lines(run, "step") if "before" not in line] == found["step"]
    # A flush ends a line, so what comes a moment later may be a line of its own.
    assert values(lines(run, "rollout/step")) == values(found["rollout/step"])
    assert [line for line in lines(run, "eval/step") if "samples" not in line] == found["eval/step"]
    numbers = [entry.step for entry in run.history]
    assert numbers == sorted(set(numbers))
    bound = {key: axis for key, axis in BOUND.items() if key != "note"}
    assert run.bindings() == {"before": "step", **bound}
    require_equal(config.monitor_dir, 25)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_couriers_killed_amid_several_axes(
    server: WandbServer, make_config: Callable[..., MonitorConfig], wait_until: Callable[..., None]
) -> None:
    config = make_config(shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for start in range(1, 41, 10):
            held = delivered_rows(config.monitor_dir, "trainer")
            log_axes(monitor, start)
            if start > 1:
                wait_until(lambda held=held: delivered_rows(config.monitor_dir, "trainer") > held)
            if (pid := courier_of(config.monitor_dir, "trainer")) is not None:
                os.kill(pid, signal.SIGKILL)
    subprocess.run([sys.executable, "-m", "rolecall", "deliver", str(config.monitor_dir)], check=False, timeout=200)
    (run,) = server.runs.values()
    for axis, wanted in expected("", 40).items():
        assert bag(lines(run, axis)) == bag(wanted)
    require_equal(config.monitor_dir, 88)


@pytest.mark.servers
def test_offline_run_from_its_second_axis_on(server: WandbServer, make_config: Callable[..., MonitorConfig]) -> None:
    config = make_config(shared_run=False, monitor_args={"mode": "offline"})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 4):
            monitor.log({"before": step / 7}, step)
        log_axes(monitor)
    (path,) = offline_runs(config.monitor_dir / "backends/wandb")
    sync(path)
    (run,) = server.runs.values()
    assert [entry.line["before"] for entry in run.history if "before" in entry.line] == [1 / 7, 2 / 7, 3 / 7]
    found = expected("", 10)
    assert [line for line in lines(run, "step") if "before" not in line] == found["step"]
    assert lines(run, "rollout/step") == found["rollout/step"]
    assert run.bindings()["eval/accuracy"] == "eval/step"
