"""How long one call of `log` takes, beside the limit and beside what people use today.

    python benchmarks/log_call.py [--peer "rolecall local" "wandb offline" ...] [--floats 1 10 100] [--pace 0 1000]
                                  [--calls 5000] [--rounds 3] [--json FILE]

Each peer runs in a process of its own, and all take turns for some rounds, so that a noisy minute strikes each. A pace
of 1000 µs is a training step that reads the clock for so long between two calls; 0 is back to back. Times are in µs;
`x limit` is the ratio of medians to the limit's at the same pace and number of floats, in the same run. A peer that is
not installed is left out, and told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import PEERS, opened

SLOW = 200
"""Calls of a peer that takes milliseconds for each."""
DEFAULT = ("limit", "rolecall local")


@dataclass(frozen=True, slots=True)
class Case:
    """One peer, at one pace, with so many floats."""

    peer: str
    floats: int
    pace: float


def main() -> None:
    """Measure every case in turns, and print them."""
    told = _options()
    if told.worker:
        print(json.dumps(_worker(Case(told.peer[0], told.floats[0], told.pace[0]), told.calls)))
        return
    cases = [Case(peer, floats, pace) for pace in told.pace for floats in told.floats for peer in told.peer]
    calls: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(told.rounds):
        for case in cases:
            calls[case] += _run(case, told.calls)
    found = [_row(case, calls[case], _limit(case, calls)) for case in cases if calls[case]]
    print(_table(found))
    if told.json:
        told.json.write_text(json.dumps(found, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--floats", nargs="+", type=int, default=[1, 10, 100])
    parser.add_argument("--pace", nargs="+", type=float, default=[0.0, 1000.0], help="µs between two calls")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(case: Case, calls: int) -> list[float]:
    command = [sys.executable, __file__, "--worker", "--peer", case.peer, "--floats", str(case.floats)]
    command += ["--pace", str(case.pace), "--calls", str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        print(f"{case.peer}: left out: {said[-1] if said else done.returncode}", file=sys.stderr)
        return []
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def _worker(case: Case, calls: int) -> list[float]:
    metrics = {f"group/metric_{at}": at / 7 for at in range(case.floats)}
    with opened(case.peer) as log:
        # what is slow is known after a few calls, which warm up too
        began = time.perf_counter()
        for step in range(1, 21):
            log(metrics, step)
        count = min(calls, SLOW) if time.perf_counter() - began > 20 * 1e-3 else calls
        return [_timed(log, metrics, step, case.pace) for step in range(21, 21 + count)]


def _timed(log: Any, metrics: dict[str, float], step: int, pace: float) -> float:
    began = time.perf_counter()
    log(metrics, step)
    ended = time.perf_counter()
    while (time.perf_counter() - ended) * 1e6 < pace:
        pass
    return (ended - began) * 1e6


def _limit(case: Case, calls: dict[Case, list[float]]) -> float | None:
    times = calls.get(Case("limit", case.floats, case.pace))
    return statistics.median(times) if times else None


def _row(case: Case, times: Sequence[float], limit: float | None) -> dict[str, Any]:
    ordered = sorted(times)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    ratio = None if limit is None else round(statistics.median(ordered) / limit, 1)
    shares = {"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "longest": round(ordered[-1], 1)}
    place = {"peer": case.peer, "floats": case.floats, "pace": case.pace, "calls": len(ordered)}
    return {**place, **shares, "x limit": ratio}


def _table(found: Sequence[dict[str, Any]]) -> str:
    if not found:
        return "nothing was measured"
    names = list(found[0])
    lines = [[str(row[name]) for name in names] for row in found]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in [names, *lines]
    )


if __name__ == "__main__":
    main()
