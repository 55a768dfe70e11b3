"""Jobs of the shape of three frameworks: MLflow holds what their own calls make it hold."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from framework_jobs import BY, Point, bag, log_through_rolecall, run_framework, verified_points
from framework_shapes import SHAPES, TABLE, Shape

from rolecall import MonitorConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = [pytest.mark.processes, pytest.mark.servers]

Through = Callable[..., str]


@pytest.fixture
def own(tmp_path: Path, migrated: Path) -> str:
    """The store of the framework's own run."""
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'own.db')}"


@pytest.fixture
def through_rolecall(tmp_path: Path, migrated: Path) -> Through:
    """Run a job; the store that it wrote."""

    def run(shape: Shape, *, shared: bool) -> str:
        uri = f"sqlite:///{shutil.copy(migrated, tmp_path / 'ours.db')}"
        config = MonitorConfig(
            project="gsm8k",
            name="grpo-1",
            monitor_type="mlflow",
            monitor_args={"uri": uri},
            monitor_dir=tmp_path / "job",
            shared_run=shared,
            courier="thread",
        )
        log_through_rolecall(shape, config)
        assert verified_points(config.monitor_dir) == bag(shape).total()
        return uri

    return run


def runs(client: MlflowClient) -> dict[str, str]:
    """The ids of all runs, by their names."""
    experiment = client.get_experiment_by_name("gsm8k")
    assert experiment is not None
    return {str(run.info.run_name): run.info.run_id for run in client.search_runs([experiment.experiment_id])}


def points(uri: str, name: str = "grpo-1") -> Counter[Point]:
    """All points that a run holds, as MLflow's client reads them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = runs(client)[name]
    # Trinity has MLflow sample the machine, into `system/...`, every 10 s.
    keys = [key for key in client.get_run(run_id).data.metrics if not key.startswith("system/")]
    histories = [client.get_metric_history(run_id, key) for key in keys]
    return Counter(Point(metric.key, metric.step, metric.value) for history in histories for metric in history)


def test_slime(own: str, through_rolecall: Through) -> None:
    """slime's steps are no metrics where they are the step: as it does with TensorBoard."""
    shape = SHAPES["slime"]
    run_framework(shape, "mlflow", own)
    ours = through_rolecall(shape, shared=True)
    assert points(own) == points(ours) == bag(shape)


def test_prime_rl(own: str, through_rolecall: Through) -> None:
    """The difference: MLflow's step of a row without one is 0; ours is counted."""
    shape = SHAPES["prime-rl"]
    run_framework(shape, "mlflow", own)
    ours = points(through_rolecall(shape, shared=True))
    assert ours == bag(shape)
    stepless = shape.stepless_keys()
    assert points(own) == Counter(Point(p.key, 0 if p.key in stepless else p.at, p.value) for p in ours.elements())


def tables(uri: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The path and content of each table in a run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = runs(client)[name]
    tag = client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]
    for entry in json.loads(tag):
        yield entry["path"], json.loads(Path(client.download_artifacts(run_id, entry["path"])).read_text())


def ten_digits(cell: object) -> object:
    """A cell as pandas writes it to JSON."""
    return round(cell, 10) if isinstance(cell, float) else cell


@BY
def test_trinity(own: str, through_rolecall: Through, by: str) -> None:
    """The differences: its table grows, has a column for the step, and floats have ten digits, as pandas writes them.

    Ours are a file for each step, named after it.
    """
    pytest.importorskip("pandas", reason="Trinity's tables need pandas; `nox -s frameworks` installs it")
    shape = SHAPES["trinity"]
    run_framework(shape, "mlflow", own, by)
    ours = through_rolecall(shape, shared=False)
    renamed = Counter(Point(p.key.replace("@", "_at_"), p.at, p.value) for p in bag(shape).elements())
    for role in shape.writers:
        assert points(own, f"grpo-1_{role}") == points(ours, f"grpo-1_{role}")
    assert sum((points(ours, f"grpo-1_{role}") for role in shape.writers), Counter()) == renamed
    ((path, grown),) = tables(own, "grpo-1_trainer")
    assert path == f"{TABLE}.json"
    found = list(tables(ours, "grpo-1_trainer"))
    logged = [call for call in shape.calls if call.table]
    assert [path.rpartition("-")[0] for path, _ in found] == [
        f"tables/trainer/{TABLE}/{call.step:08d}-1" for call in logged
    ]
    steps = [call.step for call in logged]
    assert grown["columns"] == [*found[0][1]["columns"], "step"]
    assert grown["data"] == [
        [*map(ten_digits, cells), step]
        for step, (_, table) in zip(steps, found, strict=True)
        for cells in table["data"]
    ]
