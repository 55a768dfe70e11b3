"""The contract for backends, held by the tests' own backend: so the contract itself is tried, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall.testing import BackendContract, FinishedJob, Points


@pytest.mark.processes
class TestLinesContract(BackendContract):
    monitor_type = "lines"

    @pytest.fixture
    def monitor_args(self, tmp_path: Path, server: LinesServer) -> Mapping[str, Any]:
        return {"path": str(server.path)}

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        server = LinesServer(Path(job.config.monitor_args["lines"].model_dump()["path"]))
        return sorted(set(server.points(job.run_ids[writer], writer, job.key(writer, key))))
