"""How long one call of `log` takes in a Ray actor, and what its rows cost until they are with the launcher.

    python benchmarks/ray_log.py [--peer rolecall "actor, waited for" ...] [--rows 5000] [--pace 1000] [--json FILE]

Each peer is an actor that logs rows of ten floats, which another process gets: rolecall's hub with `transport: ray`,
an actor that appends each row to a file and is called for each row, or TorchRL's `RayLogger` with its `CSVLogger`. A
pace of 1000 µs is a training step that reads the clock for so long between two calls; 0 is back to back.

`p50` and `p99` are those of the call, in µs. `role` and `others` are the CPU of a row in the role's process and in the
processes that carry it, without Ray's own, in µs. `behind` is how long after the last call the last row was there, in
ms.
`refused` counts calls that raised. A peer that is not installed is left out, and reported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from report import show_and_keep

from rolecall import MonitorConfig, launch, open_monitor

FLOATS = 10
Peer = Callable[[int, float, Path], Mapping[str, Any]]


class Appender:
    """What one writes who needs an hour for it: an actor that appends each row to a file."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - as long as the actor

    def log(self, row: Mapping[str, float], step: int) -> None:
        """Append one row."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()


class Role:
    """The actor that logs."""

    def __init__(self, peer: str, given: Any) -> None:
        self._given = given
        self._log: Callable[[Mapping[str, float], int], object]
        if peer == "rolecall":
            self._monitor = open_monitor(given, "explorer")
            self._log = self._monitor.log
        elif peer == "torchrl RayLogger":
            self._log = given.log_metrics
        elif peer == "actor, waited for":
            self._log = lambda row, step: ray.get(given.log.remote(row, step))
        else:
            self._log = given.log.remote

    def run(self, rows: int, pace: float) -> tuple[list[float], float, int]:
        """The time of each call, the CPU of all, and how many raised."""
        row = {f"group/metric_{at}": at / 7 for at in range(FLOATS)}
        times, refused, busy = [], 0, 0.0
        began = time.process_time()
        for step in range(1, rows + 1):
            start = time.perf_counter()
            try:
                self._log(row, step)
            except ray.exceptions.PendingCallsLimitExceeded:
                refused += 1
            times.append(time.perf_counter() - start)
            waited = time.process_time()
            while time.perf_counter() - start < pace:
                pass
            busy += time.process_time() - waited
        return times, time.process_time() - began - busy, refused

    def close(self) -> None:
        """End rolecall's session."""
        self._monitor.close()


def rolecall(rows: int, pace: float, folder: Path) -> Mapping[str, Any]:
    """`transport: ray`."""
    settings = {"transport": "ray", "monitor_dir": folder / "monitor", "spool_dir": folder / "spool"}
    job = launch(MonitorConfig.load({"project": "p", "name": "n", **settings}))
    role = ray.remote(Role).remote("rolecall", job.config)
    ray.get(role.run.remote(10, 0.0))
    names = (f"{job.run_id}/hub", f"{job.run_id}/{ray.get_runtime_context().get_node_id()}")
    carriers = [ray.get_actor(name, namespace="rolecall") for name in names]
    journal = folder / "monitor" / "journal" / "explorer" / "1.jsonl"
    last = f'"seq":{rows + 10},'.encode()
    found = _measure(role, carriers, rows, pace, lambda: last in journal.read_bytes()[-4096:])
    ray.get(role.close.remote())
    job.close()
    return found


def appender(rows: int, pace: float, folder: Path, peer: str) -> Mapping[str, Any]:
    """An actor that is called for each row."""
    path = folder / "rows"
    actor = ray.remote(Appender).options(num_cpus=0).remote(str(path))
    role = ray.remote(Role).remote(peer, actor)
    ray.get(role.run.remote(10, 0.0))
    last = f'"step": {rows},'.encode()
    return _measure(role, [actor], rows, pace, lambda: last in path.read_bytes()[-4096:])


def torchrl(rows: int, pace: float, folder: Path) -> Mapping[str, Any]:
    """TorchRL's logger, as a worker gets it."""
    from torchrl.record import CSVLogger, RayLogger

    logger = RayLogger(CSVLogger, exp_name="run", log_dir=str(folder), ray_actor_options={"num_cpus": 0})
    role = ray.remote(Role).remote("torchrl RayLogger", logger.client())
    ray.get(role.run.remote(10, 0.0))

    def is_there() -> bool:
        logger.flush()
        return True

    found = _measure(role, [logger._actor], rows, pace, is_there)
    logger.shutdown()
    return found


PEERS: Mapping[str, Peer] = {
    "rolecall": rolecall,
    "actor, not waited for": partial(appender, peer="actor, not waited for"),
    "actor, waited for": partial(appender, peer="actor, waited for"),
    "torchrl RayLogger": torchrl,
}


def _measure(
    role: Any, carriers: Sequence[Any], rows: int, pace: float, is_there: Callable[[], bool]
) -> Mapping[str, Any]:
    before = sum(map(_cpu_of, carriers))
    times, own, refused = ray.get(role.run.remote(rows, pace))
    ended = time.perf_counter()
    while not (refused or is_there()):
        time.sleep(0.001)
    behind = time.perf_counter() - ended
    others = sum(map(_cpu_of, carriers)) - before
    times = sorted(times)
    return {
        "p50": round(1e6 * times[len(times) // 2], 1),
        "p99": round(1e6 * times[len(times) * 99 // 100], 1),
        "role": round(1e6 * own / rows, 1),
        "others": round(1e6 * others / rows, 1),
        "behind": round(1e3 * behind),
        "refused": refused,
    }


def _cpu_of(actor: Any) -> float:
    """Seconds that an actor's process has computed."""
    return float(ray.get(actor.__ray_call__.remote(lambda _: time.process_time())))


def _measured(args: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    for name in args.peer:
        if name == "torchrl RayLogger" and find_spec("torchrl") is None:
            print(f"{name}: left out: torchrl is not installed", file=sys.stderr, flush=True)
            continue
        for pace in args.pace:
            with tempfile.TemporaryDirectory() as folder:
                found = PEERS[name](args.rows, pace / 1e6, Path(folder))
            yield {"peer": name, "pace": round(pace), **found}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--pace", type=float, nargs="+", default=[1000.0, 0.0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    # Where it is this script's folder alone that leads to `report`, workers would not find it.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    show_and_keep(list(_measured(args)), args.json)
    ray.shutdown()


if __name__ == "__main__":
    main()
