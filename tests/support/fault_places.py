"""The backends, each with its real server or store, and a way to read what it holds in the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_gate import Gate

from rolecall import MonitorConfig
from rolecall.job.history import read_rows
from rolecall.store.acks import read_reference
from rolecall.store.layout import Layout

__all__ = ["PLACES", "Place", "free_port", "make_store", "serving"]

EMULATOR = Path(__file__).parents[2] / "plugins" / "rolecall-wandb" / "tests" / "support"


@dataclass(frozen=True, slots=True)
class Place:
    """A backend.

    Attributes:
        name: for the table.
        monitor_type: the backend.
        args: of it, for a job in a directory.
        read: the step of every point that it holds of a job's writer `trainer`.
        exactly_once: whether the docs say that it holds each row once.
        gate: is between it and its clients, if they speak HTTP.
        environment: what its clients need.
        shared_run: whether it has one run for the job.
    """

    name: str
    monitor_type: str
    args: Callable[[Path], dict[str, Any]]
    read: Callable[[MonitorConfig], list[int]]
    exactly_once: bool
    gate: Gate | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    shared_run: bool = True


@contextmanager
def local(_: Path) -> Iterator[Place]:
    """The journal is the run."""
    yield Place("local", "local", lambda _: {}, lambda config: _journal(config.monitor_dir), exactly_once=True)


@contextmanager
def tensorboard(_: Path) -> Iterator[Place]:
    """Event files, read by TensorBoard's own reader."""
    yield Place(
        "tensorboard",
        "tensorboard",
        lambda _: {},
        lambda config: _events(config.monitor_dir / "backends" / "tensorboard"),
        exactly_once=True,
        shared_run=False,
    )


@contextmanager
def mlflow_sqlite(folder: Path) -> Iterator[Place]:
    """MLflow's client beside a file of sqlite; a file as MLflow makes it, which takes it seconds, is copied."""
    made = folder / "mlflow.db"
    make_store(made)

    def args(job: Path) -> dict[str, Any]:
        job.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, job / "mlflow.db")
        return {"uri": f"sqlite:///{job / 'mlflow.db'}"}

    yield Place("mlflow sqlite", "mlflow", args, _mlflow_points, exactly_once=True)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Place]:
    """A real `mlflow server`, behind a gate."""
    made = folder / "server.db"
    make_store(made)
    with serving(folder, made, free_port()) as url, Gate(url) as gate:
        # the client tries again for many minutes by itself
        patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
        yield Place(
            "mlflow server",
            "mlflow",
            lambda _: {"uri": gate.url},
            _mlflow_points,
            exactly_once=True,
            gate=gate,
            environment=patience,
        )


@contextmanager
def wandb(folder: Path) -> Iterator[Place]:
    """The emulator of wandb's server that the plugin's tests use, behind a gate."""
    sys.path.insert(0, str(EMULATOR))
    from wandb_emulator import WandbServer, environment

    with WandbServer() as server, Gate(server.url) as gate:
        given = {**environment(server, folder), "WANDB_BASE_URL": gate.url}

        def read(config: MonitorConfig) -> list[int]:
            lines = server.run(config.run_id or "").rows("trainer/step")
            return [int(line["trainer/step"]) for line in lines]

        yield Place("wandb", "wandb", lambda _: {}, read, exactly_once=False, gate=gate, environment=given)


PLACES: Mapping[str, Callable[[Path], contextlib.AbstractContextManager[Place]]] = {
    "local": local,
    "tensorboard": tensorboard,
    "mlflow sqlite": mlflow_sqlite,
    "mlflow server": mlflow_server,
    "wandb": wandb,
}


def _journal(directory: Path) -> list[int]:
    return [row.step for row in read_rows(directory) if row.writer == "trainer"]


def _events(directory: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {path.parent for path in directory.rglob("events.out.*")}
    steps: list[int] = []
    for folder in folders:
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        steps += [event.step for tag in found.Tags()["scalars"] if "loss" in tag for event in found.Scalars(tag)]
    return steps


def _mlflow_points(config: MonitorConfig) -> list[int]:
    from mlflow import MlflowClient

    reference = read_reference(Layout(config.monitor_dir), "mlflow", "trainer")
    assert reference is not None
    uri = config.monitor_args["mlflow"].model_dump()["uri"]
    client = MlflowClient(tracking_uri=uri if isinstance(uri, str) else uri.get_secret_value())
    return [metric.step for metric in client.get_metric_history(reference.id, "trainer/loss")]


def make_store(path: Path) -> None:
    """A file of sqlite as MLflow makes it."""
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').search_experiments(max_results=1)"
    subprocess.run([sys.executable, "-c", code], cwd=path.parent, check=True, capture_output=True)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(folder: Path, store: Path, port: int) -> Iterator[str]:
    """A real `mlflow server` on a store."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{store}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it would wait for clients that were cut off
        process.wait(30)


def _await(url: str) -> None:
    deadline = time.monotonic() + 300  # a busy machine imports MLflow for minutes
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
