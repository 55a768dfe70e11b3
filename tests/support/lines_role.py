"""A role for processes that `multiprocessing` starts: they import its module by name, which a test's is not."""

from __future__ import annotations

from rolecall import MonitorConfig, open_monitor


def explore(config: MonitorConfig, rank: int) -> None:
    with open_monitor(config, "explorer", rank) as monitor:
        for step in range(1, 101):
            monitor.log({"reward/mean": step / 2}, step=step)
