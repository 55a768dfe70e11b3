"""The processes of a job: starts, watches and stops them together.

No process is left behind and none waits forever. A role that ends early closes its pipes, so a role that waits for it
ends too; the launcher sees that a role has ended and stops the others; if the launcher is killed, the trainer fails to
report to it and ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Final, Self

from rolecall import RolecallError

__all__ = ["RoleFailed", "Team"]

STOPPING: Final = 5.0
"""Seconds that a stopped role has to close its monitor. Its courier goes on and loses nothing."""
COUNTERPART_GONE: Final = 69
"""Exit status of a role whose counterpart is gone; the failure is elsewhere."""
STOPPED: Final = 128 + signal.SIGTERM

ONE_THREAD: Final = dict.fromkeys(
    ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""One thread for each role: its matrices are small, and other roles need the cores. numpy reads it on import."""


class RoleFailed(RolecallError):
    """A role's process ended before its work was done."""


class Team:
    """The processes of a job and the pipes between them; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._processes: list[SpawnProcess] = []
        self._handed_out: list[Connection[Any, Any]] = []
        self._inboxes: list[Connection[Any, Any]] = []

    def pipe(self) -> tuple[Connection[Any, Any], Connection[Any, Any]]:
        """Make a pipe between two roles, and return both ends."""
        ends = Pipe()
        self._handed_out += ends
        return ends

    def inbox(self) -> Connection[Any, Any]:
        """Make the end of a pipe on which a role reports to the launcher; `watch` yields the reports."""
        receiver, sender = Pipe(duplex=False)
        self._inboxes.append(receiver)
        self._handed_out.append(sender)
        return sender

    def start(self, name: str, role: Callable[..., None], *args: object) -> None:
        """Start a role in a fresh interpreter, as it would be on another node."""
        process = self._context.Process(target=_play, args=(role, *args), name=name)
        with _role_environment():
            process.start()
        self._processes.append(process)

    def watch(self) -> Iterator[Any]:
        """Yield what the roles report, until all have ended.

        Raises:
            RoleFailed: as soon as one has ended before its work was done.
        """
        self._let_go()
        at_work = {process.sentinel: process for process in self._processes}
        while at_work or self._inboxes:
            for ready in wait([*at_work, *self._inboxes]):
                if isinstance(ready, Connection):
                    yield from self._read(ready)
                elif isinstance(ready, int):
                    self._check(at_work.pop(ready))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        try:
            self._stop()
        finally:
            for process in self._processes:
                process.kill()

    def _let_go(self) -> None:
        # A pipe ends with its role only if no other process holds a copy of the role's end.
        while self._handed_out:
            self._handed_out.pop().close()

    def _read(self, inbox: Connection[Any, Any]) -> Iterator[Any]:
        try:
            yield inbox.recv()
        except (EOFError, OSError):  # its role has ended, perhaps in the middle of a report
            self._inboxes.remove(inbox)

    def _check(self, ended: SpawnProcess) -> None:
        ended.join()
        if ended.exitcode:
            # one failure makes others fail; the first to blame is the one that lost no counterpart
            failed = [process for process in self._processes if process.exitcode]
            culprit = next((process for process in failed if process.exitcode != COUNTERPART_GONE), ended)
            raise RoleFailed(f"{culprit.name} {_how(culprit.exitcode)}; the other roles have been stopped")

    def _stop(self) -> None:
        # as a scheduler does: SIGTERM, then a while to close
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + STOPPING
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"failed with exit status {code}, see above"


def _play(role: Callable[..., None], *args: object) -> None:
    # A terminal sends Ctrl-C to every process; the launcher handles it, and stops each role once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _unwind)
    try:
        role(*args)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(COUNTERPART_GONE)


def _unwind(*_: object) -> None:
    # End by an exception, so that the role's `with open_monitor(...)` closes its monitor.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(STOPPED)


@contextmanager
def _role_environment() -> Iterator[None]:
    """What a child inherits: one thread for numpy, and Ctrl-C ignored from its first instruction on."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if in_main:
            signal.signal(signal.SIGINT, handler)
