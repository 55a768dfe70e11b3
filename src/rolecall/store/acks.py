"""What a backend acknowledged of one writer's rows.

The carrying of one writer's rows to one backend has one live owner (see `rolecall.store.lease`): a courier. Its
session is a file of frames, each of which says how far the backend holds the rows::

    {"rolecall": 1, "owner": {...}, "a": [1, 0], "k": 0}
    {"a": [1, 5120], "k": 40}
    {"a": [1, 5248], "k": 41, "rejected": {"session": 1, "seq": 41, "step": 41, "reason": "..."}}
    {"a": [1, 5248], "k": 41, "why": "cannot reach http://..."}      and one without it when that is over
    {"a": [1, 5320], "k": 41, "end": "finished"}     or "left", where the run could not be closed

`a` is the writer's session and the offset in its journal, `k` the number of rows done with. Rows that the backend
will never take are named under `rejected`; they stay in the journal. `why` says why rows wait. What comes after `a`
is undelivered, so an acknowledgement that is lost costs a repetition and no row.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rolecall.rows import Row
from rolecall.states import Status
from rolecall.store.codec import append_frame, count_lines, last_frame
from rolecall.store.files import open_own, put_whole
from rolecall.store.journal import Place, read_to_end
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, newest, sessions

logger = logging.getLogger("rolecall.courier")

__all__ = [
    "Delivery",
    "RunReference",
    "delivered",
    "is_carried",
    "is_left",
    "read_reference",
    "undelivered",
    "write_atomically",
]

_INT64 = 1 << 63
_MUCH = 1 << 20
"""Bytes of a journal above which its rows are counted by their lines."""


LEFT = "left"
"""How a courier ends its session if it did not come to close the run."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """How far a backend holds a writer's rows."""

    place: Place
    rows: int


@dataclass(frozen=True, slots=True)
class RunReference:
    """What a backend calls the run that a writer's rows went to."""

    id: str
    url: str | None


class Delivery:
    """The courier's side: claims the carrying, and writes down what was acknowledged."""

    def __init__(self, layout: Layout, backend: str, writer: str) -> None:
        """Claim it.

        Raises:
            WriterConflict: another courier is carrying these rows.
        """
        directory = layout.delivery(backend, writer)
        done = delivered(layout, backend, writer)
        holder = f"the delivery of {writer} to {backend}"
        self._session = claim(directory, _frame(done), holder)
        self._reference = layout.run(backend, writer)
        self._descriptor = open_own(self._session.path)
        self._why: str | None = None
        # A predecessor may have acknowledged more between our look and its death.
        self.done = delivered(layout, backend, writer, before=self._session.number)

    @property
    def session(self) -> Session:
        """This courier's own session of the claim."""
        return self._session

    def acknowledge(self, place: Place, rows: int) -> None:
        """The backend holds `rows` more, up to `place`."""
        if place != self.done.place:
            # Before it is written: the backend holds them, whether the disk takes our word for it or not.
            self.done = Delivered(place, self.done.rows + rows)
            append_frame(self._descriptor, _frame(self.done))

    def set_aside(self, rows: Sequence[Row], reason: str) -> None:
        """The backend will never take these."""
        for row in rows:
            what = {"session": row.session, "seq": row.seq, "step": row.step, "reason": reason}
            append_frame(self._descriptor, {**_frame(self.done), "rejected": what})

    def explain(self, why: str | None) -> None:
        """Why rows wait, for people who look; `None` when they do no more. A full disk keeps nothing of it."""
        self._why = why
        with suppress(OSError):
            append_frame(self._descriptor, self._said())

    def refer(self, reference: RunReference) -> None:
        """Keep what the backend calls the run, for later sessions and for roles that join it."""
        write_atomically(self._reference, asdict(reference))

    def release(self, closed: Status | None) -> None:
        """Give the carrying up, with the status that the run was closed with, if it was.

        On a full disk that cannot be written: the carrying is then free once this process has ended.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            append_frame(descriptor, {**self._said(), "end": closed or LEFT})
        except OSError as error:
            logger.warning("%s: its end could not be written: %s", self._session.path, error)
        finally:
            os.close(descriptor)

    def _said(self) -> dict[str, Any]:
        return {**_frame(self.done), **({"why": self._why} if self._why else {})}


def delivered(layout: Layout, backend: str, writer: str, before: int | None = None) -> Delivered:
    """How far a backend holds a writer's rows, by the newest session that says so."""
    found = sessions(layout.delivery(backend, writer))
    for session in reversed([one for one in found if before is None or one.number < before]):
        done = _done(last_frame(session.path))
        if done is not None:
            return done
    return Delivered(Place(1, 0), 0)


def undelivered(layout: Layout, backend: str, writer: str) -> int:
    """How many rows a writer's journal holds behind what the backend acknowledged.

    Where it is much, lines are counted and not read, so that 1,000,000 rows take no longer than a breath: damaged
    lines then count too.
    """
    place = delivered(layout, backend, writer).place
    waiting = [one for one in sessions(layout.journal(writer)) if one.number >= place.session]
    return sum(
        _count_rows(writer, one, place.offset if one.number == place.session else 0) for one in waiting
    )


def _count_rows(writer: str, session: Session, offset: int) -> int:
    with suppress(OSError):
        if session.path.stat().st_size - offset > _MUCH:
            return count_lines(session.path, offset) - (offset == 0) - (session.status() is not None)
    return sum(isinstance(entry.value, Row) for entry in read_to_end(writer, session, offset))


def read_reference(layout: Layout, backend: str, writer: str) -> RunReference | None:
    """What a backend calls the run of a writer; `None` if it was never opened."""
    try:
        value = json.loads(layout.run(backend, writer).read_text(encoding="utf-8"))
        url = value["url"]
        return RunReference(id=str(value["id"]), url=None if url is None else str(url))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def write_atomically(path: Path, value: Mapping[str, Any]) -> None:
    """Put a file of JSON there; readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put_whole(path, json.dumps(value, indent=1).encode() + b"\n")


def is_left(layout: Layout, backend: str, writer: str) -> bool:
    """Whether rows are undelivered, or a run that was opened for them has not been closed."""
    session = newest(layout.delivery(backend, writer))
    unclosed = session is not None and session.status() in {None, LEFT}
    return unclosed or undelivered(layout, backend, writer) > 0


def is_carried(layout: Layout, backend: str, writer: str) -> bool:
    """Whether a live courier carries this writer's rows to this backend."""
    session = newest(layout.delivery(backend, writer))
    return session is not None and session.is_live()


def _frame(done: Delivered) -> dict[str, Any]:
    return {"a": [done.place.session, done.place.offset], "k": done.rows}


def _done(frame: Mapping[str, Any] | None) -> Delivered | None:
    match frame:
        case {"a": [int(session), int(offset)], "k": int(rows)} if all(
            0 <= number < _INT64 for number in (session, offset, rows)
        ):
            return Delivered(Place(session, offset), rows)
        case _:
            return None
