"""One process writes the one run of all roles."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from relay_job import WRITERS, held, kill_relay, points, wait_for, working_roles

from rolecall import MonitorConfig, launch

pytestmark = pytest.mark.processes

STEPS = 100


@pytest.fixture
def config(tmp_path: Path) -> MonitorConfig:
    return MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="trackio",
        monitor_args={"dir": "."},
        shared_run="relay",
        monitor_dir=tmp_path / "monitor",
    )


def test_rows_come_once_though_the_relay_dies(config: MonitorConfig) -> None:
    with launch(config, {"seed": 1}) as job:
        with working_roles(job.config, STEPS, every=0.1):
            for rows in (5, 30):
                wait_for(lambda rows=rows: held(config, "trackio", "trainer") >= rows)  # type: ignore[misc]
                kill_relay(config, "trackio")
        job.close(timeout=120.0)
    database = config.monitor_dir / "backends/trackio/gsm8k.db"
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        found = [
            (run, step, json.loads(row))
            for run, step, row in db.execute("SELECT run_id, step, metrics FROM metrics ORDER BY id")
        ]
    assert {run for run, _, _ in found} == {job.run_id}
    for writer in WRITERS:
        key = f"{writer}/reward"
        assert [(step, row[key]) for _, step, row in found if key in row] == points(STEPS)
