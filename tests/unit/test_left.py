"""What is left is counted, by a process that nobody waits for where the directory does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecall import MonitorConfig, launch, open_monitor
from rolecall.job.left import count_left, count_left_apart


@pytest.fixture
def root(tmp_path: Path) -> Path:
    config = MonitorConfig(project="p", name="n", monitor_dir=tmp_path / "monitor")
    with launch(config) as job, open_monitor(job.config, "explorer", rank=0) as monitor:
        for step in range(3):
            monitor.log({"loss": 0.5}, step=step)
    return tmp_path / "monitor"


def test_both_count_the_same(root: Path) -> None:
    counted = {"mlflow": 3, "wandb": 3}
    assert count_left(root, "explorer/0", ["mlflow", "wandb"]) == counted
    assert count_left_apart(root, "explorer/0", ["mlflow", "wandb"], 60.0) == counted


def test_what_is_not_known_in_time_is_not_waited_for(root: Path) -> None:
    assert count_left_apart(root, "explorer/0", ["mlflow"], 0.0) is None
