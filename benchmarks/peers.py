"""What a training loop can log with: rolecall, the limit, and what people use today. Each is opened in its own process.

The limit is what no logger that keeps the same promise can do without: encode the line of the row once, with time,
number and checksum, and write it once.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from zlib import crc32

from pydantic_core import to_json
from servers import mlflow_server, wandb_server

__all__ = ["PEERS", "Log", "opened", "plain_row"]

BACKLOG = 1_000_000
"""Rows that a courier works through meanwhile."""
Log = Callable[[Mapping[str, float], int], object]


def plain_row(count: int, first: int = 0) -> dict[str, float]:
    """A number of metrics, as a training loop logs them."""
    return {f"group/metric_{first + at}": at / 7 for at in range(count)}


@contextmanager
def limit(folder: Path) -> Iterator[Log]:
    """Encode the line that rolecall stores, with rolecall's encoder, and write it; nothing is checked or counted."""
    descriptor = os.open(folder / "rows", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seed = crc32(b"trainer/1")
    seq = 0

    def log(metrics: Mapping[str, float], step: int) -> None:
        nonlocal seq
        seq += 1
        row = {"seq": seq, "step": step, "time": time.time(), "data": metrics}
        payload = to_json(row, inf_nan_mode="strings")[:-1]
        os.write(descriptor, b'%b,"sum":"%08x"}\n' % (payload, crc32(payload, seed)))

    yield log
    os.close(descriptor)


@contextmanager
def nothing(_: Path) -> Iterator[Log]:
    """A call that does nothing."""

    def log(metrics: Mapping[str, float], step: int) -> None:
        pass

    yield log


@contextmanager
def in_memory(_: Path) -> Iterator[Log]:
    """A copy of the row in a list."""
    rows: list[tuple[int, dict[str, float]]] = []
    yield lambda metrics, step: rows.append((step, dict(metrics)))


@contextmanager
def rolecall_local(folder: Path) -> Iterator[Log]:
    """The journal alone."""
    with _monitor(folder, monitor_type="local") as log:
        yield log


@contextmanager
def rolecall_tensorboard(folder: Path) -> Iterator[Log]:
    """A courier of TensorBoard in a process beside it."""
    with _monitor(folder, monitor_type="tensorboard") as log:
        yield log


@contextmanager
def rolecall_mlflow(folder: Path) -> Iterator[Log]:
    """A courier of MLflow's sqlite store."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with _monitor(folder, monitor_type="mlflow", monitor_args={"uri": uri}) as log:
        yield log


@contextmanager
def rolecall_wandb(folder: Path) -> Iterator[Log]:
    """A courier of wandb, against the emulator of its server."""
    with wandb_server() as environment:
        os.environ.update(environment)
        with _monitor(folder, monitor_type="wandb", shared_run=True) as log:
            yield log


@contextmanager
def rolecall_busy(folder: Path) -> Iterator[Log]:
    """A courier of TensorBoard in a process beside it, which works through a backlog without rest."""
    from rolecall.store.acks import undelivered
    from rolecall.store.layout import Layout

    with _monitor(folder, monitor_type="tensorboard") as log:
        for step in range(-BACKLOG, 0):
            log({"backlog": 0.5}, step)
        yield log
        if not undelivered(Layout(folder / "monitor"), "tensorboard", "trainer"):
            raise AssertionError("the courier was done before the measurement: raise BACKLOG")


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
    with wandb_server() as environment:
        os.environ.update(environment)
        import wandb

        run = wandb.init(project="p", dir=folder, settings=wandb.Settings(silent=True))
        yield lambda metrics, step: run.log(dict(metrics), step=step)
        run.finish()


@contextmanager
def mlflow_sqlite(folder: Path) -> Iterator[Log]:
    """mlflow.log_metrics of each row, into sqlite."""
    with _mlflow(f"sqlite:///{folder / 'mlflow.db'}", synchronous=True) as log:
        yield log


@contextmanager
def mlflow_http(folder: Path) -> Iterator[Log]:
    """mlflow.log_metrics of each row, to a server on this machine."""
    with mlflow_server(folder / "server") as url, _mlflow(url, synchronous=True) as log:
        yield log


@contextmanager
def mlflow_async(folder: Path) -> Iterator[Log]:
    """mlflow.log_metrics(synchronous=False), into sqlite."""
    with _mlflow(f"sqlite:///{folder / 'mlflow.db'}", synchronous=False) as log:
        yield log


@contextmanager
def tensorboardx(folder: Path) -> Iterator[Log]:
    """tensorboardX's SummaryWriter.add_scalar for each metric."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))
    yield partial(_add_scalars, writer)
    writer.close()


@contextmanager
def torch_writer(folder: Path) -> Iterator[Log]:
    """torch's SummaryWriter.add_scalar for each metric."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    yield partial(_add_scalars, writer)
    writer.close()


@contextmanager
def trackio(folder: Path) -> Iterator[Log]:
    """trackio.log."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as tracker

    tracker.init(project="p", embed=False)
    yield lambda metrics, step: tracker.log(dict(metrics), step=step)
    tracker.finish()  # type: ignore[no-untyped-call,unused-ignore]


@contextmanager
def swanlab_offline(folder: Path) -> Iterator[Log]:
    """swanlab.log, mode offline."""
    import swanlab

    swanlab.init(project="p", mode="offline", logdir=str(folder))
    yield lambda metrics, step: swanlab.log(dict(metrics), step=step)
    swanlab.finish()


def verl(backend: str) -> Callable[[Path], AbstractContextManager[Log]]:
    """verl's Tracking.log, as its trainers call it."""

    @contextmanager
    def peer(folder: Path) -> Iterator[Log]:
        os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(folder), WANDB_SILENT="true")
        tracking = _verl_tracking().Tracking("p", "n", [backend], config={})
        yield lambda metrics, step: tracking.log(data=metrics, step=step)
        tracking.finish()

    return peer


def trinity(kind: str) -> Callable[[Path], AbstractContextManager[Log]]:
    """Trinity-RFT's Monitor.log, as its roles call it; it also logs each row through `logging`, here to a file."""

    @contextmanager
    def peer(folder: Path) -> Iterator[Log]:
        os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(folder), WANDB_SILENT="true")
        from trinity.common.config import Config
        from trinity.utils import monitor as monitors

        config = Config()
        config.monitor.cache_dir = str(folder)
        with (folder / "console").open("w") as console, redirect_stderr(console), redirect_stdout(console):
            monitor = getattr(monitors, kind)("p", "", "n", "trainer", config)
            yield lambda metrics, step: monitor.log(dict(metrics), step)
            monitor.close()

    return peer


PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Log]]] = {
    "nothing": nothing,
    "in memory": in_memory,
    "limit": limit,
    "rolecall local": rolecall_local,
    "rolecall, tensorboard": rolecall_tensorboard,
    "rolecall, mlflow": rolecall_mlflow,
    "rolecall, wandb": rolecall_wandb,
    "rolecall, busy courier": rolecall_busy,
    "rolecall, dead backend": rolecall_dead,
    "wandb offline": wandb_offline,
    "wandb online": wandb_online,
    "mlflow sqlite": mlflow_sqlite,
    "mlflow server": mlflow_http,
    "mlflow async": mlflow_async,
    "tensorboardX": tensorboardx,
    "torch writer": torch_writer,
    "trackio": trackio,
    "swanlab offline": swanlab_offline,
    "verl file": verl("file"),
    "verl tensorboard": verl("tensorboard"),
    "verl wandb offline": verl("wandb"),
    "Trinity tensorboard": trinity("TensorboardMonitor"),
    "Trinity wandb offline": trinity("WandbMonitor"),
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
        yield monitor.log
        monitor.close(timeout=0.0)
        job.close(timeout=0.0)


def _add_scalars(writer: Any, metrics: Mapping[str, float], step: int) -> None:
    for key, value in metrics.items():
        writer.add_scalar(key, value, step)


def _verl_tracking() -> Any:
    """The module alone: the package imports all that verl trains with."""
    found = find_spec("verl")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'verl'")
    spec = spec_from_file_location("verl_tracking", Path(found.origin).parent / "utils" / "tracking.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("verl has no utils/tracking.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _mlflow(uri: str, *, synchronous: bool) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    with mlflow.start_run():
        yield lambda metrics, step: mlflow.log_metrics(dict(metrics), step=step, synchronous=synchronous)
        mlflow.flush_async_logging()
