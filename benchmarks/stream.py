"""How many rows a second a courier sends to each backend, beside the backend's own best bulk call.

    python benchmarks/stream.py [--backend tensorboard "mlflow sqlite" "mlflow server" wandb] [--rows 20000]
                                [--floats 10] [--rounds 3] [--backlog] [--json FILE]

Both sides send the same points, in batches of the same size, to a new server of the same kind or the same file
system, each from a process of its own, in turns. The clock runs from when the run is open until it is closed and the
backend holds everything. `bulk` is `FileWriter.add_summary` of a whole row in tensorboardX, `MlflowClient.log_batch` of
1,000 metrics, and `Run.log` of a shared run in wandb. `courier` reads a journal, sends, and writes down what was
acknowledged; `of bulk` is its rate by that of `bulk` in the same round, the median of the rounds. rolecall aims at
90 %. CPU is that of the process and its children, for each row. `--backlog` lets only the courier work, on what waits:
1,000,000 rows of a metric.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import run_worker, show_and_keep
from servers import mlflow_server, wandb_server
from usage import children_cpu

from rolecall.delivery.events import CourierEvent

BATCH = 1000
"""Metrics of a batch: MLflow's limit, and what rolecall's plugin sends."""
WRITER = "trainer"


def main() -> None:
    """Measure each backend, and print how near the courier comes."""
    args = _options()
    if args.worker:
        measure = _courier if args.worker == "courier" else _bulk
        with tempfile.TemporaryDirectory(prefix="rolecall-bench-", ignore_cleanup_errors=True) as folder:
            os.chdir(folder)
            print(json.dumps(measure(args.backend[0], Path(folder), args.rows, args.floats)))
            os.chdir("/")
        return
    show_and_keep([row for backend in args.backend for row in _measured(backend, args)], args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", choices=BULK, default=list(BULK))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--floats", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backlog", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=("bulk", "courier"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(backend: str, args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Both sides, in turns; the first of a round is the last of the next, as noise comes and goes."""
    rows, floats = (1_000_000, 1) if args.backlog else (args.rows, args.floats)
    sides = ("courier",) if args.backlog else ("bulk", "courier")
    rounds: dict[str, list[Any]] = {side: [] for side in sides}
    for at in range(1 if args.backlog else args.rounds):
        for side in sides if at % 2 == 0 else reversed(sides):
            options = ["--worker", side, "--backend", backend, "--rows", str(rows)]
            with _served(backend):  # a new one, as one that holds many rows is slower
                rounds[side].append(run_worker(__file__, [*options, "--floats", str(floats)], backend))
    if not all(one for side in sides for one in rounds[side]):
        return
    ratios = _ratios(rounds)
    for side in sides:
        seconds = statistics.median(one["seconds"] for one in rounds[side])
        cpu = statistics.median(one["cpu"] for one in rounds[side]) / rows
        yield {
            "backend": backend,
            "by": side,
            "rows": rows,
            "floats": floats,
            "seconds": round(seconds, 2),
            "rows/s": round(rows / seconds),
            "CPU a row, µs": round(cpu * 1e6),
            "of bulk, %": round(100 * statistics.median(ratios)) if ratios and side == "courier" else None,
            "rounds, %": " ".join(str(round(100 * one)) for one in ratios) if side == "courier" else None,
        }


def _ratios(rounds: Mapping[str, list[Any]]) -> list[float]:
    if "bulk" not in rounds:
        return []
    pairs = zip(rounds["bulk"], rounds["courier"], strict=True)
    return [bulk["seconds"] / courier["seconds"] for bulk, courier in pairs]


@contextmanager
def _served(backend: str) -> Iterator[None]:
    """The backend's server, if it has one; workers find it in the environment."""
    with tempfile.TemporaryDirectory(prefix="rolecall-bench-", ignore_cleanup_errors=True) as folder:
        if backend == "mlflow server":
            with mlflow_server(Path(folder)) as url:
                os.environ["BENCH_MLFLOW"] = url
                yield
        elif backend == "wandb":
            with wandb_server() as environment:
                os.environ.update(environment)
                yield
        else:
            yield


def _rows(count: int, floats: int) -> Iterator[Mapping[str, float]]:
    keys = [f"group/metric_{at}" for at in range(floats)]
    return (dict.fromkeys(keys, step / 7) for step in range(1, count + 1))


# --------------------------------------------------------------------- courier


def _courier(backend: str, folder: Path, rows: int, floats: int) -> Mapping[str, float]:
    """A finished job's rows, delivered by the couriers of `rolecall deliver`."""
    from rolecall.delivery.redeliver import deliver

    logged(folder / "monitor", rows, floats)
    monitor_type = backend.partition(" ")[0]
    clock: dict[str, tuple[float, float]] = {}

    def hear(event: CourierEvent) -> None:
        if event.writer == WRITER:
            clock[event.kind] = (time.perf_counter(), _cpu())

    left = deliver(
        folder / "monitor",
        monitor_type,
        {"mlflow": {"uri": _uri(backend, folder)}} if monitor_type == "mlflow" else {},
        timeout=3600.0,
        on_event=hear,
    )
    # before it opened, it may have waited for the launcher's courier to open the run
    if left or clock.get("unavailable", clock["opened"]) > clock["opened"]:
        raise AssertionError(f"not delivered at once: {left}, {clock}")
    return {name: clock["ended"][at] - clock["opened"][at] for at, name in enumerate(("seconds", "cpu"))}


def logged(directory: Path, rows: int, floats: int) -> None:
    """A finished job with a writer of a number of rows, of which no backend holds any."""
    from rolecall import MonitorConfig, launch, open_monitor

    config = MonitorConfig(project="p", name="n", monitor_dir=directory, shared_run=True)
    with launch(config) as job, open_monitor(job.config, WRITER) as monitor:
        for step, metrics in enumerate(_rows(rows, floats), start=1):
            monitor.log(metrics, step=step)


# ------------------------------------------------------------------------ bulk


def _bulk(backend: str, folder: Path, rows: int, floats: int) -> Mapping[str, float]:
    began, cpu = BULK[backend](backend, folder, _rows(rows, floats))
    return {"seconds": time.perf_counter() - began, "cpu": _cpu() - cpu}


def _tensorboard(_: str, folder: Path, rows: Iterator[Mapping[str, float]]) -> tuple[float, float]:
    from tensorboardX import FileWriter
    from tensorboardX.proto.summary_pb2 import Summary

    writer = FileWriter(str(folder))
    began = _now()
    for step, metrics in enumerate(rows, start=1):
        values = [Summary.Value(tag=key, simple_value=value) for key, value in metrics.items()]
        writer.add_summary(Summary(value=values), step)
    writer.close()
    return began


def _mlflow(backend: str, folder: Path, rows: Iterator[Mapping[str, float]]) -> tuple[float, float]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracking_uri=_uri(backend, folder))
    run_id = client.create_run("0").info.run_id
    began = _now()
    batch: list[Metric] = []
    for step, metrics in enumerate(rows, start=1):
        now = int(time.time() * 1000)
        batch += [Metric(f"{WRITER}/{key}", value, now, step) for key, value in metrics.items()]
        if len(batch) >= BATCH:
            client.log_batch(run_id, metrics=batch[:BATCH])
            batch = batch[BATCH:]
    client.log_batch(run_id, metrics=batch)
    return began


def _wandb(_: str, folder: Path, rows: Iterator[Mapping[str, float]]) -> tuple[float, float]:
    import wandb

    settings = wandb.Settings(mode="shared", x_primary=True, x_label=WRITER, console="off", silent=True)
    run = wandb.init(project="p", dir=folder, settings=settings)
    run.define_metric(f"{WRITER}/*", step_metric=f"{WRITER}/step")
    began = _now()
    for step, metrics in enumerate(rows, start=1):
        run.log({**{f"{WRITER}/{key}": value for key, value in metrics.items()}, f"{WRITER}/step": step})
    run.finish()
    return began


BULK = {"tensorboard": _tensorboard, "mlflow sqlite": _mlflow, "mlflow server": _mlflow, "wandb": _wandb}


def _now() -> tuple[float, float]:
    return time.perf_counter(), _cpu()


def _uri(backend: str, folder: Path) -> str:
    return os.environ["BENCH_MLFLOW"] if backend == "mlflow server" else f"sqlite:///{folder / 'mlflow.db'}"


def _cpu() -> float:
    """Seconds of CPU that this process and its children have used."""
    return time.process_time() + children_cpu()


if __name__ == "__main__":
    main()
