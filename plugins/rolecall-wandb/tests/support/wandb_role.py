"""A role in a process of its own: `wandb_role.py WRITER [--steps N] [--metrics M] [--every SECONDS] ...`.

Logs `--steps` rows of `--metrics` metrics, one each `--every` seconds; with `--grow N` a new key comes every N steps.
Prints `open`, and `logged STEP` after each row. With `--then wait` it then waits for a line of input.
"""

from __future__ import annotations

import argparse
import sys
import time

from rolecall import open_monitor


def metrics(step: int, count: int, grow: int) -> dict[str, float]:
    """`m0` ... in every row, `new/7` from step 7 on if a key comes with each step."""
    row = {f"group{number % 5}/m{number}": number + step / 1000 for number in range(count)}
    if grow:
        row[f"new/{step // grow * grow}"] = float(step)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("writer")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--metrics", type=int, default=5)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--grow", type=int, default=0)
    parser.add_argument("--then", choices=["end", "wait"], default="end")
    told = parser.parse_args()
    role, _, rank = told.writer.partition("/")
    with open_monitor(
        role=role, rank=int(rank) if rank else None, run_config={"lr": len(told.writer)}
    ) as monitor:
        print("open", flush=True)
        for step in range(told.first, told.first + told.steps):
            began = time.monotonic()
            monitor.log(metrics(step, told.metrics, told.grow), step=step)
            print(f"logged {step}", flush=True)
            time.sleep(max(0.0, began + told.every - time.monotonic()))
        if told.then == "wait":
            sys.stdin.readline()


if __name__ == "__main__":
    main()
