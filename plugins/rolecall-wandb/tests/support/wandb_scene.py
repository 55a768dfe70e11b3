"""A job on the emulator in which things go wrong, and what is asked of its run afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from packaging.version import Version
from wandb_core import carried_writers, logged_rows
from wandb_emulator import StoredRun, WandbServer

from rolecall import Monitor, MonitorConfig, Row

__all__ = [
    "ENDS_LATE",
    "RUN",
    "LogTimes",
    "Role",
    "Scene",
    "Tally",
    "kill_tree",
    "kill_with_children",
    "services_of",
    "tally",
]

RUN: Final = "troubled-1"
ENDS_LATE: Final = Version(version("wandb")) < Version("0.19.11")
"""Whether the SDK does part of `finish` in a pool of threads, for which the interpreter waits."""

Role = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a writer's rows."""

    logged: int
    lost: int
    doubled: int


def tally(run: StoredRun, rows: list[Row], writer: str) -> Tally:
    """A row is known by its step, which no writer of these tests uses twice."""
    logged = [row.step for row in rows if row.writer == writer]
    stored = Counter(line[f"{writer}/step"] for line in run.rows(f"{writer}/step"))
    assert len(set(logged)) == len(logged)
    assert stored.keys() <= set(logged)
    return Tally(len(logged), len(set(logged) - stored.keys()), sum(stored.values()) - len(stored))


def kill_with_children(process: Role) -> None:
    """SIGKILL for it, its courier, and the courier's wandb-core, at once."""
    assert kill_tree(process.pid) >= 3, "a role has a courier, and that the SDK's service"
    process.wait()


def kill_tree(pid: int) -> int:
    """SIGKILL for a process and those that it started, at once; return how many they are."""
    family = [pid, *_descendants(pid)]
    for each in family:
        os.kill(each, signal.SIGKILL)
    return len(family)


def services_of(pid: int) -> Iterator[int]:
    """The SDK's processes that were started for this one, if it is gone or not."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"--pid\0{pid}\0" in path.read_text():
                yield int(path.parent.name)


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _descendants(child)


@dataclass
class LogTimes:
    """Logs rows of one metric, each at its own step, and measures how long each call took."""

    monitor: Monitor
    calls: list[float] = field(default_factory=list)

    def log(self, **metrics: float) -> None:
        """The next row."""
        step = len(self.calls) + 1
        began = time.monotonic()
        self.monitor.log({"loss": 1 / step, **metrics}, step)
        self.calls.append(time.monotonic() - began)

    def log_until(self, condition: Callable[[], object], timeout: float = 60.0, every: float = 0.1) -> None:
        """Log on until it comes true."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            self.log()
            time.sleep(every)

    def log_for(self, seconds: float) -> None:
        """Log on for so long."""
        end = time.monotonic() + seconds
        self.log_until(lambda: time.monotonic() >= end, seconds + 60.0)


@dataclass
class Scene:
    """A server, a job's config, and ways to start and to wait."""

    server: WandbServer
    config: MonitorConfig
    start: Callable[..., Role]
    wait: Callable[..., None]

    @property
    def run(self) -> StoredRun:
        """The job's run as the server holds it."""
        return self.server.run(RUN)

    @property
    def rows(self) -> list[Row]:
        """What the journals hold."""
        return logged_rows(self.config.monitor_dir)

    def held(self, writer: str) -> int:
        """How many lines the server holds of a writer."""
        return len(self.run.rows(f"{writer}/step")) if RUN in self.server.runs else 0

    def wait_for(self, writer: str, count: int, timeout: float = 60.0) -> None:
        """Wait until the server holds that many lines of a writer."""
        self.wait(lambda: self.held(writer) >= count, timeout)

    def wait_for_all(self, timeout: float = 60.0) -> None:
        """Wait until the server holds every row."""
        self.wait(lambda: sum(entry.lost for entry in self.tallies().values()) == 0, timeout)

    def wait_for_end(self, timeout: float = 100.0) -> None:
        """Wait until no courier is running."""
        self.wait(lambda: not carried_writers(self.config.monitor_dir), timeout)

    def tallies(self) -> dict[str, Tally]:
        """What became of every writer's rows."""
        rows = self.rows
        return {writer: tally(self.run, rows, writer) for writer in {row.writer for row in rows}}

    def check(self, *, may_double: bool = False, in_order: bool = True, state: str = "finished") -> None:
        """No row lost, none doubled, each in its writer's order; every key bound; the run ended."""
        tallies = self.tallies()
        print(f"\nwandb {version('wandb')}: {tallies}")
        assert {name: entry.lost for name, entry in tallies.items()} == dict.fromkeys(tallies, 0)
        if not may_double:
            assert {name: entry.doubled for name, entry in tallies.items()} == dict.fromkeys(tallies, 0)
            self.check_lines(in_order=in_order)
        self.check_bindings()
        assert self.run.state == state

    def check_lines(self, *, in_order: bool) -> None:
        """Each row is a line with its values and its time, in its writer's order unless rows were sent again."""
        rows = [row for row in self.rows if row.table is None]
        for writer in {row.writer for row in rows}:
            logged = [_line(row) for row in rows if row.writer == writer]
            lines = [
                line for line in self.run.rows(f"{writer}/step") if line[f"{writer}/step"] in _steps(logged, writer)
            ]
            if not in_order:
                lines.sort(key=itemgetter(f"{writer}/step"))
                logged.sort(key=itemgetter(f"{writer}/step"))
            assert [{key: line.get(key) for key in like} for line, like in zip(lines, logged, strict=True)] == logged

    def check_bindings(self) -> None:
        """Each key that was logged is bound to its writer's axis."""
        keys = {f"{row.writer}/{name}": f"{row.writer}/step" for row in self.rows for name in row.metrics}
        bound = self.server.bindings(RUN)
        assert {key: bound.get(key) for key in keys} == keys

    def deliver(self) -> str:
        """Run `rolecall deliver`; return what it printed."""
        finished = subprocess.run(
            [sys.executable, "-m", "rolecall", "deliver", str(self.config.monitor_dir)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout


def _line(row: Row) -> dict[str, Any]:
    values = {f"{row.writer}/{name}": value for name, value in {**row.metrics, **row.text}.items()}
    return {**values, f"{row.writer}/step": row.step, "_timestamp": row.time}


def _steps(lines: list[dict[str, Any]], writer: str) -> set[int]:
    return {line[f"{writer}/step"] for line in lines}
