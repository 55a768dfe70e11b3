"""The contract that every backend must pass."""

from __future__ import annotations

import pytest
from swanlab_files import read_run

from rolecall.testing import BackendContract, FinishedJob, Points


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "swanlab"

    @pytest.fixture
    def monitor_args(self) -> dict[str, str]:
        return {"mode": "offline"}

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        held = read_run(job.monitor_dir / "backends" / "swanlab", job.run_ids[writer])
        return held.steps(job.key(writer, key))
