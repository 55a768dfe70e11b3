"""The contract that every backend must pass; `test_run` reads with trackio itself, which takes a second a time."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from rolecall.testing import BackendContract, FinishedJob, Points


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "trackio"

    @pytest.fixture
    def monitor_args(self) -> dict[str, str]:
        return {"dir": "."}

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        query = "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY step"
        with closing(sqlite3.connect(job.monitor_dir / "backends" / "trackio" / "contract.db")) as db:
            rows = [(step, json.loads(held)) for step, held in db.execute(query, (job.run_ids[writer],))]
        name = job.key(writer, key)
        return [(step, held[name]) for step, held in rows if name in held]
