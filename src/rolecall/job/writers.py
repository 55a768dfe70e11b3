"""What became of each writer of a job, as its launcher can tell from any node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from rolecall.store.layout import Layout
from rolecall.store.lease import Session, newest

__all__ = ["WriterState", "read_writers", "wait_for_writers"]

State = Literal["running", "finished", "failed", "killed", "died"]
POLL = 0.2


@dataclass(frozen=True, slots=True)
class WriterState:
    """The state of a writer's newest session.

    Attributes:
        writer: the writer.
        state: `running`; `finished`, `failed` or `killed` if it said so itself; `died` if it ended without a word:
            on this host its process is gone, on another host it has been silent for 60 s.
        silence: seconds since it, or its courier, was last heard of; the courier speaks every 5 s.
        place: its process and host, for people.
    """

    writer: str
    state: State
    silence: float
    place: str

    def __str__(self) -> str:
        silent = f", silent for {self.silence:.0f} s" if self.state in {"running", "died"} else ""
        return f"{self.writer} {self.state} ({self.place}{silent})"


def read_writers(layout: Layout) -> list[WriterState]:
    """Of every writer that has opened in the job's directory."""
    return list(_states(layout))


def wait_for_writers(layout: Layout, timeout: float) -> list[WriterState]:
    """Until none runs any more, or so many seconds have passed; a directory that does not answer is asked again."""
    deadline = time.monotonic() + timeout
    while True:
        states = _heard(lambda: read_writers(layout))
        running = states is None or any(one.state == "running" for one in states)
        if not running or time.monotonic() >= deadline:
            return states or []
        time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))


def _heard(read: Callable[[], list[WriterState]]) -> list[WriterState] | None:
    with suppress(OSError):
        return read()
    return None


def _states(layout: Layout) -> Iterator[WriterState]:
    for writer in layout.writers():
        session = newest(layout.journal(writer))
        if session is not None:
            yield WriterState(writer, _state(session), session.silence(), _place(session))


def _state(session: Session) -> State:
    is_live, status = session.look()
    if status in ("finished", "failed", "killed"):
        return status  # type: ignore[return-value]
    return "running" if is_live else "died"


def _place(session: Session) -> str:
    owner = session.owner()
    return f"process {owner.pid} on {owner.host}" if owner else "no owner is named"
