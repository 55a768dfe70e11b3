"""A service process of the SDK for one run alone.

The SDK keeps one for the whole process, and that opens a run id once ("run ID ... is in use", 0.31.0); but a launcher
and its roles may stand in one process (`courier: thread`), and a run of the user's own is nothing of ours. So for as
long as a run is opened, the SDK is made to believe that it has none yet, and for as long as a table is logged, for
which it asks for the process' own, that it is the run's. The name that this takes is private and the same in
0.19.10, 0.24.2 and 0.31.0; a run holds on to its own service, whatever the name stands for later.

The SDK would also have the interpreter wait at its exit until each service has brought what it holds, or has given up,
which takes it hours where a server refuses rows. What is not confirmed is in the journal, so nobody need wait: that
exit handler is taken away, and a service that does not end is killed. One whose process is gone ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = ["Service", "with_own_service"]

T = TypeVar("T")

_SWAPPING: Final = threading.RLock()
"""What is swapped belongs to the whole process."""
END_TIMEOUT: Final = 10.0
"""Seconds for a service to end that has nothing left to bring."""
_VARIABLE: Final = "WANDB_SERVICE"
"""Where the SDK leaves word of its service for the processes that this one starts."""


@dataclass(frozen=True, slots=True)
class Service:
    """The SDK's service of one run.

    Attributes:
        handle: what the SDK calls it.
        process: its process, which is this one's child; `None` if it was not found.
    """

    handle: Any
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, handle: Any) -> Service:
        """The service that a handle stands for; it may not have started."""
        owned = getattr(getattr(handle, "_connection", None), "_proc", None)
        return cls(handle, getattr(owned, "_process", None) or getattr(owned, "_internal_proc", None))

    def outlive(self) -> None:
        """Have the interpreter's exit not wait for it."""
        forget = getattr(getattr(self.handle, "_connection", None), "_cleanup", None)
        if forget is not None:
            forget()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let what is done here take so long; then the service is killed, which ends it with an error."""
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """What it has not brought, it never will."""
        if self.process is not None:
            self.process.kill()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Let what the SDK does beside the run, as for a table, happen with this service and its settings."""
        with _standing_for_all(self.handle):
            yield

    def end(self) -> None:
        """Let the process go; it may be dead already, which is all that is wanted."""
        if self.handle is not None:
            # the SDK raises SystemExit where the process did not end well, as one that was killed
            with suppress(Exception, SystemExit), self.within(END_TIMEOUT), _variable_kept():
                self.handle._teardown()  # noqa: SLF001 - `wandb.teardown` would end another's
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def with_own_service(start: Callable[[], T]) -> tuple[T, Service]:
    """What `start` opens, and the service that it was opened with; if it raises, that is gone again.

    A process that inherits WANDB_SERVICE would join its parent's service, and could not open the run (wandb#10434).
    """
    with _standing_for_all(None), _variable_kept():
        from wandb.sdk import wandb_setup

        os.environ.pop(_VARIABLE, None)
        try:
            started = start()
            service = Service.of(wandb_setup._singleton)  # noqa: SLF001
            service.outlive()
        except BaseException:
            Service.of(wandb_setup._singleton).end()  # noqa: SLF001
            raise
        return started, service


@contextmanager
def _standing_for_all(handle: Any) -> Iterator[None]:
    from wandb.sdk import wandb_setup

    with _SWAPPING:
        others, wandb_setup._singleton = wandb_setup._singleton, handle  # noqa: SLF001
        try:
            yield
        finally:
            wandb_setup._singleton = others  # noqa: SLF001


@contextmanager
def _variable_kept() -> Iterator[None]:
    """Leave the variable as it was: processes that the user starts have nothing to do with our service."""
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
