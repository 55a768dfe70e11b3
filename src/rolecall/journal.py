"""Append, read and tail one writer's rows.

A session's journal is a file of frames (see `rolecall.frames`). Its first frame is the header, written by
`rolecall.claims`; then there is a frame for each row, and one for the end::

    {"rolecall": 1, "owner": {...}, "writer": "explorer/0", "opened": 1764000000.0, "config": {...}}
    {"n": 1, "s": 1, "t": 1764000000.5, "m": {"reward/mean": 0.31}}
    {
        "n": 2,
        "s": 1,
        "t": 1764000000.9,
        "m": {},
        "table": {"name": "samples", "columns": [...], "rows": [...]},
    }
    {"n": 3, "s": 2, "t": 1764000001.2, "m": {}, "table": {"name": "samples", "file": "1.tables/3.json"}}
    {"end": "finished", "t": 1764000002.0}

`n` is the row's `seq`, `s` its step, `t` its time, `m` its metrics, `c` (if there) its `commit`. A large table
stands in a file of its own, which is written before the row that names it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecall.backend import Metrics, Row, Status, Table
from rolecall.claims import Session
from rolecall.frames import Damage, Frame, encode, read_frames

__all__ = ["End", "Entry", "JournalWriter", "Place", "read_journal"]

_INLINE_TABLE = 1 << 15


@dataclass(frozen=True, slots=True)
class End:
    """The writer ended its session itself."""

    status: Status


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands: the offset behind the last entry of a session that it has done with."""

    session: int
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, an end or damage, and where it ends in the file."""

    value: Row | End | Damage
    offset: int


class JournalWriter:
    """Appends to one session. Threads may share it: lines stay whole and each thread's rows in order.

    The lock is reentrant, so a signal handler that logs cannot deadlock with the call that it interrupted.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rows = 0
        self._torn = False
        self._lock = threading.RLock()
        self._descriptor = os.open(session.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, step: int, metrics: Metrics, commit: bool = False) -> None:
        """Record one row; once this returns, it survives the death of the process.

        Raises:
            OSError: it could not be written, and is not in the journal.
        """
        with self._lock:
            row = {"n": self.rows + 1, "s": step, "t": time.time(), "m": metrics}
            self._write(encode({**row, "c": True} if commit else row))
            self.rows += 1

    def append_table(self, step: int, table: Table) -> None:
        """Record one table; errors as in `append`."""
        with self._lock:
            seq = self.rows + 1
            place = self._place_table(seq, table)
            self._write(encode({"n": seq, "s": step, "t": time.time(), "m": {}, "table": place}))
            self.rows += 1

    def end(self, status: Status) -> None:
        """Record how the writer ended, and close the file; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                try:
                    self._write(encode({"end": status, "t": time.time()}))
                finally:
                    self.abandon()

    def abandon(self) -> None:
        """Close the file without a word, as a forked child must: the session is its parent's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, frame: bytes) -> None:
        """One write; a torn line before it (a full disk) is closed off, so that it costs itself alone."""
        data = b"\n" + frame if self._torn else frame
        self._torn = True
        written = os.write(self._descriptor, data)
        while written < len(data):
            written += os.write(self._descriptor, data[written:])
        self._torn = False

    def _place_table(self, seq: int, table: Table) -> dict[str, Any]:
        content = {"columns": table.columns, "rows": table.rows}
        text = json.dumps(content, separators=(",", ":"))
        if len(text) <= _INLINE_TABLE:
            return {"name": table.name, **content}
        path = self.session.path.with_suffix(".tables") / f"{seq}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="ascii")
        return {"name": table.name, "file": f"{path.parent.name}/{path.name}"}


def read_journal(writer: str, session: Session, offset: int = 0, limit: int = 1 << 20) -> Iterator[Entry]:
    """What stands in a session's journal from `offset` on, about `limit` bytes of it. Never writes."""
    for found in read_frames(session.path, offset, limit):
        if isinstance(found, Damage):
            yield Entry(found, found.end)
        elif "rolecall" not in found.value:
            yield Entry(_interpret(writer, session, found), found.end)


def _interpret(writer: str, session: Session, frame: Frame) -> Row | End | Damage:
    """What a sound frame means; one that means nothing is damage too."""
    try:
        if "end" in frame.value:
            return End(_status(frame.value["end"]))
        return _row(writer, session, frame.value)
    except (KeyError, TypeError, ValueError, OSError) as error:
        return Damage(session.path, frame.offset, frame.end, f"it is no row: {type(error).__name__}: {error}")


def _status(value: object) -> Status:
    if value in ("finished", "failed", "killed"):
        return value
    raise ValueError(f"unknown status {value!r}")


def _row(writer: str, session: Session, value: Mapping[str, Any]) -> Row:
    row = Row(
        writer=writer,
        session=session.number,
        seq=_whole(value["n"]),
        step=_whole(value["s"]),
        time=float(value["t"]),
        metrics=_metrics(value["m"]),
        commit=bool(value.get("c", False)),
    )
    return replace(row, table=_table(session.path, value["table"])) if "table" in value else row


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _metrics(value: Any) -> dict[str, int | float]:
    if not isinstance(value, dict) or not all(type(item) in (int, float) for item in value.values()):
        raise TypeError("its metrics are not numbers")
    return value


def _table(journal: Path, place: Mapping[str, Any]) -> Table:
    content = place
    if "file" in place:
        path = journal.parent / place["file"]
        if path.parent != journal.with_suffix(".tables") or path.is_symlink():
            raise ValueError(f"{place['file']!r} is not a table of this journal")
        content = json.loads(path.read_text(encoding="ascii"))
    rows = tuple(tuple(row) for row in content["rows"])
    return Table(name=str(place["name"]), columns=tuple(content["columns"]), rows=rows)
