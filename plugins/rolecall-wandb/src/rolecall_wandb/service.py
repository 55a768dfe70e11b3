"""Gives each run a service process of the SDK for itself.

The SDK has one service for the whole process, which opens a run id only once ("run ID ... is in use", 0.31.0). But a
launcher and its roles can be in the same process (`courier: thread`), and so can a run of the user's own. So the SDK's
variable for the service is empty while a run is opened, and it is the run's own service while a table is logged, for
which the SDK takes the service of the process. That variable, `wandb_setup._singleton`, is private, and the same in
0.19.10, 0.24.2 and 0.31.0. A run keeps its own service, whatever the variable is later.

At its exit the interpreter would wait until each service has uploaded all its rows or has given up, which takes hours
if a server refuses rows. Rows that are not confirmed are in the journal, so this is not needed: the exit handler is
removed, and a service that does not end is killed. A service whose parent process has ended ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = ["Service", "await_orphans", "with_own_service"]

T = TypeVar("T")

_SWAPPING: Final = threading.RLock()  # the SDK's variable belongs to the whole process
ORPHANS_END: Final = 5.0
"""Seconds in which a service has ended whose process was killed: it looks for that process every 2 s (0.31.0)."""
END_TIMEOUT: Final = 10.0
"""Seconds that a service may take to end when it has nothing left to upload."""
# By this variable a child process finds the service of its parent, and joins it.
_VARIABLE: Final = "WANDB_SERVICE"


@dataclass(frozen=True, slots=True)
class Service:
    """The SDK's service of one run.

    Attributes:
        handle: the SDK's object for it.
        process: its process, a child of this one; `None` if it was not found.
    """

    handle: Any
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, handle: Any) -> Service:
        """The service of a handle; it may not have started."""
        owned = getattr(getattr(handle, "_connection", None), "_proc", None)
        return cls(handle, getattr(owned, "_process", None) or getattr(owned, "_internal_proc", None))

    def outlive(self) -> None:
        """Remove the handler by which the interpreter waits for it at exit."""
        forget = getattr(getattr(self.handle, "_connection", None), "_cleanup", None)
        if forget is not None:
            forget()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Kill the service if the block takes longer than this; the block then fails with an error of the SDK."""
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Kill the process; it uploads nothing more."""
        if self.process is not None:
            self.process.kill()

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Make this the service of the whole process, for what the SDK does outside of the run, such as for a table."""
        with _service_of_process(self.handle):
            yield

    def end(self) -> None:
        """End the process; it may have ended already."""
        if self.handle is not None:
            # the SDK raises SystemExit if the process failed or was killed
            with suppress(Exception, SystemExit), self.within(END_TIMEOUT), _variable_kept():
                self.handle._teardown()  # noqa: SLF001 - `wandb.teardown` ends the process' service
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def await_orphans() -> None:
    """Wait until the services of killed processes have ended: until then they may upload rows of a predecessor."""
    deadline = time.monotonic() + ORPHANS_END
    while any(_orphans()) and time.monotonic() < deadline:
        time.sleep(0.1)


def _orphans() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_text(errors="replace").split("\0")
            if words[0].endswith("wandb-core") and "--pid" in words:
                owner = words[words.index("--pid") + 1]
                if not Path("/proc", owner).exists():
                    yield owner


def with_own_service(start: Callable[[], T]) -> tuple[T, Service]:
    """Call `start` with a new service; return what it returns, and the service. If it raises, the service is ended."""
    with _service_of_process(None), _variable_kept():
        from wandb.sdk import wandb_setup

        # With this variable the SDK would join its parent's service, and could not open the run (wandb#10434).
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
def _service_of_process(handle: Any) -> Iterator[None]:
    from wandb.sdk import wandb_setup

    with _SWAPPING:
        others, wandb_setup._singleton = wandb_setup._singleton, handle  # noqa: SLF001
        try:
            yield
        finally:
            wandb_setup._singleton = others  # noqa: SLF001


@contextmanager
def _variable_kept() -> Iterator[None]:
    """Restore the variable afterwards, so that processes which the user starts do not join this service."""
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
