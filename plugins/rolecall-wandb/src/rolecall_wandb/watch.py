"""Looks at what the server holds of a run, no oftener than that costs, and tells when it has stopped to grow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rolecall import Unavailable
from rolecall_wandb.server import RunPath, RunState, Server

__all__ = ["LOST", "NO_ROWS", "NO_TABLE", "Watch", "until"]

LOOK_EVERY: Final = 5.0
COST: Final = 20
"""A look that took a second is followed by none for this many."""
POLL: Final = 0.5
STALL: Final = 90.0
"""Seconds after which rows that a reachable server does not hold count as lost. The SDK tries a failed transmission
again after at most 60 (`x_file_stream_retry_wait_max_seconds`, 0.31.0)."""

LOST: Final = (
    "wandb has not taken all rows that its SDK sent (its debug-internal.log says why); they are sent again"
)

NO_ROWS: Final = "wandb's SDK does not take rows any more: {!r}"
NO_TABLE: Final = "wandb did not take a table: {!r}"


class Watch:
    """What the server was last seen to hold of one run."""

    def __init__(self, server: Server, path: RunPath) -> None:
        self.was_away = False
        self._server = server
        self._path = path
        self._next = 0.0
        self._moved = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to look again; at once where the last look failed, as the courier waits by itself."""
        return self.was_away or time.monotonic() >= self._next

    def look(self, *, summary: bool = False, config: bool = False) -> RunState:
        """What the server holds now.

        Raises:
            Unavailable: it does not answer.
        """
        began = time.monotonic()
        try:
            found = self._server.look_up(self._path, summary=summary, config=config)
        except Unavailable:
            self.was_away = True
            self.moved()
            raise
        finally:
            now = time.monotonic()
            self._next = now + max(LOOK_EVERY, COST * (now - began))
        self.was_away = False
        return found or RunState()

    def moved(self) -> None:
        """The server took something, or could not: either way it has as long as before from now on."""
        self._moved = time.monotonic()

    def is_stalled(self) -> bool:
        """Whether the server answers, and has taken nothing for too long."""
        return time.monotonic() - self._moved > STALL

    def require_end(self, seconds: float) -> None:
        """See that the server took the end of the run, within so many seconds.

        Raises:
            Unavailable: it did not, or does not answer.
        """
        if not until(lambda: self.look().state != "running", seconds):
            raise Unavailable("wandb has not taken the end of the run; it is told again")


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True
