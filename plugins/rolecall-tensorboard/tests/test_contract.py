"""The contract that every backend must pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rolecall.testing import BackendContract, FinishedJob, Points

Read = Callable[[str], dict[str, Points]]


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "tensorboard"
    tolerance = 1e-6

    @pytest.fixture(autouse=True)
    def _reader(self, read: Read) -> None:
        self.read = read

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        return self.read(job.run_ids[writer])[key]
