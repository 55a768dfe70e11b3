"""Runs the server in a process of its own, for benchmarks: prints its address, and ends with its standard input."""

from __future__ import annotations

import argparse
import sys

from wandb_emulator.server import WandbServer
from wandb_emulator.stored import Policy


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--policy", type=Policy, choices=list(Policy), default=Policy.REPLACE)
    args = parser.parse_args()
    with WandbServer(args.policy, args.port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
