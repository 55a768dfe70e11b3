"""The backends, each with its real server or store, and a way to read what it holds in the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from fault_gate import FAULTS, Gate
from local_postgresql import DATABASE_FAULTS, serving_postgresql
from local_servers import serving_mlflow
from wandb_emulator import WandbServer, environment

from rolecall import MonitorConfig
from rolecall.job.history import read_rows
from rolecall.store.acks import read_reference
from rolecall.store.layout import Layout

__all__ = ["PLACES", "Picture", "Place"]

Picture = tuple[int, bytes]
"""The step of a picture, by its backend, and its file."""


@dataclass(frozen=True, slots=True)
class Place:
    """A backend.

    Attributes:
        name: for the table.
        monitor_type: the backend.
        args: of it, for a job in a directory.
        read: the step of every point that it holds of a job's writer `trainer`.
        images: the step of every picture that it holds of this writer, and its file; an empty one if that is not there.
        exactly_once: whether the docs say that it holds each row once.
        faults: what can happen to it, by name: each lasts as long as its context.
        environment: what its clients need.
        shared_run: whether it has one run for the job, and whether a relay writes it.
    """

    name: str
    monitor_type: str
    args: Callable[[Path], dict[str, Any]]
    read: Callable[[MonitorConfig], list[int]]
    images: Callable[[MonitorConfig], list[Picture]]
    exactly_once: bool
    faults: Mapping[str, Callable[[], AbstractContextManager[None]]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    shared_run: bool | Literal["relay"] = True


@contextmanager
def local(_: Path) -> Iterator[Place]:
    """The journal is the run."""
    yield Place("local", "local", lambda _: {}, _journal, _journal_images, exactly_once=True)


@contextmanager
def tensorboard(_: Path) -> Iterator[Place]:
    """Event files, read by TensorBoard's own reader."""
    yield Place("tensorboard", "tensorboard", lambda _: {}, _events, _event_images, exactly_once=True, shared_run=False)


@contextmanager
def mlflow_sqlite(folder: Path) -> Iterator[Place]:
    """MLflow's client beside a file of sqlite; a file as MLflow makes it, which takes it seconds, is copied."""
    made = folder / "mlflow.db"
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{made}').search_experiments(max_results=1)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)

    def args(job: Path) -> dict[str, Any]:
        job.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, job / "mlflow.db")
        return {"uri": f"sqlite:///{job / 'mlflow.db'}"}

    yield Place("mlflow sqlite", "mlflow", args, _mlflow_points, _mlflow_images, exactly_once=True)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Place]:
    """A real `mlflow server` on a file of sqlite, behind a gate."""
    with _mlflow("mlflow server", folder) as place:
        yield place


@contextmanager
def mlflow_postgresql(folder: Path) -> Iterator[Place]:
    """A real `mlflow server` on PostgreSQL, behind a gate."""
    with serving_postgresql() as database, _mlflow("mlflow postgresql", folder, database.uri) as place:
        own = {name: partial(fault, database) for name, fault in DATABASE_FAULTS.items()}
        yield replace(place, faults={**place.faults, **own})


@contextmanager
def _mlflow(name: str, folder: Path, database: str | None = None) -> Iterator[Place]:
    with serving_mlflow(folder, database=database) as url, Gate(url) as gate:
        # the client tries again for many minutes by itself
        patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
        yield Place(
            name,
            "mlflow",
            lambda _: {"uri": gate.url},
            _mlflow_points,
            _mlflow_images,
            exactly_once=True,
            faults=_faults(gate),
            environment=patience,
        )


@contextmanager
def wandb(folder: Path) -> Iterator[Place]:
    """The emulator of wandb's server that the plugin's tests use, behind a gate."""
    with WandbServer() as server, Gate(server.url) as gate:
        given = {**environment(server, folder), "WANDB_BASE_URL": gate.url}

        def read(config: MonitorConfig) -> list[int]:
            return [int(line["trainer/step"]) for line in server.run(config.run_id or "").rows("trainer/loss")]

        def images(config: MonitorConfig) -> list[Picture]:
            run = server.run(config.run_id or "")
            entries = [(int(line["trainer/step"]), line["trainer/maze"]) for line in run.rows("trainer/maze")]
            return [(step, run.files.get(entry["path"], b"")) for step, entry in entries]

        yield Place(
            "wandb", "wandb", lambda _: {}, read, images, exactly_once=False, faults=_faults(gate), environment=given
        )


def _faults(gate: Gate) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    return {fault: partial(gate.faulty, fault) for fault in FAULTS}


PLACES: Mapping[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "local": local,
    "tensorboard": tensorboard,
    "mlflow sqlite": mlflow_sqlite,
    "mlflow server": mlflow_server,
    "mlflow postgresql": mlflow_postgresql,
    "wandb": wandb,
}


def _journal(config: MonitorConfig) -> list[int]:
    return [row.step for row in read_rows(config.monitor_dir) if row.writer == "trainer" and row.metrics]


def _journal_images(config: MonitorConfig) -> list[Picture]:
    rows = [row for row in read_rows(config.monitor_dir) if row.writer == "trainer"]
    return [(row.step, media.path.read_bytes()) for row in rows for media in row.media if media.path is not None]


def _events(config: MonitorConfig) -> list[int]:
    return [
        event.step
        for found in _accumulated(config)
        for tag in found.Tags()["scalars"]
        if "loss" in tag
        for event in found.Scalars(tag)
    ]


def _event_images(config: MonitorConfig) -> list[Picture]:
    return [
        (event.step, event.tensor_proto.string_val[2])  # behind the width and the height
        for found in _accumulated(config)
        for tag in found.Tags()["tensors"]
        if "maze" in tag
        for event in found.Tensors(tag)
    ]


def _accumulated(config: MonitorConfig) -> Iterator[Any]:
    """Each directory of event files, read by TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = config.monitor_dir / "backends" / "tensorboard"
    for folder in {path.parent for path in directory.rglob("events.out.*")}:
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        found.Reload()
        yield found


def _mlflow_points(config: MonitorConfig) -> list[int]:
    client, run_id = _mlflow_run(config)
    return [metric.step for metric in client.get_metric_history(run_id, "trainer/loss")]


def _mlflow_images(config: MonitorConfig) -> list[Picture]:
    client, run_id = _mlflow_run(config)
    with TemporaryDirectory() as folder:
        client.download_artifacts(run_id, "images", folder)
        # KEY+step+STEP+timestamp+TIME+ID.png, and the same with `+compressed`, which the grid draws
        found = [path for path in Path(folder).rglob("*maze+*") if not path.stem.endswith("+compressed")]
        return [(int(path.name.split("+")[2]), path.read_bytes()) for path in found]


def _mlflow_run(config: MonitorConfig) -> tuple[Any, str]:
    """A client, and the id of the trainer's run."""
    from mlflow import MlflowClient

    reference = read_reference(Layout(config.monitor_dir), "mlflow", "trainer")
    assert reference is not None
    uri = config.monitor_args["mlflow"].model_dump()["uri"]
    return MlflowClient(tracking_uri=uri if isinstance(uri, str) else uri.get_secret_value()), reference.id
