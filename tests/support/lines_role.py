"""Roles for processes that `multiprocessing` starts: they import its module by name, which a test's is not."""

from __future__ import annotations

import sys

from rolecall import Monitor, MonitorConfig, open_monitor


def explore(config: MonitorConfig, rank: int) -> None:
    with open_monitor(config, "explorer", rank) as monitor:
        for step in range(1, 101):
            monitor.log({"reward/mean": step / 2}, step=step)


def explore_as_any(config: MonitorConfig, rank: int) -> None:
    with open_monitor(config, "explorer", rank, primary="auto") as monitor:
        for step in range(1, 21):
            monitor.log({"a": step}, step=step)


KEPT: list[Monitor] = []


def keep_open(config: MonitorConfig, end: str) -> None:
    """A role that keeps its monitor in a global, and ends in the way that `end` names."""
    KEPT.append(open_monitor(config, end))
    KEPT[-1].log({"loss": 1.0})
    if end == "raises":
        raise RuntimeError("on purpose")
    if end.startswith("exits"):
        sys.exit(int(end.removeprefix("exits")))
