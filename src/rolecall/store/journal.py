"""Append, read and tail one writer's rows.

A session's journal is a file of frames (see `rolecall.store.codec`). Its first frame is the header, written by
`rolecall.store.lease`; then there is a frame for each row, and one for the end::

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

`n` is the row's `seq`, `s` its step, `t` its time, `m` its metrics, `c` (if there) its `commit`. From the third row
of the same keys and types on, rows are packed (see `rolecall.store.packed`). A large table stands in a file of its own,
which is written before the row that names it. A row that was only written in part is closed off with `!`, so that it
can't turn out sound after its writer was told that it is not there.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rolecall.delivery.keys import AS_IT_IS, Placement
from rolecall.rows import Cell, Metrics, Row, TableData
from rolecall.states import Status
from rolecall.store.codec import (
    Damage,
    Frame,
    decode_all,
    decode_line,
    encode,
    read_frames,
    read_lines,
)
from rolecall.store.files import open_own, open_regular, put_back, put_whole, write_whole
from rolecall.store.lease import Session
from rolecall.store.packed import Forms, Told, Unpacker
from rolecall.store.room import begin_room, extend_room, give_room_back
from rolecall.store.rowstore import CompiledStore, PlainStore, Store

__all__ = ["End", "Entry", "JournalReader", "JournalWriter", "Place", "read_journal", "read_to_end"]

logger = logging.getLogger("rolecall")

T = TypeVar("T")
Make = Callable[[int, float, int, T], bytes]
"""A line of a row's number, time, step and content."""

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


class Entry(NamedTuple):
    """A row, an end or damage, and where it ends in the file."""

    value: Row | End | Damage
    offset: int


class JournalWriter:
    """Appends to one session. Threads may share it: lines stay whole and each thread's rows in order.

    Where lines are stored through a map, threads and signal handlers come to terms without a lock (see
    `rolecall.store.rowstore`). What else is done to the file is done under a lock, a reentrant one, so that a signal handler
    that logs cannot deadlock with the call that it interrupted.

    Args:
        session: what it appends to.
        mapped: whether lines are stored through a map of the file's end (see `rolecall.store.room`), or each by a write.
        make_store: what stores them; compiled, if that was built.

    Attributes:
        session: what it appends to.
        repeat_at_once: what `repeat` promises, of some of these rows; never, where that was not built.
    """

    def __init__(
        self,
        session: Session,
        mapped: bool = False,
        make_store: Callable[[], Store] = CompiledStore or PlainStore,
    ) -> None:
        self.session = session
        self._torn = b""
        self._lock = threading.RLock()
        self._forms = Forms()
        self._descriptor = open_own(session.path)
        self._mapped = mapped and _has_interpreter_lock()
        self._store = make_store()
        begin_room(self._descriptor, self._store)
        self.repeat_at_once = self._store.repeat

    @property
    def rows(self) -> int:
        """How many are recorded."""
        return self._store.rows

    def repeat(self, step: object, metrics: object) -> bool:
        """Record a row of the keys and types of rows that were recorded before; promises as `append` makes them.

        False if it is no such row: then nothing was recorded. It need not have been looked at in any way: types are
        compared here, and names are taken from the earlier rows.

        Raises:
            OSError: it could not be written, and is not in the journal.
        """
        if type(step) is not int or type(metrics) is not dict:
            return False
        now = self._date()
        metrics = metrics.copy()  # another thread may change it
        values = [*metrics.values()]
        form = self._forms.find(tuple(metrics), [*map(type, values)])
        if form is None:
            return False
        try:
            self._append(form.frame, now, step, values)
        except struct.error:  # more than 64 bits
            return False
        if self._mapped:  # it may have been displaced by others
            self._store.expect(form.names, form.letters, form.named)
        return True

    def append(self, step: int, metrics: Metrics, commit: bool = False) -> None:
        """Record one row; once this returns, it survives the death of the process.

        A file that was removed meanwhile is put back as it was, at the first row after `LOOK` seconds.

        Raises:
            OSError: it could not be written, and is not in the journal.
        """
        if not commit and (self.repeat_at_once(step, metrics) or self.repeat(step, metrics)):
            return
        with self._lock:
            line = self._append(partial(_frame, {"c": True} if commit else {}), self._date(), step, metrics)
            if not commit:
                self._learn(line)

    def append_table(self, step: int, table: TableData) -> None:
        """Record one table; errors as in `append`."""
        with self._lock:
            make = partial(_frame, {"table": self._place_table(table)})
            self._append(make, self._date(), step, {})

    def end(self, status: Status) -> None:
        """Record how the writer ended, and close the file; a second call does nothing."""
        with self._lock:
            if self._descriptor >= 0:
                try:
                    with suppress(OSError):  # or there would be no word of the end
                        self._unmap()
                    write_whole(self._descriptor, self._torn + encode({"end": status, "t": time.time()}))
                finally:
                    self.abandon()

    def abandon(self) -> None:
        """Close the file without a word, as a forked child must: the session is its parent's."""
        descriptor, self._descriptor, self._mapped = self._descriptor, -1, False
        self._store.close()
        if descriptor >= 0:
            os.close(descriptor)

    def _date(self) -> float:
        """The time of a row; once in a while with a look at the file."""
        now = time.time()
        if not self._store.since <= now < self._store.until:
            self._look(now)
        return now

    def _append(self, make: Make[T], now: float, step: int, content: T) -> bytes:
        """Number a row, and put it into the file; the line that it is now."""
        store = self._store
        while self._mapped:
            seq = store.rows + 1
            line = make(seq, now, step, content)
            if store.put(seq, line):
                return line
            if store.end + len(line) > store.limit:
                self._extend(len(line))
        return self._write(make, now, step, content)

    def _write(self, make: Make[T], now: float, step: int, content: T) -> bytes:
        """The same with one write, under the lock; a signal handler finds no way in before the write."""
        store = self._store
        with self._lock:
            seq, line, data = 0, b"", b""
            while seq != store.rows + 1:
                seq = store.rows + 1
                line = make(seq, now, step, content)
                data = self._torn + line
            store.rows = seq
            try:
                # The kernel cuts a write short where the disk, the quota or the file's limit ends.
                written = os.write(self._descriptor, data)
                store.end += written
                self._torn = b"" if written == len(data) else b"!\n"
                if self._torn:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                store.rows -= store.rows == seq
                raise
            return line

    def _learn(self, line: bytes) -> None:
        """Rows like this one may be packed, if it stands where it seems to, by what a reader finds there."""
        with suppress(OSError, TypeError, ValueError):  # it is recorded, whatever comes of this
            place = self._store.end - len(line)
            found = decode_line(self.session.path, os.pread(self._descriptor, len(line), place)[:-1], place)
            if isinstance(found, Frame) and "m" in found.value:
                form = self._forms.learn(_metrics(found.value["m"]), place)
                if form is not None:
                    self._store.expect(form.names, form.letters, form.named)

    def _extend(self, size: int) -> None:
        with self._lock:
            if self._mapped and not extend_room(self._descriptor, self._store, size):
                self._unmap()

    def _unmap(self) -> None:
        """Write from now on, behind the last line."""
        if self._mapped:
            self._mapped = False
            self._torn = b"!\n"  # as long as there may be null bytes behind the last line
            give_room_back(self._descriptor, self._store)
            self._torn = b""

    def _look(self, now: float) -> None:
        """Whether the file is still there, and whole: what is put into a removed one is lost."""
        store = self._store
        with self._lock:
            limit, end = store.limit, store.end
            found = os.fstat(self._descriptor)
            is_short = found.st_size < max(limit, end)
            if found.st_nlink == 0:
                self._put_back()
            elif is_short and limit == store.limit:  # or a handler gave room back meanwhile
                self._begin_anew()
            if self._mapped:
                # A store changes no time of the file, by which another host tells whether this process lives.
                os.utime(self._descriptor)
            store.since, store.until = now, now + LOOK

    def _put_back(self) -> None:
        self._store.close()  # or another thread would go on in the removed file
        put_back(self._descriptor, self.session.path)
        logger.warning("%s was removed while it was written; all of it was put back", self.session.path)

    def _begin_anew(self) -> None:
        """Behind what is left of the file, which may be half a line."""
        self._store.close()
        self._store.forget()
        self._forms = Forms()
        os.write(self._descriptor, b"\n")
        begin_room(self._descriptor, self._store)
        logger.warning("%s was cut short; what was cut off is lost", self.session.path)

    def _place_table(self, table: TableData) -> dict[str, Any]:
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


def _has_interpreter_lock() -> bool:
    """CPython's, which is not in a free-threaded build unless it was told to."""
    return sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


def _frame(more: Mapping[str, Any], seq: int, now: float, step: int, metrics: Metrics) -> bytes:
    return encode({"n": seq, "s": step, "t": now, "m": metrics, **more})


class JournalReader:
    """Reads what stands in a session's journal, again and again as it grows. Never writes.

    Args:
        writer: whose it is.
        session: the session.
        placement: how the rows are to stand in a run.

    Attributes:
        session, placement: as they were given.
    """

    def __init__(self, writer: str, session: Session, placement: Placement = AS_IT_IS) -> None:
        self.session = session
        self.placement = placement
        self._writer = writer
        self._unpacker = Unpacker(partial(_metrics_at, session), placement)

    def read(self, offset: int = 0, limit: int = 1 << 20) -> Iterator[Entry]:
        """What stands there from `offset` on, about `limit` bytes of it."""
        for line, start in read_lines(self.session.path, offset or _behind_header(self.session), limit):
            told = self._unpacker.unpack_line(line)
            if told is not None:
                yield Entry(self._row_of(told), start + len(line) + 1)
            else:
                yield from self._decode(line, start)

    def _row_of(self, told: Told) -> Row:
        seq, step, stamp, metrics = told
        return Row(
            writer=self._writer, session=self.session.number, seq=seq, step=step, time=stamp, metrics=metrics
        )

    def _decode(self, line: bytes, start: int) -> Iterator[Entry]:
        for found in decode_all(self.session.path, line, start):
            yield Entry(found if isinstance(found, Damage) else self._interpret(found), found.end)

    def _interpret(self, frame: Frame) -> Row | End | Damage:
        """What a sound frame means; one that means nothing is damage too."""
        if isinstance(body := frame.value.get("packed"), bytes):
            return self._packed_row(frame, body)
        try:
            if "end" in frame.value:
                return End(_status(frame.value["end"]))
            return self.placement.place(_row(self._writer, self.session, frame.value))
        except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
            return self._no_row(frame, error)

    def _packed_row(self, frame: Frame, body: bytes) -> Row | Damage:
        """Errors of reading the rows that it names are the reader's, as those of reading it are."""
        try:
            told = self._unpacker.unpack(body)
            _time(told[2])
        except (TypeError, ValueError) as error:
            return self._no_row(frame, error)
        return self._row_of(told)

    def _no_row(self, frame: Frame, error: Exception) -> Damage:
        reason = f"it is no row: {type(error).__name__}: {error}"
        return Damage(self.session.path, frame.offset, frame.end, reason)


def read_journal(writer: str, session: Session, offset: int = 0, limit: int = 1 << 20) -> Iterator[Entry]:
    """What stands in a session's journal from `offset` on, about `limit` bytes of it. Never writes."""
    return JournalReader(writer, session).read(offset, limit)


def read_to_end(writer: str, session: Session, offset: int = 0) -> Iterator[Entry]:
    """Everything that stands in a session's journal from `offset` on, read piece by piece."""
    reader = JournalReader(writer, session)
    while entries := list(reader.read(offset)):
        yield from entries
        offset = entries[-1].offset


def _behind_header(session: Session) -> int:
    """The header holds the writer's config, and so may be longer than what is read at once."""
    first = next(read_frames(session.path, limit=1), None)
    return first.end if isinstance(first, Frame) and "rolecall" in first.value else 0


def _metrics_at(session: Session, offset: int) -> Metrics | None:
    """Of the row that stands at an offset; `None` if none does that is not packed itself."""
    found = next(read_frames(session.path, offset, limit=1), None) if offset > 0 else None
    if isinstance(found, Frame) and "m" in found.value:
        return _metrics(found.value["m"])
    return None


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


def _table(journal: Path, place: Any) -> TableData:
    if not isinstance(place, dict):
        raise TypeError("its table is no mapping")
    content = _table_file(journal, place["file"]) if "file" in place else place
    columns = tuple(_text(column) for column in content["columns"])
    rows = tuple(_cells(row, len(columns)) for row in content["rows"])
    return TableData(name=_text(place["name"]), columns=columns, rows=rows)


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
