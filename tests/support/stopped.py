"""Stop processes, such as couriers, for as long as a test needs them to do nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def stop(pid: int, timeout: float = 30.0) -> None:
    """Send SIGSTOP, and wait until it holds: until one thread has taken it, the others go on.

    Raises:
        TimeoutError: it did not stop in time.
        FileNotFoundError: it has ended.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + timeout
    while not all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"process {pid} is not stopped within {timeout} s")
        time.sleep(0.001)


def children(pid: int | None = None) -> list[int]:
    """The processes that this one, or the given one, has started: couriers, for one."""
    found = Path("/proc", str(pid or "self"), "task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def _is_stopped(task: Path) -> bool:
    # The name before the state is in parentheses, and may hold any character.
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
