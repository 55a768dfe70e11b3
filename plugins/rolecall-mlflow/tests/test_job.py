"""Many rows from several processes into one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rolecall import MonitorConfig, launch

if TYPE_CHECKING:
    from conftest import Server

MUCH = Path(__file__).parent / "much.py"
ROLES = (("explorer", 0), ("explorer", 1), ("trainer", None))
METRICS = 20


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """Every point that the store holds, repeated ones too, read with MLflow's own client."""
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def run_job(uri: str, directory: Path, rows: int) -> str:
    """Run three roles at the same time, each a process, with one run; return its URL."""
    config = MonitorConfig(
        project="scale",
        name=directory.name,
        monitor_type="mlflow",
        monitor_args={"uri": uri},
        shared_run=True,
        monitor_dir=directory / "monitor",
    )
    with launch(config) as job:
        environ = {**os.environ, **job.config.to_env()}
        errands = [[role, "" if rank is None else str(rank), str(rows), str(METRICS)] for role, rank in ROLES]
        roles = [subprocess.Popen([sys.executable, str(MUCH), *errand], env=environ) for errand in errands]
        assert [role.wait() for role in roles] == [0, 0, 0]
        return str(job.urls["mlflow"])


def check_every_point(uri: str, rows: int) -> None:
    """Check that all points are in the only run, none of them twice."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("scale")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for role, rank in ROLES:
        writer = role if rank is None else f"{role}/{rank}"
        for number in range(METRICS):
            points = history(uri, run.info.run_id, f"{writer}/metric/{number}")
            assert points == [(step, step + number / 100) for step in range(1, rows + 1)]


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", [100, pytest.param(2_000, marks=pytest.mark.servers)])
def test_three_roles_share_one_sqlite_run(tmp_path: Path, rows: int) -> None:
    """In a new file: 120,000 points by name, fewer at each change."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert "mlflow ui --backend-store-uri" in run_job(uri, tmp_path, rows)
    check_every_point(uri, rows)


@pytest.mark.servers
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("store", "rows"), [("server", 2_000), ("production", 300)])
def test_three_roles_share_a_servers_run(request: pytest.FixtureRequest, store: str, rows: int, tmp_path: Path) -> None:
    server: Server = request.getfixturevalue(store)
    assert run_job(server.uri, tmp_path, rows).startswith(server.uri)
    check_every_point(server.uri, rows)
