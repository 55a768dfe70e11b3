"""A role that logs many rows: `much.py ROLE RANK ROWS METRICS`, with the job's config in the environment."""

from __future__ import annotations

import sys

from rolecall import MonitorConfig, open_monitor


def main(role: str, rank: str, rows: int, metrics: int) -> None:
    monitor = open_monitor(MonitorConfig.from_env(), role, int(rank) if rank else None)
    for step in range(1, rows + 1):
        monitor.log({f"metric/{number}": step + number / 100 for number in range(metrics)}, step=step)
    monitor.close(timeout=240.0)
    if "mlflow" in sys.modules:
        sys.exit("a role's process imports no SDK")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
