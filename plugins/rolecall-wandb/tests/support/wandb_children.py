"""A launcher that uses wandb itself, and whose roles are its own children: `wandb_children.py spawn|fork WRITER ...`.

So each child inherits WANDB_SERVICE from it, as it says on standard output. With `--threads` a thread starts each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence

import wandb
from wandb_role import Work, open_role, run_config_of, work

from rolecall import MonitorConfig, launch


def say(who: str) -> None:
    """One write: not even the SDK's capture of the console can break the line."""
    os.write(1, f"{who} has {os.environ.get('WANDB_SERVICE')}\n".encode())


def child(config: MonitorConfig, writer: str, plan: Work) -> None:
    """What runs in a role's process."""
    say(writer)
    with open_role(config, writer) as monitor:
        work(monitor, plan)


def call_all(actions: Sequence[Callable[[], None]], *, threads: bool) -> None:
    """One after the other, or all at once."""
    if not threads:
        for action in actions:
            action()
        return
    started = [threading.Thread(target=action) for action in actions]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["spawn", "fork"])
    parser.add_argument("writers", nargs="+")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=float, default=0.2)
    parser.add_argument("--threads", action="store_true")
    args = parser.parse_args()
    wandb.setup()
    say("launcher at first")
    plan = Work(steps=args.steps, every=args.every, metrics=10, grow=5)
    context = multiprocessing.get_context(args.method)
    with launch(MonitorConfig.from_env(), run_config=run_config_of("job")) as job:
        children = [context.Process(target=child, args=(job.config, writer, plan)) for writer in args.writers]
        call_all([process.start for process in children], threads=args.threads)
        for process in children:
            process.join()
    say("launcher")
    sys.exit(max(abs(process.exitcode) for process in children))


if __name__ == "__main__":
    main()
