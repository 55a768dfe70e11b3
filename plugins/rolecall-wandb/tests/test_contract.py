"""The contract for backends, on the real SDK and a server on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from wandb_emulator import WandbServer

from rolecall.testing import BackendContract, FinishedJob, Points


class TestContract(BackendContract):
    monitor_type = "wandb"
    server: WandbServer

    @pytest.fixture
    def monitor_args(self, server: WandbServer) -> Mapping[str, Any]:
        self.server = server
        return {}

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        stored = self.server.run(job.run_ids[writer])
        name = job.key(writer, key)
        if job.shared:
            return sorted((line[f"{writer}/step"], line[name]) for line in stored.rows(name))
        return sorted((entry.step, entry.line[name]) for entry in stored.history if name in entry.line)
