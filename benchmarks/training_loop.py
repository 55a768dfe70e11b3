"""What logging takes from a training process: CPU for each row of 10 metrics, and how much slower the loop gets.

    python benchmarks/training_loop.py [--peer "rolecall local" ...] [--step 1 10] [--rows 200] [--blocks 30]
                                       [--json FILE]

A step of training is a fixed piece of work, of about so many ms: matrix products of torch where that is installed, else
plain Python. In one process, blocks of so many steps take turns: one that logs each step, one that does not, in random
order. Each pair gives one difference, of the process's own CPU (all its threads, its children not) and of the time on
the clock; told are their means, with 95 % intervals (at 30 pairs the normal distribution is near enough to Student's).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import PEERS, Log, opened, plain_row
from report import run_worker, tell

METRICS = plain_row(10)


def main() -> None:
    """Measure every peer, and print them."""
    told = _options()
    if told.worker:
        print(json.dumps(_worker(told.peer[0], told.step[0], told.rows, told.blocks)))
        return
    tell([row for step in told.step for peer in told.peer if (row := _run(peer, step, told))], told.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--step", nargs="+", type=float, default=[1.0, 10.0], help="ms")
    parser.add_argument(
        "--rows", type=int, default=200, help="steps of a block, of 1 ms; of longer ones fewer"
    )
    parser.add_argument("--blocks", type=int, default=30, help="pairs of blocks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(peer: str, step: float, told: argparse.Namespace) -> Mapping[str, Any] | None:
    rows = max(1, round(told.rows / max(1.0, step) ** 0.5))
    options = ["--worker", "--peer", peer, "--step", str(step), "--rows", str(rows)]
    measured = run_worker(__file__, [*options, "--blocks", str(told.blocks)], peer)
    return measured and {"peer": peer, "step, ms": step, **measured}


def _worker(peer: str, step: float, rows: int, blocks: int) -> dict[str, Any]:
    train = _training(step)
    with opened(peer) as log:
        log(METRICS, 0)
        pairs = [_pair(train, log, rows, at) for at in range(blocks)]
    cpu = [(with_log[0] - without[0]) / rows * 1e6 for with_log, without in pairs]
    slower = [(with_log[1] / without[1] - 1) * 100 for with_log, without in pairs]
    return {"CPU a row, µs": _mean(cpu), "slower, %": _mean(slower)}


def _pair(train: Callable[[], object], log: Log, rows: int, at: int) -> tuple[tuple[float, float], ...]:
    """CPU and time of a block that logs, and of one that does not."""
    blocks: list[Log | None] = [log, None]
    random.shuffle(blocks)
    measured = {block is not None: _block(train, block, rows, at * rows + 1) for block in blocks}
    return measured[True], measured[False]


def _block(train: Callable[[], object], log: Log | None, rows: int, first: int) -> tuple[float, float]:
    cpu, began = time.process_time(), time.perf_counter()
    for step in range(first, first + rows):
        train()
        if log is not None:
            log(METRICS, step)
    return time.process_time() - cpu, time.perf_counter() - began


def _training(milliseconds: float) -> Callable[[], object]:
    """A fixed piece of work that takes about so long here."""
    piece = _piece()
    piece()
    began = time.perf_counter()
    for _ in range(20):
        piece()
    count = max(1, round(milliseconds / 1e3 / ((time.perf_counter() - began) / 20)))
    return lambda: [piece() for _ in range(count)]


def _piece() -> Callable[[], object]:
    try:
        import torch
    except ModuleNotFoundError:
        return lambda: sum(at * at for at in range(500))
    torch.set_num_threads(1)
    matrix = torch.rand(64, 64)
    return lambda: matrix @ matrix


def _mean(values: Sequence[float]) -> str:
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
