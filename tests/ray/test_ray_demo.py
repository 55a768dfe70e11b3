"""`rolecall demo --ray`: the demo's roles on two nodes, whose rows travel over Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from rolecall.job.history import read_history, read_rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

WRITERS = ("evaluator", "explorer/0", "explorer/1", "trainer")
COMMAND = [sys.executable, "-m", "rolecall", "demo", "--ray", "--monitor-type", "local", "--monitor-dir", "runs/demo"]


def test_the_demo_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    done = demo(cluster, tmp_path, "--steps", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a Ray cluster of 2 nodes" in done.stdout
    directory = tmp_path / "runs" / "demo"
    assert str(read_history(directory).state) == "finished"
    rows = [row for row in read_rows(directory) if row.metrics]
    for writer in WRITERS:
        assert [row.step for row in rows if row.writer == writer] == [1, 2, 3]


def demo(cluster: Cluster, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_ADDRESS": str(cluster.address), "COLUMNS": "200"}
    return subprocess.run(
        [*COMMAND, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
