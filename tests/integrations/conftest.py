"""The trackers that each integration is tested with, and what each holds in the end, as its own reader says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wandb_emulator import WandbServer, environment

Points = dict[str, list[tuple[float, float]]]
"""The points of each metric: steps (x values on the axis of the metric) and values, in order."""
TRACKERS = ("wandb", "mlflow", "tensorboard")


@dataclass(frozen=True, slots=True)
class Tracker:
    """One tracker, empty.

    Attributes:
        monitor_type: rolecall's name of it.
        monitor_args: as a config has them.
        read: the points of all of its runs, or of those whose name contains a text; axes' own metrics too.
    """

    monitor_type: str
    monitor_args: Mapping[str, Any]
    read: Callable[..., Points]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody's login or settings, and a working directory and a home of this test's own."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_T", "ROLECALL_"))]:
        del os.environ[name]
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    os.environ.update(HOME=str(home), WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, clean_environment: None) -> Iterator[Tracker]:
    """Each of three trackers in turn: wandb with an emulator of its server, MLflow in a file, TensorBoard."""
    match request.param:
        case "wandb":
            with WandbServer() as server:
                os.environ.update(environment(server, tmp_path))
                yield Tracker("wandb", {}, lambda name="": _wandb_points(server, name))
        case "mlflow":
            uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
            yield Tracker("mlflow", {"uri": uri}, lambda name="": _mlflow_points(uri, name))
        case _:
            folder = tmp_path / "events"
            yield Tracker("tensorboard", {"log_dir": str(folder)}, lambda name="": _events(folder, name))


def _wandb_points(server: WandbServer, name: str) -> Points:
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in server.runs.values():
        if name not in run.named.get("name", ""):
            continue
        axes = run.bindings()
        for entry in run.history:
            for key, value in entry.line.items():
                if isinstance(value, int | float) and not key.startswith("_"):
                    found[key].append((float(entry.line.get(axes.get(key, "_step"), entry.step)), value))
    return {key: sorted(points) for key, points in found.items()}


def _mlflow_points(uri: str, name: str) -> Points:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            if name not in (run.info.run_name or ""):
                continue
            for key in run.data.metrics:
                found[key].extend((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
    return {key: sorted(points) for key, points in found.items()}


def _events(folder: Path, name: str) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for directory in sorted({path.parent for path in folder.rglob("events.out.tfevents*") if name in str(path.parent)}):
        events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found[tag].extend((event.step, event.value) for event in events.Scalars(tag))
    return {key: sorted(points) for key, points in found.items()}
