"""What logging takes from a training process: CPU for each row of 10 metrics, and how much slower the loop gets.

    python benchmarks/training_loop.py [--peer "rolecall local" ...] [--work matrices network] [--step 1 10]
                                       [--rows 10] [--blocks 300] [--json FILE]

A step of training is a fixed piece of work of about so many ms: `matrices` are products of small ones, and `network` is
forward, backward and SGD of a small network of torch. Both push code and data of what comes between two steps out of
the processor's caches, `network` more of it. Without torch both are plain Python.

In one process, blocks of so many steps take turns in random order: one that logs each step with the peer, one that
encodes and writes the same line as the limit does, one that does neither. The difference to the last is what logging
takes: of the process's own CPU (all its threads, its children not) and of the time on the clock. Reported are the
median of the blocks with its 95 % interval, by ranks, as other work on the machine strikes a few blocks hard; and the
mean with its own, as what a logger does once in a while strikes few blocks too. `x limit` is the peer's median by the
limit's, with the middle 95 % of 1,000 resamples of the blocks; rolecall aims at 1.5. `nothing` logs nothing:
it shows the noise. `in memory` appends a copy of the row to a list.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from peers import PEERS, Log, opened, plain_row
from report import run_worker, show_and_keep

METRICS = plain_row(10)
DEFAULT = (
    *("nothing", "in memory", "limit", "rolecall local", "rolecall, mlflow", "wandb offline"),
    *("trackio", "mlflow sqlite", "tensorboardX"),
)
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Block:
    """Seconds of CPU and on the clock."""

    cpu: float
    clock: float


def main() -> None:
    """Measure every peer, and print them."""
    args = _options()
    if args.worker:
        train = WORK[args.work[0]](args.step[0])
        print(json.dumps(_worker(args.peer[0], train, args.rows, args.blocks)))
        return
    cases = product(args.work, args.step, args.peer)
    show_and_keep([row for work, step, peer in cases if (row := _run(peer, work, step, args))], args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=DEFAULT)
    parser.add_argument("--step", nargs="+", type=float, default=[1.0, 10.0], help="ms")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--rows", type=int, default=10, help="steps of a block")
    parser.add_argument("--blocks", type=int, default=300, help="of each kind, of steps of 1 ms; of longer ones fewer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(peer: str, work: str, step: float, args: argparse.Namespace) -> Mapping[str, Any] | None:
    blocks = max(2, round(args.blocks / max(1.0, step) ** 0.5))
    options = ["--worker", "--peer", peer, "--work", work, "--step", str(step)]
    measured = run_worker(__file__, [*options, "--rows", str(args.rows), "--blocks", str(blocks)], peer)
    return measured and {"peer": peer, "work": work, "step, ms": step, **measured}


def _worker(peer: str, train: Callable[[], object], rows: int, blocks: int) -> dict[str, Any]:
    with opened("limit") as limit, opened(peer) as log:
        limit(METRICS, 0)
        log(METRICS, 0)
        kinds: dict[str, Log | None] = {"peer": log, "limit": limit, "without": None}
        each = [_turn(train, kinds, rows, at * rows + 1) for at in range(blocks)]
    cpu, floor = ([(turn[kind].cpu - turn["without"].cpu) / rows * 1e6 for turn in each] for kind in ("peer", "limit"))
    slower = [(turn["peer"].clock / turn["without"].clock - 1) * 100 for turn in each]
    return {
        "CPU a row, µs": _median(cpu),
        "mean": _mean(cpu),
        "the limit's": _median(floor),
        "x limit": _ratio(cpu, floor),
        "slower, %": _median(slower),
        "slower, mean": _mean(slower),
    }


def _turn(train: Callable[[], object], kinds: Mapping[str, Log | None], rows: int, first: int) -> dict[str, Block]:
    """One block of each kind, in random order."""
    order = random.sample(list(kinds), len(kinds))
    return {kind: _block(train, kinds[kind], rows, first) for kind in order}


def _block(train: Callable[[], object], log: Log | None, rows: int, first: int) -> Block:
    cpu, began = time.process_time(), time.perf_counter()
    for step in range(first, first + rows):
        train()
        if log is not None:
            log(METRICS, step)
    return Block(time.process_time() - cpu, time.perf_counter() - began)


def _repeated(piece: Callable[[], object], milliseconds: float) -> Callable[[], object]:
    """A fixed piece of work, as often as takes about so long here."""
    times = sorted(_seconds(piece) for _ in range(200))
    count = max(1, round(milliseconds / 1e3 / times[len(times) // 2]))
    return lambda: [piece() for _ in range(count)]


def _seconds(piece: Callable[[], object]) -> float:
    began = time.perf_counter()
    piece()
    return time.perf_counter() - began


def _matrices(milliseconds: float) -> Callable[[], object]:
    """Products of small matrices."""
    try:
        import torch
    except ModuleNotFoundError:
        return _repeated(_plain, milliseconds)
    torch.set_num_threads(1)
    matrix = torch.rand(64, 64)
    return _repeated(lambda: matrix @ matrix, milliseconds)


def _network(milliseconds: float) -> Callable[[], object]:
    """Steps of SGD with a small network."""
    try:
        import torch
    except ModuleNotFoundError:
        return _repeated(_plain, milliseconds)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    given, wanted = torch.rand(32, 32), torch.rand(32, 8)

    def learn() -> None:
        optimizer.zero_grad()
        ((network(given) - wanted) ** 2).mean().backward()
        optimizer.step()

    return _repeated(learn, milliseconds)


def _plain() -> object:
    return sum(at * at for at in range(500))


WORK: Mapping[str, Callable[[float], Callable[[], object]]] = {"matrices": _matrices, "network": _network}


def _median(values: Sequence[float]) -> str:
    """The median, and the ranks around it that hold the true one in 95 % of cases (the binomial's normal limit)."""
    ordered, reach = sorted(values), math.ceil(0.98 * len(values) ** 0.5)
    middle = len(ordered) // 2
    low, high = ordered[max(0, middle - reach)], ordered[min(len(ordered) - 1, middle + reach)]
    return f"{statistics.median(ordered):.1f} ({low:.1f} to {high:.1f})"


def _mean(values: Sequence[float]) -> str:
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def _ratio(peer: Sequence[float], limit: Sequence[float]) -> str:
    """The medians' ratio, and the middle 95 % of what resampled blocks give."""
    pairs = list(zip(peer, limit, strict=True))
    found = sorted(_of_medians(random.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    low, high = found[RESAMPLES // 40], found[-RESAMPLES // 40]
    return f"{_of_medians(pairs):.2f} ({low:.2f} to {high:.2f})"


def _of_medians(pairs: Sequence[tuple[float, float]]) -> float:
    peer, limit = map(statistics.median, zip(*pairs, strict=True))
    return peer / limit if limit else math.inf


if __name__ == "__main__":
    main()
