"""How long one call of `log` takes, beside the limit and beside what people use today.

    python benchmarks/log_call.py [--peer "rolecall local" "wandb offline" ...] [--floats 10 100] [--pace 0 1000]
                                  [--scalars float numpy torch] [--threads 1 8] [--calls 2000] [--rounds 5]
                                  [--json FILE]

The limit encodes the same line with the same encoder and writes it to a file of the same file system. Each peer runs in
a process of its own, and all take turns for some rounds, so that a noisy minute strikes each. A pace of 1000 µs is a
training step that reads the clock for so long between two calls; 0 is back to back. With `--scalars numpy` metrics are
`numpy.float32`, with `torch` tensors of no dimension. With `--threads 8` eight threads log, each at this pace.

Times are in µs, each the median of what the rounds found. `x limit` is the peer's p50 by that of the limit in the same
round (plain floats, one thread, the same pace and number of floats), the median of the rounds, and `rounds` the least
and the most; `p99 / p50` is that of the peer itself. At the end stands what rolecall promises, and whether it holds. A
peer that is not installed is left out, and reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from peers import PEERS, Log, opened, plain_row
from report import run_worker, show_and_keep, table

SLOW = 50
"""Calls of a peer that takes milliseconds for each."""
LIMIT, OURS = "limit", "rolecall local"
DEFAULT = (
    *(LIMIT, OURS, "rolecall, mlflow", "wandb offline", "wandb online"),
    *("trackio", "mlflow sqlite", "tensorboardX"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One peer, at one pace (µs), with a number of metrics of a kind, from a number of threads."""

    peer: str
    floats: int
    pace: float
    scalars: str = "float"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process found, in µs."""

    calls: int
    p50: float
    p99: float
    longest: float


Found = Mapping[Case, list[Measured]]


def main() -> None:
    """Measure every case in turns, and print them."""
    args = _options()
    cases = list(_cases(args))
    if args.worker:
        print(json.dumps(asdict(_worker(cases[0], args.calls))))
        return
    found: dict[Case, list[Measured]] = {case: [] for case in cases}
    for _ in range(args.rounds):
        for case in cases:
            if (measured := _run(case, args.calls)) is not None:
                found[case].append(measured)
    show_and_keep([_row(case, found) for case in cases if found[case]], args.json)
    if promises := list(_promises(found)):
        print(f"\n{table(promises)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=DEFAULT)
    parser.add_argument("--floats", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--pace", nargs="+", type=float, default=[0.0, 1000.0], help="µs between two calls")
    parser.add_argument("--scalars", nargs="+", choices=SCALARS, default=["float"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(args: argparse.Namespace) -> Iterator[Case]:
    """Each combination; the limit is that of plain floats in one thread."""
    for pace, floats, peer in product(args.pace, args.floats, args.peer):
        if peer == LIMIT:
            yield Case(peer, floats, pace)
        else:
            for scalars, threads in product(args.scalars, args.threads):
                yield Case(peer, floats, pace, scalars, threads)


def _run(case: Case, calls: int) -> Measured | None:
    options = ["--worker", "--peer", case.peer, "--floats", str(case.floats), "--pace", str(case.pace)]
    options += ["--scalars", case.scalars, "--threads", str(case.threads), "--calls", str(calls)]
    measured = run_worker(__file__, options, case.peer)
    return measured and Measured(**measured)


def _worker(case: Case, calls: int) -> Measured:
    metrics = {key: SCALARS[case.scalars](value) for key, value in plain_row(case.floats).items()}
    with opened(case.peer) as log:
        # what is slow is known after a few calls, which warm up too
        began = time.perf_counter()
        for step in range(1, 21):
            log(metrics, step)
        count = min(calls, SLOW) if time.perf_counter() - began > 20 * 1e-3 else calls
        if case.threads == 1:  # some loggers know their run only in the thread that opened it
            times = _calls(log, metrics, range(21, 21 + count), case.pace)
        else:
            with ThreadPoolExecutor(case.threads) as threads:
                each = [
                    threads.submit(_calls, log, metrics, range(21 + at, 21 + count, case.threads), case.pace)
                    for at in range(case.threads)
                ]
            times = [call for one in each for call in one.result()]
        times.sort()
    return Measured(len(times), times[len(times) // 2], times[len(times) * 99 // 100], times[-1])


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


def _row(case: Case, found: Found) -> dict[str, Any]:
    rounds = found[case]
    ratios = _ratios(found, case, Case(LIMIT, case.floats, case.pace))
    p50, p99 = (statistics.median(getattr(one, name) for one in rounds) for name in ("p50", "p99"))
    return {
        **asdict(case),
        "calls": sum(one.calls for one in rounds),
        "p50": round(p50, 1),
        "p99": round(p99, 1),
        "longest": round(max(one.longest for one in rounds), 1),
        "p99 / p50": round(statistics.median(one.p99 / one.p50 for one in rounds), 1),
        "x limit": round(statistics.median(ratios), 2) if ratios else None,
        "rounds": f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else None,
    }


def _ratios(found: Found, case: Case, other: Case) -> list[float]:
    """A case's p50 by another's, for each round of both."""
    pairs = zip(found.get(case, ()), found.get(other, ()), strict=False)
    return [one.p50 / another.p50 for one, another in pairs]


def _promises(found: Found) -> Iterator[Mapping[str, Any]]:
    """The promises on `log` that were measured here."""
    for pace in dict.fromkeys(case.pace for case in found):
        ours = {floats: Case(OURS, floats, pace) for floats in (10, 100)}
        tails = [one.p99 / one.p50 for one in found.get(ours[10], ())]
        for what, ratios, bound, is_most in (
            ("10 floats, p50 by the limit's", _ratios(found, ours[10], Case(LIMIT, 10, pace)), 1.8, True),
            ("10 floats, p99 by its own p50", tails, 10.0, True),
            ("100 floats, p50 by the limit's", _ratios(found, ours[100], Case(LIMIT, 100, pace)), 2.5, True),
            ("faster than wandb's Run.log", _ratios(found, Case("wandb offline", 10, pace), ours[10]), 20.0, False),
            ("faster than trackio's log", _ratios(found, Case("trackio", 10, pace), ours[10]), 4.0, False),
        ):
            if ratios:
                median = statistics.median(ratios)
                yield {
                    "pace": pace,
                    "promised": what,
                    "bound": f"{'at most' if is_most else 'at least'} {bound:g}",
                    "measured": round(median, 2),
                    "rounds": f"{min(ratios):.2f} to {max(ratios):.2f}",
                    "holds": "yes" if (median <= bound) == is_most else "NO",
                }


if __name__ == "__main__":
    main()
