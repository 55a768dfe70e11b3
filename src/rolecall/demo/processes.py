"""A job's processes: started together, watched together, ended together.

Whatever happens, no process is left behind and nobody waits for ever: a role that ends early closes its pipes,
so whoever waits for it ends too; the launcher sees each end and stops the others; and should the launcher itself
be killed, the trainer finds nobody to report to.
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

from rolecall.errors import RolecallError

__all__ = ["RoleFailed", "Team"]

STOPPING: Final = 5.0
"""Seconds that a stopped role has to close its monitor. Couriers outlive it and lose nothing."""
BEREFT: Final = 69
"""Exit status of a role whose counterpart is gone: it is not the one to blame."""
STOPPED: Final = 128 + signal.SIGTERM

ONE_THREAD: Final = dict.fromkeys(
    ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""A role has one core: its matrices are small, and its neighbours need theirs. Read when numpy is imported."""


class RoleFailed(RolecallError):
    """A role's process ended before its work was done."""


class Team:
    """The processes of a job and the pipes between them, as a context manager that leaves no process behind."""

    def __init__(self) -> None:
        self._context = get_context("spawn")
        self._processes: list[SpawnProcess] = []
        self._handed_out: list[Connection[Any, Any]] = []
        self._inboxes: list[Connection[Any, Any]] = []

    def pipe(self) -> tuple[Connection[Any, Any], Connection[Any, Any]]:
        """Both ends of a pipe between two roles."""
        ends = Pipe()
        self._handed_out += ends
        return ends

    def inbox(self) -> Connection[Any, Any]:
        """What a role sends its reports to the launcher through; `watch` yields them."""
        receiver, sender = Pipe(duplex=False)
        self._inboxes.append(receiver)
        self._handed_out.append(sender)
        return sender

    def start(self, name: str, role: Callable[..., None], *args: object) -> None:
        """Start a role in a fresh interpreter, as it would be on another node."""
        process = self._context.Process(target=_play, args=(role, *args), name=name)
        with _surroundings_of_a_role():
            process.start()
        self._processes.append(process)

    def watch(self) -> Iterator[Any]:
        """Yields what the roles report, until all have ended.

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
        """Close our copies of the roles' ends: a pipe ends with its role only if nobody else holds it open."""
        while self._handed_out:
            self._handed_out.pop().close()

    def _read(self, inbox: Connection[Any, Any]) -> Iterator[Any]:
        try:
            yield inbox.recv()
        except (EOFError, OSError):  # its role has ended, perhaps within a word
            self._inboxes.remove(inbox)

    def _check(self, ended: SpawnProcess) -> None:
        ended.join()
        if ended.exitcode:
            fallen = [one for one in self._processes if one.exitcode]
            culprit = next((one for one in fallen if one.exitcode != BEREFT), ended)
            raise RoleFailed(f"{culprit.name} {_how(culprit.exitcode)}; the other roles have been stopped")

    def _stop(self) -> None:
        """Ask for an end, as a scheduler does, and wait for it."""
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + STOPPING
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"failed with exit status {code}, see above"


def _play(role: Callable[..., None], *args: object) -> None:
    """A process's whole life. Ctrl-C is the launcher's affair: it stops every role, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _unwind)
    try:
        role(*args)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(BEREFT)


def _unwind(*_: object) -> None:
    """End by an exception, so that the role's `with open_monitor(...)` closes its monitor."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(STOPPED)


@contextmanager
def _surroundings_of_a_role() -> Iterator[None]:
    """What a child inherits: one thread for numpy, and a deaf ear to Ctrl-C from its first instruction on."""
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
