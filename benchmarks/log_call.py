"""How long one call of `log` takes, beside the limit and beside what people use today.

    python benchmarks/log_call.py [--peer "rolecall local" "wandb offline" ...] [--floats 1 10 100] [--pace 0 1000]
                                  [--scalars float numpy torch] [--threads 1 8] [--calls 5000] [--rounds 3]
                                  [--json FILE]

Each peer runs in a process of its own, and all take turns for some rounds, so that a noisy minute strikes each. A pace
of 1000 µs is a training step that reads the clock for so long between two calls; 0 is back to back. With
`--scalars numpy` metrics are `numpy.float32`, with `torch` tensors of no dimension. With `--threads 8` eight threads
log, each at this pace. Times are in µs; `p50 x` and `p99 x` are ratios to the limit's, with plain floats in one thread,
at the same pace and number of floats, in the same run. A peer that is not installed is left out, and told.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from peers import PEERS, Log, opened, plain_row
from report import run_worker, tell

SLOW = 200
"""Calls of a peer that takes milliseconds for each."""


@dataclass(frozen=True, slots=True)
class Case:
    """One peer, at one pace (µs), with so many metrics of a kind, from so many threads."""

    peer: str
    floats: int
    pace: float
    scalars: str = "float"
    threads: int = 1


def main() -> None:
    """Measure every case in turns, and print them."""
    told = _options()
    cases = list(_cases(told))
    if told.worker:
        print(json.dumps(_worker(cases[0], told.calls)))
        return
    calls: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(told.rounds):
        for case in cases:
            calls[case] += _run(case, told.calls)
    tell([_row(case, calls[case], _limit(case, calls)) for case in cases if calls[case]], told.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--floats", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--pace", nargs="+", type=float, default=[0.0, 1000.0], help="µs between two calls")
    parser.add_argument("--scalars", nargs="+", choices=SCALARS, default=["float"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(told: argparse.Namespace) -> Iterator[Case]:
    """Each combination; the limit is that of plain floats in one thread."""
    for pace, floats, peer in product(told.pace, told.floats, told.peer):
        if peer == "limit":
            yield Case(peer, floats, pace)
        else:
            for scalars, threads in product(told.scalars, told.threads):
                yield Case(peer, floats, pace, scalars, threads)


def _run(case: Case, calls: int) -> list[float]:
    options = ["--worker", "--peer", case.peer, "--floats", str(case.floats), "--pace", str(case.pace)]
    options += ["--scalars", case.scalars, "--threads", str(case.threads), "--calls", str(calls)]
    return run_worker(__file__, options, case.peer) or []


def _worker(case: Case, calls: int) -> list[float]:
    metrics = {key: SCALARS[case.scalars](value) for key, value in plain_row(case.floats).items()}
    with opened(case.peer) as log:
        # what is slow is known after a few calls, which warm up too
        began = time.perf_counter()
        for step in range(1, 21):
            log(metrics, step)
        count = min(calls, SLOW) if time.perf_counter() - began > 20 * 1e-3 else calls
        if case.threads == 1:  # some loggers know their run only in the thread that opened it
            return _calls(log, metrics, range(21, 21 + count), case.pace)
        with ThreadPoolExecutor(case.threads) as threads:
            each = [
                threads.submit(_calls, log, metrics, range(21 + at, 21 + count, case.threads), case.pace)
                for at in range(case.threads)
            ]
        return [call for one in each for call in one.result()]


def _calls(log: Log, metrics: Mapping[str, float], steps: Iterable[int], pace: float) -> list[float]:
    return [_timed(log, metrics, step, pace) for step in steps]


def _timed(log: Log, metrics: Mapping[str, float], step: int, pace: float) -> float:
    began = time.perf_counter()
    log(metrics, step)
    ended = time.perf_counter()
    while (time.perf_counter() - ended) * 1e6 < pace:
        pass
    return (ended - began) * 1e6


def _numpy(value: float) -> Any:
    import numpy as np

    return np.float32(value)


def _torch(value: float) -> Any:
    import torch

    return torch.tensor(value)


SCALARS: Mapping[str, Callable[[float], Any]] = {"float": float, "numpy": _numpy, "torch": _torch}


def _limit(case: Case, calls: Mapping[Case, Sequence[float]]) -> Sequence[float]:
    return sorted(calls.get(Case("limit", case.floats, case.pace), ()))


def _row(case: Case, times: Sequence[float], limit: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(times)
    shares = {name: round(_at(ordered, share), 1) for name, share in SHARES.items()}
    ratios = {
        f"{name} x": round(_at(ordered, SHARES[name]) / _at(limit, SHARES[name]), 1) if limit else None
        for name in ("p50", "p99")
    }
    return {**asdict(case), "calls": len(ordered), **shares, "longest": round(ordered[-1], 1), **ratios}


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


if __name__ == "__main__":
    main()
