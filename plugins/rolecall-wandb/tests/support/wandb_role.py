"""A role in a process of its own: `wandb_role.py WRITER [--steps N] [--metrics M] [--every SECONDS] ...`.

Logs `--steps` rows of `--metrics` metrics, one each `--every` seconds; with `--grow N` a new key comes every N steps.
Prints `start`, `open`, and `logged STEP` after each row. With `--then wait` it then waits for a line of input. With
`--primary` it is the launcher too.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

from rolecall import Monitor, MonitorConfig, open_monitor


@dataclass(frozen=True, slots=True)
class Work:
    """What a role logs."""

    steps: int = 20
    first: int = 1
    metrics: int = 5
    every: float = 0.0
    grow: int = 0


def metrics(step: int, count: int, grow: int) -> dict[str, float]:
    """`m0` ... in every row, `new/7` from step 7 on if a key comes with each step."""
    row = {f"group{number % 5}/m{number}": number + step / 1000 for number in range(count)}
    if grow:
        row[f"new/{step // grow * grow}"] = float(step)
    return row


def run_config_of(writer: str) -> dict[str, Any]:
    """The config that the role gives the run."""
    return {"lr": len(writer)}


def open_role(config: MonitorConfig, writer: str, *, primary: bool = False) -> Monitor:
    """`explorer/0` is rank 0 of the role `explorer`."""
    role, _, rank = writer.partition("/")
    return open_monitor(config, role, int(rank) if rank else None, primary, run_config_of(writer))


def work(monitor: Monitor, plan: Work) -> None:
    """Log what is planned."""
    print("open", flush=True)
    for step in range(plan.first, plan.first + plan.steps):
        began = time.monotonic()
        monitor.log(metrics(step, plan.metrics, plan.grow), step=step)
        print(f"logged {step}", flush=True)
        time.sleep(max(0.0, began + plan.every - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("writer")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--metrics", type=int, default=5)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--grow", type=int, default=0)
    parser.add_argument("--then", choices=["end", "wait"], default="end")
    parser.add_argument("--primary", action="store_true")
    args = parser.parse_args()
    print("start", flush=True)
    with open_role(MonitorConfig.from_env(), args.writer, primary=args.primary) as monitor:
        work(monitor, Work(args.steps, args.first, args.metrics, args.every, args.grow))
        if args.then == "wait":
            sys.stdin.readline()


if __name__ == "__main__":
    main()
