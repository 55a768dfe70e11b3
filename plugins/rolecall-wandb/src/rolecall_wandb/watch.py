"""Reads what the server holds of a run, as often as its answers allow, and notices when that stops growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rolecall import Unavailable
from rolecall_wandb.lines import Found, counts_of, find
from rolecall_wandb.server import RunPath, RunState, Server

__all__ = ["LOST", "NO_ROWS", "SETTLE", "Watch", "until"]

LOOK_EVERY: Final = 5.0
COST: Final = 20
"""Seconds without another request for each second that a request took."""
POLL: Final = 0.5
SETTLE: Final = 10.0
"""Seconds that the server may take to show what the SDK has uploaded."""
STALL: Final = 90.0
"""Seconds after which rows count as lost if a reachable server does not show them. The SDK repeats a failed
transmission after at most 60 s (`x_file_stream_retry_wait_max_seconds`, 0.31.0)."""

LOST: Final = "wandb does not show all rows that its SDK sent (its debug-internal.log says why); they are sent again"

NO_ROWS: Final = "wandb's SDK does not accept rows any more, they are sent again with a new one: {!r}"


class Watch:
    """Reads what the server holds of one run."""

    def __init__(self, server: Server, path: RunPath) -> None:
        self.was_away = False
        self._server = server
        self._path = path
        self._next = 0.0
        self._moved = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for the next request; at once after a failed one, as the courier waits in between."""
        return self.was_away or time.monotonic() >= self._next

    def look(self, *, counts: bool = False, config: bool = False) -> RunState:
        """Ask the server what it holds now.

        Raises:
            Unavailable: it does not answer, or does not show the run.
        """
        with self._asking():
            found = self._server.look_up(self._path, counts=counts, config=config)
            if found is None:
                raise Unavailable(f"wandb at {self._server.url} does not show run {'/'.join(self._path)}")
            return found

    def read_back(self, sessions: Iterable[tuple[str, int]]) -> Found:
        """Read which rows of these sessions the server holds now, from all of the run's lines.

        Raises:
            Unavailable: it does not answer.
        """
        with self._asking():
            return find(self._server.history(self._path), sessions)

    def upload(self, files: Mapping[str, Path]) -> None:
        """Upload files of the run, as in `Server.upload`. The time until `is_stalled` begins again."""
        self._server.upload(self._path, files)
        self.moved()

    def await_quiet(self, writer: str | None) -> None:
        """Return once the server has shown no more lines of a writer, or of anyone, for `SETTLE` seconds.

        Raises:
            Unavailable: it does not answer.
        """
        shown, since = None, time.monotonic()
        while time.monotonic() - since < SETTLE:
            counts = counts_of(writer, self.look(counts=True).counts or {})
            if counts != shown:
                shown, since = counts, time.monotonic()
            time.sleep(SETTLE / 5)  # many roles may start again at once

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Notice whether the server answers, and how long that takes."""
        began = time.monotonic()
        try:
            yield
        except Unavailable:
            self.was_away = True
            self.moved()
            raise
        finally:
            now = time.monotonic()
            self._next = now + max(LOOK_EVERY, COST * (now - began))
        self.was_away = False

    def moved(self) -> None:
        """Start the time until `is_stalled` again: the server accepted something, or could not have."""
        self._moved = time.monotonic()

    def is_stalled(self) -> bool:
        """Whether the server has accepted nothing for too long although it answers."""
        return time.monotonic() - self._moved > STALL

    def require_end(self, seconds: float) -> None:
        """Wait until the server shows the end of the run, for at most this number of seconds.

        Raises:
            Unavailable: it does not show the end, or does not answer.
        """
        if not until(lambda: self.look().state not in ("running", ""), seconds):
            raise Unavailable("wandb does not show the end of the run; it is sent again")


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition is true; return whether it became true within this number of seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True
