"""One process writes the one run of all roles: MLflow is imported once, and not in each role."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from relay_job import WRITERS, held, kill_relay, points, wait_for, working_roles

from rolecall import Image, MonitorConfig, Table, launch, open_monitor
from rolecall.__main__ import main

pytestmark = pytest.mark.processes

STEPS = 100


@pytest.fixture
def config(tmp_path: Path, migrated: Path) -> MonitorConfig:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="mlflow",
        monitor_args={"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
        shared_run="relay",
        monitor_dir=tmp_path / "monitor",
    )


def check(config: MonitorConfig) -> str:
    """Every point is in the only run, once, in its own order; returns the run's id."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=config.monitor_args["mlflow"].model_dump()["uri"])
    experiment = client.get_experiment_by_name("gsm8k")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "grpo-1"
    for writer in WRITERS:
        found = sorted(client.get_metric_history(run.info.run_id, f"{writer}/reward"), key=lambda each: each.timestamp)
        assert [(each.step, each.value) for each in found] == points(STEPS)
    assert {run.data.params[f"{writer}.lr"] for writer in WRITERS} == {"0.5"}
    return str(run.info.run_id)


def test_one_run_of_four_roles(config: MonitorConfig) -> None:
    with launch(config, {"seed": 1}) as job, working_roles(job.config, STEPS):
        pass
    check(config)


@pytest.mark.servers
def test_rows_come_once_though_the_relay_dies(config: MonitorConfig) -> None:
    with launch(config) as job:
        with working_roles(job.config, STEPS, every=0.2):
            for rows in (2, 20):
                wait_for(lambda rows=rows: held(config, "mlflow", "trainer") >= rows)  # type: ignore[misc]
                kill_relay(config, "mlflow")
        job.close(timeout=120.0)
    check(config)


def test_delivered_later_verified_and_repaired(config: MonitorConfig, tmp_path: Path) -> None:
    """No relay was there; later, points of one role are deleted from the store."""
    with launch(config.model_copy(update={"courier": "none"})) as job, working_roles(job.config, STEPS):
        pass
    command = ["verify", str(config.monitor_dir)]
    assert main(command) == 1
    assert main(["deliver", str(config.monitor_dir)]) == 0
    assert main(command) == 0
    run = check(config)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db, db:
        db.execute("DELETE FROM metrics WHERE key = 'explorer/1/reward' AND step BETWEEN 21 AND 60")
    assert main(command) == 1
    assert main([*command, "--repair"]) == 0
    assert main(command) == 0
    assert check(config) == run


def test_artifacts_of_each_role(config: MonitorConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"courier": "thread"})
    with launch(config) as job:
        for role in ("explorer", "trainer"):
            with open_monitor(job.config, role) as monitor:
                monitor.log({"samples": Table([{"prompt": "2+2"}]), "shot": Image([[[0, 0, 0]]])}, step=1)
                monitor.summary["best"] = 0.5
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=config.monitor_args["mlflow"].model_dump()["uri"])
    experiment = client.get_experiment_by_name("gsm8k")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert {run.data.metrics[f"summary/{role}/best"] for role in ("explorer", "trainer")} == {0.5}
    tables = {each.path for each in client.list_artifacts(run.info.run_id, "tables")}
    assert tables == {"tables/explorer", "tables/trainer"}
