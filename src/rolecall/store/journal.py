"""Append one writer's rows to its journal. `rolecall.store.reader` reads them.

A journal is a directory of sessions (see `rolecall.store.lease`), each a file of lines (see `rolecall.store.codec`).
The first line is the header; then there is one line for each call of `log`, and one for the end::

    {
        "rolecall": 2,
        "owner": {...},
        "session": 1,
        "writer": "explorer/0",
        "opened": 1764000000.0,
        "source": {"name": "train.py", "user": "ada", "commit": "..."},
        "config": {...},
        "sum": "...",
    }
    {"seq": 1, "step": 1, "time": 1764000000.5, "data": {"reward/mean": 0.31}, "sum": "..."}
    {
        "seq": 4,
        "rows": 3,
        "step": 2,
        "time": 1764000000.9,
        "data": {"reward/mean": 0.35},
        "values": [
            {"table": {"name": "samples", "columns": [...], "rows": [...]}},
            {
                "key": "maze",
                "media": [
                    {"kind": "image", "mime": "image/png", "file": {"name": "...", "size": 150741, "sum": "..."}}
                ],
            },
        ],
        "sum": "...",
    }
    {"end": "finished", "seq": 4, "steps": {"": 2}, "time": 1764000002.0, "sum": "..."}

One call of `log` is one line and one write. Its numbers and strings are a row, and so is each of its `values`, in this
order; `rows` says how many there are if there is more than one. `seq` is the number of the last of them, counted
through the session. `axis` is there if it is not the default one, and so is `commit` if it was given. The header, a
line in every 1,000 and the end hold `steps`, the last step on each axis (`""` is the default one), so that a restarted
role finds its next step without reading the whole file.

A cell of a table is a number, a string, a boolean or `null`, or an image: an object as in `media`.

The files of media are in a directory beside the journal, as *attachments*; each is there before its line. So is the
content of a line of over 4 MiB: `"attached": {"name": "3.json", "size": 5000000, "sum": "..."}`. The first line after
some that could not be written says how many rows these were in `lost`. `backends` names the only backends that get a
row, if it is not for all. `text` names the keys of strings that spell a number, such as `"NaN"`, and are none.

Rows with `backends` and changes of the details have numbers, and are no rows that every backend is to get. How many of
a session's there are so far is in `only`, in their lines and wherever `steps` are: `{"": 2, "console": 40}` are two
changes, and 40 rows for `console` alone.

A line with `config`, `summary` or `tags` changes the run's details: it is numbered as a row, and has the last step (see
`rolecall.store.details`). What all of these lines come to is in `details`, wherever `steps` are. Lines may also hold
`event`; this version writes none.

The header of a session that goes on with the rows of an earlier one, because that file was changed from outside, says
`"continues": N`. Its rows keep their `seq`, and a reader skips those that it has.

The end of a session whose rows `rolecall clean` removed says how many in `cleaned`.
"""

import errno
import logging
import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, get_ident
from typing import Any, Final, NamedTuple
from zlib import crc32

from pydantic_core import to_json

from rolecall.errors import DirectoryError
from rolecall.rows import Details, MediaKind, TableData
from rolecall.states import State, Status
from rolecall.store.codec import (
    DEFAULT_AXIS,
    LARGEST_ATTACHMENT,
    LINE,
    PER_NUMBER,
    decode,
    encode,
    ensure_memory,
    make_folder,
    only_for,
    open_own,
    put_copy,
    put_whole,
    refuse_link,
    rows_of,
    write_whole,
)
from rolecall.store.lease import Fill, Session
from rolecall.timings import FILE_CHECK_INTERVAL, HANDOVER_INTERVAL

logger = logging.getLogger("rolecall")

_IS_FREE_THREADED: Final = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
_STEPS_EVERY: Final = 1000
_SPACE: Final = b" "
_FIRST_PIECE: Final = 1024
"""Bytes that the encoder begins with (pydantic_core 2.46)."""
_FEW: Final = 10
"""Numbers under short keys whose line fits into that piece, whatever they are."""
_FOR_FEW: Final = 2 * _FIRST_PIECE + 128
"""Bytes for that piece, and for a copy of its text."""
_SEAL: Final = (
    20  # bytes of a line beside its text: the checksum, a newline, and one before a line that follows a torn one
)
_LONGEST_LINE: Final = 4 << 20
_PIECE: Final = 1 << 20
_ALMOST: Final = 0.9
"""Of a disk: what is fuller is warned of."""
_UNSAFE: Final = re.compile("[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 64

Content = bytes | Path
"""Of an attachment: its bytes, or a file to copy."""


class Draft(NamedTuple):
    """An image or another object that was logged, before it is stored.

    Attributes:
        kind: what it is.
        data: what its file will hold; `None` if it has none.
        suffix: of the file's name.
        mime: as in `Media`, and so are `caption`, `counts` and `edges`.
        caption: as there.
        counts: as there.
        edges: as there.
        note: what the role reports of it, if it is not all that was logged.
    """

    kind: MediaKind
    data: Content | None = None
    suffix: str = ""
    mime: str = ""
    caption: str = ""
    counts: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Drafts:
    """What was logged under one key."""

    key: str
    drafts: Sequence[Draft]


@dataclass(frozen=True, slots=True)
class TableDraft:
    """A table with images that are not stored yet.

    Attributes:
        table: the table; a cell that is an image is `None` there.
        images: those cells, by row and column.
    """

    table: TableData
    images: Mapping[tuple[int, int], Draft]


Values = Sequence[TableData | TableDraft | Drafts]
"""The tables and media of one call of `log`."""
More = Mapping[str, Any] | None
"""What only some lines say."""


class JournalWriter:
    """Appends to one session. Threads may share it: lines stay whole, and each thread's rows stay in order.

    Once `append` returns, the row survives the death of the process. It is not an `fsync`: a machine that loses power
    can lose what its kernel had not written to the disk.

    Args:
        session: where to append.
        steps: the last step on each axis of an earlier session.
        succeed: makes the session to go on in when this one's file was changed from outside, with the rows that are
            filled in.
        limit: how many bytes the writer's sessions and attachments may take in their directory.
        details: what holds of an earlier session's config, summary and tags.

    Attributes:
        session: where rows are appended now.
        seq: the number of the last row.
        lost: how many rows are not in the journal: they could not be written, or their file was cut short.
        details: what holds now.
        only: how many of the numbers so far are of no rows that every backend gets, by the backends that do.
    """

    def __init__(
        self,
        session: Session,
        steps: Mapping[str, int] | None = None,
        succeed: Callable[[Session, Fill], Session] | None = None,
        limit: int | None = None,
        details: Details | None = None,
    ) -> None:
        self.session = session
        self.details = details or Details()
        self.seq = 0
        self.lost = 0
        self._steps = dict(steps or {})
        self.only: Mapping[str, int] = {}
        self._succeed = succeed
        self._recorded = 0
        self._is_torn = False
        self._failed = 0
        self._looking = False
        self._limit = limit
        # The longest text that needs no look at its size, or at what room there is.
        self._unmeasured = _LONGEST_LINE if limit is None else 0
        self._has_warned = False
        self._looked = self._look_at = time.time()
        # Reentrant: a signal handler that logs must not deadlock with the call that it interrupted.
        self._lock = RLock()
        # The thread that needs no lock, or 0 once another one has come; see `_take_turn`.
        self._lone_thread = 0 if _IS_FREE_THREADED else get_ident()
        # The same one while it is inside without the lock, or 0.
        self._lone_inside = 0
        self._descriptor = -1
        self._open(session)

    def append(self, data: Mapping[str, Any], step: int | None = None, values: Values = (), more: More = None) -> None:
        """Record one call of `log`.

        Args:
            data: what was logged, ready for JSON.
            step: `None` for the one after the last on the axis.
            values: tables and media, each recorded as a row of its own.
            more: what else the line says, ready for JSON: `axis`, `commit`, `backends`, or a change of the details.

        Raises:
            OSError: it could not be written; its rows are counted in `lost`.
            ValueError: JSON cannot hold `data`, or a value is too large; nothing was recorded.
        """
        # As `_take_turn`, with which it must agree, without the time of one more call.
        if (me := get_ident()) == self._lone_thread:
            outer = self._lone_inside
            try:
                self._lone_inside = me
                if self._lone_thread:
                    return self._record(data, step, values, more)
            finally:
                self._lone_inside = outer
        return self._take_turn(self._record, data, step, values, more)

    def _record(self, data: Mapping[str, Any], step: int | None, values: Values, more: More) -> None:
        """Write the line of one call of `log`."""
        now = time.time()
        # A clock may be set back, so look then too.
        if not self._looked <= now < self._look_at:
            self._look(now)
            self._watch_disk()
        rows = len(values) + bool(data) if values else 1
        axis = more.get("axis", DEFAULT_AXIS) if more else DEFAULT_AXIS
        try:
            while True:
                seq, only = self.seq + rows, self.only
                at = self._steps.get(axis, 0) + 1 if step is None else step
                line = {"seq": seq, "step": at, "time": now, "data": data}
                if values or more or self._failed or seq % _STEPS_EVERY < rows:
                    only = self._complete(line, rows, values, more)
                # As `ensure_memory`, for numbers under short keys: anything else was measured before. Spaces, as
                # `bytes` of a number calls `calloc`, which takes longer.
                len(_SPACE * _FOR_FEW if len(data) <= _FEW else bytes(3 * PER_NUMBER * len(data)))
                text = to_json(line, inf_nan_mode="strings")
                if len(text) > self._unmeasured:
                    text = self._fit(text, line)
                text = text[:-1]
                # As `seal`, without the time of a call.
                whole = LINE % (text, crc32(text, self._seed))
                if self._is_torn:
                    whole = b"\n" + whole
                # A signal handler may have logged since. From here on there is no way in for one until the line
                # is written: CPython runs handlers at the start of a Python function, after calls and at backward
                # jumps, so the write has to be a call of C in this very place.
                if self.seq == seq - rows:
                    self.seq = seq
                    self._steps[axis] = at
                    self.only = only
                    written = os.write(self._descriptor, whole)
                    self._end += written
                    if self._is_torn or written != len(whole):
                        self._note_torn(written, len(whole))
                    break
        except OSError:
            self.lost += rows
            self._failed += rows
            raise
        if self._failed:
            self._failed = 0
        self._recorded += rows

    def _note_torn(self, written: int, size: int) -> None:
        """Note whether the last line has its newline: the next one closes it first if it has not.

        Raises:
            OSError: more of it is missing.
        """
        self._is_torn = written != size
        if written < size - 1:
            # The disk, a quota or the file size limit may end in the middle of a line.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def change(self, make: Callable[[Details], Mapping[str, Any]]) -> None:
        """Record a change of the run's config, summary or tags; see `rolecall.store.details`. Raises as `append` does.

        Args:
            make: the change, of what holds now; empty if there is none.
        """
        self._take_turn(self._change, make)

    def _change(self, make: Callable[[Details], Mapping[str, Any]]) -> None:
        if change := make(self.details):
            ensure_memory(change)
            # Also if it cannot be written: a later line may hold it.
            self.details = self.details.plus(change)
            self._record({}, self._steps.get(DEFAULT_AXIS, 0), (), change)

    def end(self, status: Status) -> None:
        """Record how the writer ended, and close the file. A second call does nothing.

        Raises:
            OSError: the end could not be written.
        """
        self._take_turn(self._end_once, status)

    def _end_once(self, status: Status) -> None:
        if self._descriptor < 0:
            return
        try:
            self._look(time.time())
            lost = {"lost": self._failed} if self._failed else {}
            state = {"steps": self._steps, **self._details(), **_unless_empty("only", self.only)}
            end = {"end": status, "seq": self.seq, **state, "time": time.time(), **lost}
            write_whole(self._descriptor, (b"\n" if self._is_torn else b"") + encode(end, self._seed))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file without a word, as a forked child must: the session is its parent's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take_turn(self, act: Callable[..., None], *arguments: object) -> None:
        """Call something while other threads are kept out.

        Most writers have one thread, and for a row a lock takes 0.15 times the limit (`docs/experiments.md`). So the
        thread that made the writer does without, until another one comes. It first marks that it is inside, and then
        looks whether it is still alone. Another one first marks that it no longer is, and then waits until it is not
        inside. Under the interpreter lock, at least one of them sees the other's mark; from then on all take the lock.

        A signal handler of the thread that is inside comes in at once, and leaves the mark as it was. This is no
        context manager, as Ctrl-C in `__enter__` or `__exit__` would leave it set.
        """
        me = get_ident()
        if me == self._lone_thread:
            outer = self._lone_inside
            try:
                self._lone_inside = me
                if self._lone_thread:
                    return act(*arguments)
            finally:
                self._lone_inside = outer
        self._lone_thread = 0
        while self._lone_inside not in (0, me):
            time.sleep(HANDOVER_INTERVAL)
        with self._lock:
            return act(*arguments)

    def _open(self, session: Session) -> None:
        self._descriptor = open_own(session.path)
        found = os.fstat(self._descriptor)
        self._identity, self._end = (found.st_dev, found.st_ino), found.st_size
        self._seed = session.seed
        self._attachments = session.attachments
        self._most = sys.maxsize
        if self._limit is not None:
            # Earlier sessions may wait for a courier to copy them.
            beside = sum(path.lstat().st_size for path in session.path.parent.rglob("*") if path != session.path)
            self._most = self._limit - beside

    def _complete(self, line: dict[str, Any], rows: int, values: Values, more: More) -> Mapping[str, int]:
        """Add what only some lines say; returns what `only` is with this line."""
        if rows > 1:
            line["rows"] = rows
        if values:
            line["values"] = [self._store(value) for value in values]
        if more:
            line |= more
        if (values or more) and not line["data"]:
            del line["data"]
        if self._failed:
            line["lost"] = self._failed
        only, name = self.only, only_for(line)
        if name is not None:
            only = {**only, name: only.get(name, 0) + rows}
        is_regular = line["seq"] % _STEPS_EVERY < rows
        if is_regular:
            axis = line.get("axis", DEFAULT_AXIS)
            line |= {"steps": {**self._steps, axis: line["step"]}, **self._details()}
        if is_regular or name is not None:
            line |= _unless_empty("only", only)
        ensure_memory({**line, "data": {}, "values": ()})  # those were measured
        return only

    def _details(self) -> dict[str, Any]:
        return _unless_empty("details", self.details.line())

    def _store(self, value: TableData | TableDraft | Drafts) -> dict[str, Any]:
        """What a line says of a table or of media, whose files are stored first."""
        if isinstance(value, TableData):
            return {"table": _table(value, value.rows)}
        if isinstance(value, TableDraft):
            rows = [list[Any](row) for row in value.table.rows]
            for (row, column), image in value.images.items():
                rows[row][column] = self._media(image, value.table.name)
            return {"table": _table(value.table, rows)}
        return {"key": value.key, "media": [self._media(draft, value.key) for draft in value.drafts]}

    def _media(self, draft: Draft, key: str) -> dict[str, Any]:
        found = {name: each for name in ("mime", "caption", "counts", "edges") if (each := getattr(draft, name))}
        if draft.data is not None:
            # Not by the number of the row, which a signal handler that logs may take.
            name = f"{_UNSAFE.sub('_', key)[:_LONGEST_NAME]}-{os.urandom(6).hex()}{draft.suffix}"
            found["file"] = self._put(name, draft.data)
        return {"kind": draft.kind, **found}

    def _put(self, name: str, data: Content) -> dict[str, Any]:
        """Store an attachment."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size > LARGEST_ATTACHMENT:
            raise ValueError(f"{name} has {size} bytes, and nothing can have more than {LARGEST_ATTACHMENT}")
        self._require_room(size)
        reference = put_attachment(self._attachments, name, data)
        self._most -= size
        return reference

    def _fit(self, text: bytes, line: dict[str, Any]) -> bytes:
        """The text of what is too long for a line, or beyond the limit."""
        if len(text) > _LONGEST_LINE:
            content = {name: line.pop(name) for name in ("data", "values") if name in line}
            body = to_json(content, inf_nan_mode="strings")
            text = to_json({**line, "attached": self._put(f"{line['seq']}.json", body)})
        self._require_room(len(text) + _SEAL)
        return text

    def _look(self, now: float) -> None:
        """Whether the path still leads to the file that this writer appends to, as long as it left it.

        `logrotate` renames or truncates, an editor replaces, a backup hard-links, somebody removes the directory:
        compare the device, inode and size, as none of these shows in the link count alone.
        """
        if self._looking:  # a signal handler logs while the rows of a changed file are rescued
            return
        self._looked, self._look_at = now, now + FILE_CHECK_INTERVAL
        end = self._end  # before the look, as a signal handler may log after it
        try:
            found = os.stat(self.session.path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            what = "was moved or removed"
        except OSError:  # what cannot be looked at can still be written
            return
        else:
            if (found.st_dev, found.st_ino) != self._identity:
                what = "was replaced"
            elif found.st_size < end:
                what = "was cut short"
            else:
                self._end = found.st_size
                return
        if self._succeed is not None:
            self._looking = True
            try:
                self._go_on(what, self._succeed)
            except (OSError, DirectoryError) as error:  # the disk is full, for one: the next look tries again
                logger.debug("%s %s; no new session: %s", self.session.path, what, error)
            finally:
                self._looking = False

    def _require_room(self, size: int) -> None:
        if self._end + size > self._most:
            raise OSError(errno.EDQUOT, f"spool_limit of {self._limit} bytes is reached")

    def _watch_disk(self) -> None:
        """Warn once, before rows are lost."""
        if self._has_warned:
            return
        path = self.session.path.parent
        try:
            disk = os.fstatvfs(self._descriptor)
            used = disk.f_blocks - disk.f_bfree
            if self._limit is not None and self._end >= self._most - (1 - _ALMOST) * self._limit:
                what = f"the journals in {path} take almost all of spool_limit ({self._limit} bytes)"
            elif used and used >= _ALMOST * (used + disk.f_bavail):
                what = f"the disk of {path} is {100 * used // (used + disk.f_bavail)} % full"
            else:
                return
            self._has_warned = True
            logger.warning("%s. Make space, or rows will be lost", what)
        except Exception:  # noqa: BLE001, S110 - a handler of the user's that raises must cost no row
            pass

    def _go_on(self, what: str, succeed: Callable[[Session, Fill], Session]) -> None:
        """Go on in a new session, with all rows that the changed file still holds."""
        before, old, rescued = self.session, self._descriptor, 0

        def rescue(path: Path, session: Session) -> None:
            nonlocal rescued
            rescued = last = 0
            with path.open("ab", buffering=0) as file:
                for value in _sound_lines(old, before.seed):
                    if "seq" in value and "end" not in value:
                        rows = rows_of(value)
                        if value["seq"] > last + rows:
                            value["lost"] = value["seq"] - last - rows  # readers need not warn of it again
                        last = value["seq"]
                        write_whole(file.fileno(), encode(value, session.seed))
                        rescued += rows
            if before.attachments.is_dir():
                before.attachments.rename(session.attachments)

        # Readers see the new session once it holds the rows: a courier that moved on to it would wait for them.
        session = succeed(before, rescue)
        self._open(session)
        self.session = session
        # Ctrl-C may have come between a write and its count.
        gone, self._recorded = max(0, self._recorded - rescued), rescued
        self.lost += gone
        logger.log(
            logging.WARNING if self.seq else logging.DEBUG,  # a launcher's journal has no rows
            "%s %s while it was written; the journal goes on in %s%s",
            *(before.path, what, session.path),
            f". {gone} rows are gone from it" if gone else " with all of its rows",
        )
        with suppress(OSError):
            # Readers of the old file, wherever it is now, learn that it is not the whole.
            end = {"end": State.CONTINUED, "seq": self.seq, "time": time.time()}
            write_whole(old, b"\n" + encode(end, before.seed))
        os.close(old)


def put_attachment(folder: Path, name: str, data: Content) -> dict[str, Any]:
    """Store bytes, or a copy of a file, beside a journal, before the line that refers to them; returns the reference.

    Raises:
        OSError: they were not written.
    """
    refuse_link(os.path.dirname(folder))  # somebody may have swapped it since it was opened
    make_folder(folder)
    if isinstance(data, Path):
        size, checksum = put_copy(folder / name, data)
    else:
        put_whole(os.path.join(folder, name), data)  # no Path, which takes 5 µs to make and to read
        size, checksum = len(data), crc32(data)
    return {"name": name, "size": size, "sum": f"{checksum:08x}"}


def _unless_empty(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value} if value else {}


def _sound_lines(descriptor: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the sound lines of an open file hold, whatever its path leads to now."""
    offset, rest = 0, b""
    while piece := os.pread(descriptor, _PIECE, offset):
        offset += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            with suppress(ValueError, RecursionError):
                yield decode(line, seed)


def _table(table: TableData, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    grows = {"append": True} if table.append else {}
    content = {"name": table.name, "columns": table.columns, "rows": rows, **grows}
    ensure_memory(content)
    return content
