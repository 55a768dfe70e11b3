"""Read one writer's rows from its journal, and say what they mean.

`log` stores what it was given; this module interprets it, outside of training. A nested mapping is flattened with `/`,
the strings `"NaN"`, `"Infinity"` and `"-Infinity"` are numbers, other strings are text, `None` is skipped, and what is
none of these is left out.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, get_args
from zlib import crc32

from pydantic_core import from_json

from rolecall.rows import NOT_FINITE, Cell, Change, Details, Media, MediaKind, Row, TableData
from rolecall.states import State
from rolecall.store.codec import (
    LARGEST_ATTACHMENT,
    Damage,
    Line,
    is_change,
    last_seq,
    open_regular,
    read_lines,
    refuse_link,
    rows_of,
)
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, sessions

_INT64: Final = 1 << 63
_FLOAT: Final = frozenset([float])
_DEEPEST: Final = 50
_SPELLED: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}
_KINDS: Final = frozenset(get_args(MediaKind))
_NO_ROW: Final = (KeyError, TypeError, AttributeError, ValueError, RecursionError, OSError)
"""What reading a line raises that is sound and still no row: a stranger may have written it."""


@dataclass(frozen=True, slots=True)
class End:
    """The writer ended its session. `seq` is the number of its last row."""

    status: State
    seq: int


class Entry(NamedTuple):
    """What one line of a journal holds, and where the next one begins."""

    value: Row | End | Damage
    offset: int


class JournalReader:
    """Reads a session's journal, again and again as it grows. Never writes.

    Args:
        writer: whose journal it is.
        session: the session.
        seq: the last row before the first that will be read, if that is known.
    """

    def __init__(self, writer: str, session: Session, seq: int = 0) -> None:
        self.session = session
        self.seq = seq
        self._writer = writer

    def read(self, offset: int = 0, limit: int = 1 << 20) -> Iterator[Entry]:
        """What there is from `offset` on, about `limit` bytes of it, but at least one entry if there is one."""
        damage: Damage | None = None
        found, start, behind = False, -1, offset
        # Without the number of the row before, a first gap cannot be told from a start in the middle.
        is_known = offset == 0 or self.seq > 0
        # Lines without a row yield nothing. If there are no others, read on: no entry means that nothing is left. The
        # row after a damage says which rows it cost.
        while offset > start and (damage is not None or not found):
            start = offset
            for line in read_lines(self.session.path, offset, limit, self.session.seed):
                offset = line.end
                if isinstance(line, Damage):
                    # Damage that covers several lines is one fault.
                    damage = line if damage is None else replace(damage, end=line.end)
                    continue
                values = self._interpret(line)
                if not values:
                    continue
                found = True
                seq = last_seq(line.value)
                last = seq if isinstance(values[0], End) else seq - rows_of(line.value)
                if "lost" in line.value or "cleaned" in line.value:
                    # Rows that could not be written, or were cut off: the role reported them. Or they were removed.
                    damage = None
                elif damage is None and is_known and last > self.seq:
                    # A sector that ends where lines end may hold newlines alone, and so nothing that is damaged.
                    damage = Damage(self.session.path, behind, line.offset, "rows are missing")
                # A line that is left out may not even say which row it was.
                is_known, behind = seq > 0, line.end
                if damage is not None:
                    yield Entry(_with_rows(damage, self.seq, last), damage.end)
                    damage = None
                # A row that is left out is here: what is damaged behind it does not cover it.
                self.seq = max(self.seq, seq)
                for each in values:
                    yield Entry(each, line.end)
        if damage is not None:
            yield Entry(_with_rows(damage, self.seq, -1), damage.end)

    def _interpret(self, line: Line) -> Sequence[Row | End | Damage]:
        value = line.value
        if "seq" not in value:
            return ()  # the header, or a line of a newer version
        try:
            if "end" in value:
                return [End(State.of(str(value["end"]), is_live=False), _whole(value["seq"]))]
            if "attached" in value:
                value = {**value, **from_json(read_attachment(self.session.attachments, value["attached"]))}
            if "values" not in value:
                return [self._row(value)] if "data" in value else [self._change(value)]
            return list(self._rows(value, line))
        except _NO_ROW as error:
            rows, last = rows_of(value), value["seq"]
            which = f"row {last} is" if rows == 1 else f"rows {last - rows + 1} to {last} are"
            return [Damage(self.session.path, line.offset, line.end, _why(error), f"{which} left out")]

    def _rows(self, value: dict[str, Any], line: Line) -> Iterator[Row | Damage]:
        """The rows of a line that holds more than numbers and strings."""
        values, row = value["values"], self._row(value)
        first = row.seq - len(values) + 1
        if rows_of(value) != len(values) + bool(value.get("data")):
            raise ValueError("it holds another number of rows than it says")
        if value.get("data"):
            yield replace(row, seq=first - 1)
        row = replace(row, metrics={}, text={})
        for seq, each in enumerate(values, start=first):
            try:
                table = self._table(each["table"]) if "table" in each else None
                media = () if table is not None else self._media(each["media"], str(each["key"]))
                yield replace(row, seq=seq, table=table, media=media)
            except _NO_ROW as error:
                yield Damage(self.session.path, line.offset, line.end, _why(error), f"row {seq} is left out")

    def _change(self, value: dict[str, Any]) -> Row:
        row = self._row(value)
        if not is_change(value):
            return row  # of a newer version
        Details().plus(value)  # that is one
        return Change(writer=row.writer, session=row.session, seq=row.seq, step=row.step, time=row.time)

    def _media(self, values: Sequence[dict[str, Any]], key: str) -> tuple[Media, ...]:
        return tuple(self._one(value, key) for value in values)

    def _one(self, value: dict[str, Any], key: str) -> Media:
        if value["kind"] not in _KINDS:
            raise ValueError(f"{value['kind']!r} is no kind of media")
        file = find_attachment(self.session.attachments, value["file"]) if "file" in value else None
        counts, edges = (tuple(map(float, value.get(name, ()))) for name in ("counts", "edges"))
        mime, caption = (str(value.get(name, "")) for name in ("mime", "caption"))
        return Media(key=key, kind=value["kind"], path=file, mime=mime, caption=caption, counts=counts, edges=edges)

    def _table(self, value: Any) -> TableData:
        columns, name = tuple(map(str, value["columns"])), str(value["name"])
        rows = tuple(tuple(self._cell(cell, name) for cell in row) for row in value["rows"])
        if any(len(row) != len(columns) for row in rows):
            raise ValueError("its table has rows of another width than its columns")
        return TableData(name=name, columns=columns, rows=rows, append=value.get("append") is True)

    def _cell(self, value: Any, name: str) -> Cell:
        if type(value) is str:
            # As in a row: JSON has no NaN, so it is a string there.
            return NOT_FINITE.get(value, value)
        if type(value) is dict:
            return self._one(value, name)
        if not isinstance(value, Cell):
            raise ValueError(f"a cell of its table is a {type(value).__name__}")  # noqa: TRY004 - as above
        return value

    def _row(self, value: dict[str, Any]) -> Row:
        data, axis = value.get("data", {}), value.get("axis")
        if not isinstance(data, dict):
            raise ValueError("its data is not a mapping")  # noqa: TRY004 - one error for all that is left out
        if axis is not None and not isinstance(axis, str):
            raise ValueError("its axis is not a string")
        metrics: dict[str, float | int] = data
        text: dict[str, str] = {}
        # Most rows are floats alone, and need no look at each of them.
        if not _FLOAT.issuperset(map(type, data.values())):
            metrics = {}
            _flatten(data, "", metrics, text, _DEEPEST)
            # The other way round, `_flatten` would look each string up.
            for key in value.get("text", ()):
                if (number := metrics.pop(key, None)) is not None:
                    text[key] = _SPELLED.get(number, "NaN")
        return Row(
            writer=self._writer,
            session=self.session.number,
            seq=_whole(value["seq"]),
            step=_whole(value["step"]),
            time=_time(value["time"]),
            metrics=metrics,
            axis=axis,
            text=text,
            commit=value.get("commit") is True,
            backends=None if (backends := value.get("backends")) is None else tuple(map(str, backends)),
        )


def read_to_end(writer: str, session: Session, offset: int = 0, seq: int = 0) -> Iterator[Entry]:
    """Everything in a session's journal from `offset` on."""
    reader = JournalReader(writer, session, seq)
    while entries := list(reader.read(offset)):
        yield from entries
        offset = entries[-1].offset


def read_rows(layout: Layout, writer: str) -> Iterator[Row | Damage]:
    """Every row of a writer, in the order in which it was logged, and the damage between them."""
    return (value for _, (value, _) in read_sessions(layout, writer) if not isinstance(value, End))


def read_sessions(layout: Layout, writer: str) -> Iterator[tuple[int, Entry]]:
    """Everything in a writer's journals, each row once, with the number of its session."""
    return WriterReader(layout, writer).read()


class WriterReader:
    """Reads all sessions of a writer, each row once, again and again as they grow.

    Args:
        layout: where the journal is.
        writer: whose it is.

    Attributes:
        found: the sessions, oldest first, as the last call of `look` saw them.
    """

    def __init__(self, layout: Layout, writer: str) -> None:
        self.found: list[Session] = []
        self._layout = layout
        self._writer = writer
        self._reader: JournalReader | None = None
        self._offset = 0
        self._size = 0
        self._skip = 0
        self._seq = 0

    def look(self) -> None:
        """Find sessions that were opened since."""
        self.found = sessions(self._layout.journal(self._writer))

    def has_grown(self) -> bool:
        """Whether there may be more to read in the sessions that `look` has found; costs one `stat`."""
        if self._reader is None or self.found[-1].number != self._reader.session.number:
            return bool(self.found)
        return _size_of(self._reader.session.path) not in (self._size, -1)

    def read(self) -> Iterator[tuple[int, Entry]]:
        """What came since the last call, with the number of its session."""
        self.look()
        last = self._reader.session.number if self._reader is not None else 0
        for session in self.found:
            # A session before the newest one may have grown until that was opened.
            if session.number >= last:
                yield from self._read(session)

    def _read(self, session: Session) -> Iterator[tuple[int, Entry]]:
        size = _size_of(session.path)
        if self._reader is None or session.number != self._reader.session.number:
            # A session that continues an earlier one holds its rows again.
            self._skip = max(self._seq, self._skip) if "continues" in session.header() else 0
            self._reader, self._offset, self._seq = JournalReader(self._writer, session), 0, 0
        elif 0 <= size < self._offset:
            # The file was cut or replaced: what it has now may be known already.
            self._skip = max(self._seq, self._skip)
            self._reader, self._offset = JournalReader(self._writer, session), 0
        self._size = size
        while entries := list(self._reader.read(self._offset)):
            for entry in entries:
                self._offset = entry.offset
                if isinstance(entry.value, Row):
                    self._seq = entry.value.seq
                    if entry.value.seq <= self._skip:
                        continue
                yield session.number, entry


def _size_of(path: Path) -> int:
    """In bytes; -1 if there is no such file."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return -1


def read_attachment(folder: Path, reference: Mapping[str, Any]) -> bytes:
    """The bytes that a reference names.

    Raises:
        ValueError: the reference leads out of the folder, or the file is missing, short or damaged.
    """
    return find_attachment(folder, reference).read_bytes()


def find_attachment(folder: Path, reference: Mapping[str, Any]) -> Path:
    """The file that a reference names; its bytes are what they were.

    Raises:
        ValueError: the reference leads out of the folder, or the file is missing, short or damaged.
    """
    match reference:
        case {"name": str(name), "size": int(size), "sum": str(checksum)} if name == os.path.basename(name):
            file = open_regular(refuse_link(folder) / name)
        case _:
            raise ValueError("it does not name an attachment")
    if file is None:
        raise ValueError(f"its attachment {name} is missing")
    with file:
        # Piece by piece, and the size first: a crafted reference must not have a sparse file read into memory.
        if not (os.fstat(file.fileno()).st_size == size <= LARGEST_ATTACHMENT and _checksum(file) == checksum):
            raise ValueError(f"its attachment {name} is damaged")
    return folder / name


def _checksum(file: BinaryIO) -> str:
    found = 0
    while piece := file.read(1 << 20):
        found = crc32(piece, found)
    return f"{found:08x}"


def _with_rows(damage: Damage, before: int, last: int) -> Damage:
    """The damage, with the numbers of the rows that it cost: those from `before` to `last`, if that is known."""
    if last < 0:
        return replace(damage, lost=f"it follows row {before}")
    if last <= before:
        return damage
    rows = f"row {last} is lost" if last == before + 1 else f"rows {before + 1} to {last} are lost"
    return replace(damage, lost=rows)


def _flatten(
    data: Mapping[str, Any], prefix: str, metrics: dict[str, float | int], text: dict[str, str], depth: int
) -> None:
    for name, value in data.items():
        key = f"{prefix}{name}"
        match value:
            case bool():
                metrics[key] = int(value)
            case int() if not -_INT64 <= value < _INT64:
                try:
                    metrics[key] = float(value)
                except OverflowError:
                    continue
            case float() | int():
                metrics[key] = value
            case str() if value in NOT_FINITE:
                metrics[key] = NOT_FINITE[value]
            case str():
                text[key] = value
            case dict() if depth:
                _flatten(value, f"{key}/", metrics, text, depth - 1)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"it is not a row: {error!r}"


def _time(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    return float(_whole(value))


def _whole(value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise ValueError(f"{value!r} is not a whole number of 64 bits")
    return value
