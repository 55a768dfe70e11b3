"""Several calls of `log` at a step are one line of a shared run, also if couriers are killed amid them."""

from __future__ import annotations

import os
import signal
import time

import pytest
from wandb_core import courier_of
from wandb_scene import LogTimes, Scene

from rolecall import Monitor, launch, open_monitor

KILLS = 5


def log_twice(monitor: Monitor, step: int) -> None:
    monitor.log({"loss": 1 / step}, step)
    monitor.log({"lr": 0.1 * step, "note": f"step {step}"}, step)


def check_lines(scene: Scene, steps: int) -> None:
    """In any order, as lines that were lost come later."""
    lines = sorted((entry.line for entry in scene.run.history), key=lambda line: line["trainer/step"])
    assert [line["trainer/step"] for line in lines] == list(range(1, steps + 1))
    assert [(line["trainer/loss"], line["trainer/lr"], line["trainer/note"]) for line in lines] == [
        (1 / step, 0.1 * step, f"step {step}") for step in range(1, steps + 1)
    ]


def kill_courier(scene: Scene, killed: list[int]) -> None:
    """The newest one, as soon as it is at work."""

    def is_at_work() -> bool:
        return courier_of(scene.config.monitor_dir, "trainer") not in {None, *killed}

    scene.wait(is_at_work)
    pid = courier_of(scene.config.monitor_dir, "trainer")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


def log_until_more_is_held(scene: Scene, trainer: LogTimes) -> None:
    before = scene.held("trainer")
    trainer.log_until(lambda: scene.held("trainer") > before)


@pytest.mark.processes
def test_two_calls_a_step_are_one_line(scene: Scene) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 41):
            log_twice(monitor, step)
    scene.wait_for_end()
    check_lines(scene, 40)


def test_last_line_of_a_session_comes_first(scene: Scene) -> None:
    """It is open until the next row comes, which here is of the writer's next session."""
    with launch(scene.config.model_copy(update={"courier": "none"})) as job:
        for _ in range(2):
            with open_monitor(job.config, "trainer") as monitor:
                for _ in range(3):
                    monitor.log({"loss": 0.5})
    scene.deliver()
    scene.check()
    assert [line["trainer/step"] for line in scene.run.rows("trainer/step")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.servers
@pytest.mark.processes
def test_courier_killed_between_two_calls(scene: Scene) -> None:
    killed: list[int] = []
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 41):
            monitor.log({"loss": 1 / step}, step)
            if step in (10, 25):
                kill_courier(scene, killed)
            monitor.log({"lr": 0.1 * step, "note": f"step {step}"}, step)
            time.sleep(0.1)
    scene.wait_for_end()
    check_lines(scene, 40)


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_couriers_killed_five_times(scene: Scene) -> None:
    killed: list[int] = []
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        for _ in range(KILLS):
            log_until_more_is_held(scene, trainer)
            kill_courier(scene, killed)
        trainer.log_for(1.0)
        monitor.close(timeout=120.0)
        assert scene.held("trainer") == len(trainer.calls)
    scene.wait_for_end()
    scene.check(in_order=False)


@pytest.mark.servers
@pytest.mark.processes
def test_key_again_in_a_step_is_a_line_of_its_own(scene: Scene) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        for value in (1.0, 2.0, 3.0):
            monitor.log({"loss": value}, 5)
        monitor.log({"reward": 4.0}, 5)
    scene.wait_for_end()
    lines = [(entry.line.get("trainer/loss"), entry.line.get("trainer/reward")) for entry in scene.run.history]
    assert lines == [(1.0, None), (2.0, None), (3.0, 4.0)]


@pytest.mark.servers
@pytest.mark.processes
def test_table_of_a_metrics_key_is_a_line_of_its_own(scene: Scene) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0, "lr": 0.1}, 5)
        monitor.log_table("loss", [{"prompt": "1+1"}], 5)
        monitor.log_table("samples", [{"prompt": "1+1"}], 5)
    scene.wait_for_end()
    first, second = [entry.line for entry in scene.run.history]
    assert (first["trainer/loss"], first["trainer/lr"]) == (1.0, 0.1)
    assert "trainer/samples" not in first
    assert second["trainer/loss"]["_type"] == second["trainer/samples"]["_type"] == "table-file"
