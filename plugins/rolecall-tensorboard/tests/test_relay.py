"""One event file holds all roles of a job, which one process writes, and TensorBoard reads it as one run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from relay_job import WRITERS, held, kill_relay, points, wait_for, working_roles

from rolecall import MonitorConfig, Row, RunTicket, launch, open_monitor
from rolecall.__main__ import main
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
STEPS = 100


@pytest.fixture
def config(tmp_path: Path) -> MonitorConfig:
    return MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="tensorboard", shared_run="relay", monitor_dir=tmp_path / "monitor"
    )


def directory(config: MonitorConfig) -> Path:
    return config.monitor_dir / "backends/tensorboard/grpo-1"


@pytest.mark.processes
def test_one_run_of_four_roles(config: MonitorConfig, read: Read, read_text: Callable[..., object]) -> None:
    with launch(config, {"seed": 1}) as job, working_roles(job.config, STEPS):
        pass
    assert [path.name for path in directory(config).parent.iterdir()] == ["grpo-1"]
    (file,) = directory(config).iterdir()
    assert ".relay." in file.name
    scalars = read(str(directory(config)))
    assert scalars == {f"{writer}/reward": points(STEPS) for writer in WRITERS}
    assert main(["verify", str(config.monitor_dir)]) == 0


@pytest.mark.processes
def test_rows_come_once_though_the_relay_dies(config: MonitorConfig, read: Read) -> None:
    with launch(config) as job:
        with working_roles(job.config, STEPS, every=0.1):
            for rows in (5, 30, 55):
                wait_for(lambda rows=rows: held(config, "tensorboard", "trainer") >= rows)  # type: ignore[misc]
                kill_relay(config, "tensorboard")
        job.close(timeout=120.0)
    assert len([*directory(config).iterdir()]) == 4
    assert read(str(directory(config))) == {f"{writer}/reward": points(STEPS) for writer in WRITERS}


def test_restarted_role_drops_nobodys_rows(config: MonitorConfig, read: Read) -> None:
    """A role that resumes from a checkpoint logs steps again; those of others stay."""
    config = config.model_copy(update={"courier": "thread"})
    with launch(config) as job:
        with open_monitor(job.config, "trainer") as trainer:
            for step in range(1, 21):
                trainer.log({"loss": step}, step=step)
        for first in (1, 11):
            with open_monitor(job.config, "explorer") as explorer:
                for step in range(first, 21):
                    explorer.log({"reward": step}, step=step)
    scalars = read(str(directory(config)))
    assert [step for step, _ in scalars["trainer/loss"]] == [*range(1, 21)]
    assert [step for step, _ in scalars["explorer/reward"]] == [*range(1, 21), *range(11, 21)]


def test_delivered_later_verified_and_written_again(config: MonitorConfig, read: Read) -> None:
    """No relay was there. A file of all roles takes no points in place, so another run gets all rows."""
    with launch(config.model_copy(update={"courier": "none"})) as job:
        for role in ("explorer", "trainer"):
            with open_monitor(job.config, role) as monitor:
                for step, reward in points(STEPS):
                    monitor.log({"reward": reward}, step=step)
    command = ["verify", str(config.monitor_dir)]
    assert main(command) == 1
    assert main(["deliver", str(config.monitor_dir)]) == 0
    assert main(command) == 0
    rewards = {f"{role}/reward": points(STEPS) for role in ("explorer", "trainer")}
    assert read(str(directory(config))) == rewards
    (file,) = directory(config).iterdir()
    os.truncate(file, file.stat().st_size // 2)
    assert main(command) == 1
    assert main([*command, "--repair"]) == 1
    assert main([*command, "--repair", "--new-run"]) == 0
    assert main(command) == 0
    (again,) = [path for path in directory(config).iterdir() if path.is_dir()]
    assert read(str(again)) == rewards


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, "backends/tensorboard/grpo-1"),
        ({"log_dir": "curves"}, "backends/tensorboard/curves/grpo-1"),
        ({"layout": "{project}/{role}"}, "backends/tensorboard/gsm8k/all"),
    ],
)
def test_directory_of_all_roles(
    tmp_path: Path, ticket: Callable[..., RunTicket], args: dict[str, str], expected: str
) -> None:
    from dataclasses import replace

    many = replace(ticket(None), writers="many", has_axes=True, job="grpo-1")
    run = plugin.open_run(many, TensorBoardArgs.model_validate(args))
    assert run.id == str(tmp_path / expected)
    run.log([Row(writer="trainer", session=1, seq=1, step=1, time=1.7e9, metrics={"trainer/loss": 1.0})])
    run.close("finished")
