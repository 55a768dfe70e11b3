"""One process writes the one run of all roles."""

from __future__ import annotations

from pathlib import Path

import pytest
from relay_job import WRITERS, held, kill_relay, points, wait_for, working_roles
from swanlab_files import read_run

from rolecall import MonitorConfig, launch

pytestmark = pytest.mark.processes

STEPS = 100


@pytest.fixture
def config(tmp_path: Path) -> MonitorConfig:
    return MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="swanlab",
        monitor_args={"swanlab": {"mode": "offline"}},
        shared_run="relay",
        monitor_dir=tmp_path / "monitor",
    )


def test_rows_come_once_though_the_relay_dies(config: MonitorConfig) -> None:
    with launch(config, {"seed": 1}) as job:
        with working_roles(job.config, STEPS, every=0.1):
            for rows in (5, 30):
                wait_for(lambda rows=rows: held(config, "swanlab", "trainer") >= rows)  # type: ignore[misc]
                kill_relay(config, "swanlab")
        job.close(timeout=120.0)
    found = read_run(config.monitor_dir / "backends" / "swanlab", str(job.run_id))
    for writer in WRITERS:
        key = f"{writer}/reward"
        assert found.steps(key) == points(STEPS)
        assert found.axes[key] == f"{writer}/step"
    assert len(found.folders) == 3  # of the relay, and of each that followed one
