"""What the children of this process use of the machine (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["children_cpu", "descendants"]

TICKS = os.sysconf("SC_CLK_TCK")


def children_cpu() -> float:
    """Seconds of CPU that the children of this process have used, those that have ended too."""
    children = [fields for fields in _processes() if int(fields[1]) == os.getpid()]
    ended = os.times()
    alive = sum(int(fields[11]) + int(fields[12]) for fields in children) / TICKS
    return alive + ended.children_user + ended.children_system


def descendants(pid: int) -> Iterator[int]:
    """A process's children, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="ascii").split()):
            yield child
            yield from descendants(child)


def _processes() -> Iterator[list[str]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
