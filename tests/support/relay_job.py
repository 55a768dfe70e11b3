"""A launcher and four roles in processes of their own, whose rows a relay delivers; and what kills the relay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rolecall import MonitorConfig
from rolecall.store.acks import acknowledged
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest

__all__ = ["ROLES", "WRITERS", "held", "kill_relay", "points", "wait_for", "working_roles"]

ROLES = (("explorer", 0), ("explorer", 1), ("explorer", 2), ("trainer", None))
WRITERS = tuple(role if rank is None else f"{role}/{rank}" for role, rank in ROLES)
ROLE = """
import sys, time
from rolecall import MonitorConfig, open_monitor
role, rank, steps, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with open_monitor(MonitorConfig.from_env(), role, int(rank) if rank else None, run_config={"lr": 0.5}) as monitor:
    for step in range(1, steps + 1):
        monitor.log({"reward": step / 8}, step=step)
        time.sleep(every)
"""


def points(steps: int) -> list[tuple[int, float]]:
    """The metric `reward` of each role."""
    return [(step, step / 8) for step in range(1, steps + 1)]


@contextmanager
def working_roles(config: MonitorConfig, steps: int, every: float = 0.0) -> Iterator[None]:
    """Start all roles with the launcher's config, and wait for their end after the block."""
    environ = {**os.environ, **config.to_env()}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ROLE, role, "" if rank is None else str(rank), str(steps), str(every)], env=environ
        )
        for role, rank in ROLES
    ]
    try:
        yield
        assert [role.wait(300) for role in started] == [0] * len(started)
    finally:
        for role in started:
            role.kill()
            role.wait()


def kill_relay(config: MonitorConfig, backend: str) -> None:
    """SIGKILL for the relay, and wait until another one has its place."""
    lease = Layout(config.monitor_dir).delivery(backend, LAUNCH)

    def living() -> int | None:
        session = newest(lease)
        owner = session.owner() if session is not None and session.is_live() else None
        return owner.pid if owner is not None else None

    wait_for(living)
    killed = living()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: living() not in {None, killed})


def held(config: MonitorConfig, backend: str, writer: str) -> int:
    """How many rows of a writer the backend has acknowledged."""
    return acknowledged(Layout(config.monitor_dir), backend, writer).rows


def wait_for(condition: Callable[[], object], timeout: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.05)
