"""The contract that every backend must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rolecall.testing import BackendContract, FinishedJob, Points


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "trackio"

    @pytest.fixture
    def monitor_args(self) -> dict[str, str]:
        return {"dir": "."}

    @pytest.fixture(autouse=True)
    def _reader(self, read: Callable[..., dict[str, Any]]) -> None:
        self.read = read

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        name = job.key(writer, key)
        found = self.read(job.run_ids[writer], "contract", job.monitor_dir / "backends" / "trackio")
        return sorted((row["step"], row[name]) for row in found["rows"] if name in row)
