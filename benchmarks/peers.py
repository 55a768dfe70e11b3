"""What a training loop can log with: rolecall, the limit, and what people use today. Each is opened in its own process.

The limit is what no logger that keeps its word can do without: encode the row that is stored once, write it once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "Log", "opened"]

Log = Callable[[Mapping[str, float], int], object]
EMULATOR = Path(__file__).parents[1] / "plugins" / "rolecall-wandb" / "tests" / "support"


@contextmanager
def limit(folder: Path) -> Iterator[Log]:
    """One encoding and one write of the row as rolecall stores it."""
    from rolecall.frames import encode

    descriptor = os.open(folder / "rows", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seq = 0

    def log(metrics: Mapping[str, float], step: int) -> None:
        nonlocal seq
        seq += 1
        os.write(descriptor, encode({"n": seq, "s": step, "t": time.time(), "m": metrics}))

    yield log
    os.close(descriptor)


@contextmanager
def rolecall_local(folder: Path) -> Iterator[Log]:
    """The journal alone."""
    with _monitor(folder, monitor_type="local") as log:
        yield log


@contextmanager
def rolecall_busy(folder: Path) -> Iterator[Log]:
    """A courier of TensorBoard in a process beside it, which works through a backlog without rest."""
    with _monitor(folder, monitor_type="tensorboard") as log:
        for step in range(-200_000, 0):
            log({"backlog": 0.5}, step)
        yield log


@contextmanager
def rolecall_dead(folder: Path) -> Iterator[Log]:
    """A courier whose MLflow server is not there."""
    with _monitor(folder, monitor_type="mlflow", monitor_args={"uri": "http://127.0.0.1:9"}) as log:
        yield log


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    """wandb.Run.log, mode offline."""
    import wandb

    run = wandb.init(project="p", mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    yield lambda metrics, step: run.log(dict(metrics), step=step)
    run.finish()


@contextmanager
def wandb_online(folder: Path) -> Iterator[Log]:
    """wandb.Run.log, against the emulator of its server."""
    import subprocess

    command = [sys.executable, "-m", "wandb_emulator"]
    env = {**os.environ, "PYTHONPATH": str(EMULATOR)}
    server = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if server.stdout is None or server.stdin is None:
        raise AssertionError("started with pipes")
    os.environ.update(WANDB_BASE_URL=server.stdout.readline().strip(), WANDB_API_KEY="local" + "0" * 34 + "a")
    import wandb

    run = wandb.init(project="p", dir=folder, settings=wandb.Settings(silent=True))
    yield lambda metrics, step: run.log(dict(metrics), step=step)
    run.finish()
    server.stdin.close()
    server.wait(30)


@contextmanager
def mlflow_sqlite(folder: Path) -> Iterator[Log]:
    """MlflowClient.log_batch, a call for each row, into sqlite."""
    yield _mlflow(f"sqlite:///{folder / 'mlflow.db'}", synchronous=True)


@contextmanager
def mlflow_async(folder: Path) -> Iterator[Log]:
    """MlflowClient.log_batch(synchronous=False) into sqlite."""
    import mlflow

    yield _mlflow(f"sqlite:///{folder / 'mlflow.db'}", synchronous=False)
    mlflow.flush_async_logging()


@contextmanager
def tensorboardx(folder: Path) -> Iterator[Log]:
    """tensorboardX's SummaryWriter.add_scalar for each metric."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    yield log
    writer.close()


@contextmanager
def torch_writer(folder: Path) -> Iterator[Log]:
    """torch's SummaryWriter.add_scalar for each metric."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    yield log
    writer.close()


@contextmanager
def trackio(folder: Path) -> Iterator[Log]:
    """trackio.log."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as tracker

    tracker.init(project="p", embed=False)
    yield lambda metrics, step: tracker.log(dict(metrics), step=step)
    tracker.finish()


@contextmanager
def swanlab_offline(folder: Path) -> Iterator[Log]:
    """swanlab.log, mode offline."""
    import swanlab

    swanlab.init(project="p", mode="offline", logdir=str(folder))
    yield lambda metrics, step: swanlab.log(dict(metrics), step=step)
    swanlab.finish()


PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Log]]] = {
    "limit": limit,
    "rolecall local": rolecall_local,
    "rolecall, busy courier": rolecall_busy,
    "rolecall, dead backend": rolecall_dead,
    "wandb offline": wandb_offline,
    "wandb online": wandb_online,
    "mlflow sqlite": mlflow_sqlite,
    "mlflow async": mlflow_async,
    "tensorboardX": tensorboardx,
    "torch writer": torch_writer,
    "trackio": trackio,
    "swanlab offline": swanlab_offline,
}


@contextmanager
def opened(name: str) -> Iterator[Log]:
    """A peer, in a folder of its own that is the working directory too."""
    with tempfile.TemporaryDirectory(prefix="rolecall-bench-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        with PEERS[name](Path(folder)) as log:
            yield log
        os.chdir("/")


@contextmanager
def _monitor(folder: Path, **settings: Any) -> Iterator[Log]:
    from rolecall import MonitorConfig, launch, open_monitor

    given = {"project": "p", "name": "n", "monitor_dir": folder / "monitor", "shared_run": False}
    with launch(MonitorConfig(**{**given, **settings})) as job:
        monitor = open_monitor(job.config, "trainer")
        yield lambda metrics, step: monitor.log(metrics, step=step)
        monitor.close(timeout=0.0)
        job.close(timeout=0.0)


def _mlflow(uri: str, *, synchronous: bool) -> Log:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run("0").info.run_id

    def log(metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        batch = [Metric(key, value, now, step) for key, value in metrics.items()]
        client.log_batch(run_id, batch, synchronous=synchronous)

    return log
