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
stands in a file of its own, which is written before the row that names it. A row that was only written in part
is closed off with `!`, so that it can't turn out sound after its writer was told that it is not there.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecall.backend import Cell, Metrics, Row, Status, Table
from rolecall.claims import Session
from rolecall.files import open_own, open_regular, put_back, put_whole, write_whole
from rolecall.frames import Damage, Frame, encode, read_frames

__all__ = ["End", "Entry", "JournalWriter", "Place", "read_journal", "read_to_end"]

logger = logging.getLogger("rolecall")

_INLINE_TABLE = 1 << 15
_INT64 = 1 << 63
LOOK = 1.0
"""Seconds between a writer's looks whether its file is still where it was."""


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

    Attributes:
        session: what it appends to.
        rows: how many rows are recorded.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rows = 0
        self._torn = b""
        self._looked = 0.0
        self._lock = threading.RLock()
        self._descriptor = open_own(session.path)

    def append(self, step: int, metrics: Metrics, commit: bool = False) -> None:
        """Record one row; once this returns, it survives the death of the process.

        A file that was removed meanwhile is put back as it was, at the first row after `LOOK` seconds.

        Raises:
            OSError: it could not be written, and is not in the journal.
        """
        with self._lock:
            row: dict[str, Any] = {"n": 0, "s": step, "t": 0.0, "m": metrics}
            if commit:
                row["c"] = True
            self._append(row)

    def append_table(self, step: int, table: Table) -> None:
        """Record one table; errors as in `append`."""
        with self._lock:
            place = self._place_table(table)
            self._append({"n": 0, "s": step, "t": 0.0, "m": {}, "table": place})

    def end(self, status: Status) -> None:
        """Record how the writer ended, and close the file; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                try:
                    write_whole(self._descriptor, self._torn + encode({"end": status, "t": time.time()}))
                finally:
                    self.abandon()

    def abandon(self) -> None:
        """Close the file without a word, as a forked child must: the session is its parent's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _look(self, now: float) -> None:
        """Whether the file is still there: a write to a removed one succeeds."""
        if os.fstat(self._descriptor).st_nlink == 0:
            put_back(self._descriptor, self.session.path)
            logger.warning("%s was removed while it was written; all of it was put back", self.session.path)
        self._looked = now

    def _append(self, row: dict[str, Any]) -> None:
        """Date and number a row, in its `t` and `n`, and write it.

        A signal handler that logs can come in at every call here, and then takes the number. Between the last look
        at it and the write there is none at which CPython would let it in.
        """
        row["t"] = now = time.time()
        if abs(now - self._looked) >= LOOK:
            self._look(now)
        seq, data = 0, b""
        while seq != self.rows + 1:
            row["n"] = seq = self.rows + 1
            data = self._torn + encode(row)
        self.rows = seq
        try:
            # The kernel cuts a write short where the disk, the quota or the file's limit ends.
            if os.write(self._descriptor, data) < len(data):
                self._torn = b"!\n"
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = b""
        except OSError:
            self.rows -= self.rows == seq
            raise

    def _place_table(self, table: Table) -> dict[str, Any]:
        content = {"columns": table.columns, "rows": table.rows}
        text = json.dumps(content, separators=(",", ":"))
        if len(text) <= _INLINE_TABLE:
            return {"name": table.name, **content}
        folder = self.session.path.with_suffix(".tables")
        folder.mkdir(exist_ok=True)
        # The row's number; but a table whose row could not be written, or that a signal handler logs, has that too.
        paths = (folder / f"{seq}.json" for seq in itertools.count(self.rows + 1))
        path = next(path for path in paths if not os.path.lexists(path))
        put_whole(path, text.encode("ascii"))
        return {"name": table.name, "file": f"{folder.name}/{path.name}"}


def read_journal(writer: str, session: Session, offset: int = 0, limit: int = 1 << 20) -> Iterator[Entry]:
    """What stands in a session's journal from `offset` on, about `limit` bytes of it. Never writes."""
    for found in read_frames(session.path, offset or _behind_header(session), limit):
        value = found if isinstance(found, Damage) else _interpret(writer, session, found)
        yield Entry(value, found.end)


def read_to_end(writer: str, session: Session, offset: int = 0) -> Iterator[Entry]:
    """Everything that stands in a session's journal from `offset` on, read piece by piece."""
    while entries := list(read_journal(writer, session, offset)):
        yield from entries
        offset = entries[-1].offset


def _behind_header(session: Session) -> int:
    """The header holds the writer's config, and so may be longer than what is read at once."""
    first = next(read_frames(session.path, limit=1), None)
    return first.end if isinstance(first, Frame) and "rolecall" in first.value else 0


def _interpret(writer: str, session: Session, frame: Frame) -> Row | End | Damage:
    """What a sound frame means; one that means nothing is damage too."""
    try:
        if "end" in frame.value:
            return End(_status(frame.value["end"]))
        return _row(writer, session, frame.value)
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
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
        time=_time(value["t"]),
        metrics=_metrics(value["m"]),
        commit=bool(value.get("c", False)),
    )
    return replace(row, table=_table(session.path, value["table"])) if "table" in value else row


def _whole(value: object) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise TypeError("a number in it is no whole number of 64 bits")
    return value


def _time(value: object) -> float:
    seconds = value if type(value) is float else float(_whole(value))
    if not math.isfinite(seconds):
        raise ValueError("its time is not finite")
    return seconds


def _metrics(value: object) -> dict[str, int | float]:
    if not isinstance(value, dict):
        raise TypeError("its metrics are no mapping")
    for item in value.values():
        if type(item) is not float:
            _whole(item)
    return value


def _table(journal: Path, place: Any) -> Table:
    if not isinstance(place, dict):
        raise TypeError("its table is no mapping")
    content = _table_file(journal, place["file"]) if "file" in place else place
    columns = tuple(_text(column) for column in content["columns"])
    rows = tuple(_cells(row, len(columns)) for row in content["rows"])
    return Table(name=_text(place["name"]), columns=columns, rows=rows)


def _table_file(journal: Path, name: str) -> Any:
    path = journal.parent / name
    folder = journal.with_suffix(".tables")
    if path.parent != folder or folder.is_symlink():
        raise ValueError(f"{name!r} is not a table of this journal")
    file = None if path.is_symlink() else open_regular(path)
    if file is None:
        raise ValueError(f"{name!r} is no file")
    with file:
        return json.loads(file.read())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name in its table is no text")
    return value


def _cells(row: object, width: int) -> tuple[Cell, ...]:
    if not isinstance(row, list) or len(row) != width:
        raise ValueError("a row of its table is not as wide as its columns")
    return tuple(_cell(value) for value in row)


def _cell(value: object) -> Cell:
    return value if value is None or isinstance(value, (str, float, bool)) else _whole(value)
