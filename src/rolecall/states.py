"""How writers, jobs and couriers end, and the state that a reader sees them in.

This module is the only place that turns "is it alive, and what did it say at its end" into a word. `Job.writers`,
`rolecall show` and the status of a delivery all use `State.of`.
"""

import signal
import sys
from enum import StrEnum
from typing import Literal

Status = Literal["finished", "failed", "killed"]
"""How a writer, or the whole job, ended."""


class State(StrEnum):
    """What a reader can tell of a session, whoever owned it: a role, a launcher or a courier."""

    NONE = "none"
    """It was never opened."""
    RUNNING = "running"
    """Its owner is alive and has not ended it."""
    FINISHED = "finished"
    """Its owner ended it; a courier's run is closed."""
    FAILED = "failed"
    """Its owner ended it after an exception."""
    KILLED = "killed"
    """Its owner ended it because of a signal, or died without ending it."""
    UNFINISHED = "unfinished"
    """A courier gave up with its run still open, because rows are left or a launcher took over."""
    CONTINUED = "continued"
    """The session goes on in the next file, because this one was changed from outside."""

    @classmethod
    def of(cls, status: str | None, *, is_live: bool) -> "State":
        """The state of a session with this status.

        Args:
            status: how its owner ended it; `None` if it has not.
            is_live: whether its owner is alive. Look at this first and at the status afterwards: the owner may
                end the session between the two.
        """
        if status is None:
            return cls.RUNNING if is_live else cls.KILLED
        try:
            return cls(status)
        except ValueError:  # a newer version wrote it
            return cls.KILLED


def status_of(error: BaseException | None) -> Status:
    """How a `with` block ended; `sys.exit(0)` in it is an end like any other.

    Ctrl-C is a kill, and so is a signal handler's `sys.exit(128 + signum)`, as shells count.
    """
    match error:
        case None | SystemExit(code=None | 0):
            return "finished"
        case KeyboardInterrupt():
            return "killed"
        case SystemExit(code=int(code)) if code - 128 in signal.valid_signals():
            return "killed"
        case _:
            return "failed"


def status_at_exit() -> Status:
    """How a program ends that closed nothing: Python keeps the exception that it died of."""
    # In a notebook or a shell, it is that of a line after which the user went on.
    if hasattr(sys, "ps1"):
        return "finished"
    # A child of multiprocessing ends while its exception is on the way.
    return status_of(getattr(sys, "last_value", None) or sys.exc_info()[1])
