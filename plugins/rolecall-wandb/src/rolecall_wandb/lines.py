"""The lines of history that a writer's rows become in a shared run, and which of them the server holds.

Each line has a hidden key, `_rolecall/{writer}/{session}`, with the `seq` of its last row. The server counts for each
key how many lines have it (`historyKeys`). A line of several rows says under `_rolecall/rows` how many, so that each
line that is read back tells which rows are in it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from rolecall import Row

__all__ = ["PREFIX", "Found", "HandedOver", "Line", "Ranges", "Session", "counts_of", "find", "writer_of"]

Session = tuple[str, int]

PREFIX: Final = "_rolecall/"
ROWS: Final = f"{PREFIX}rows"


@dataclass(slots=True)
class Line:
    """Consecutive rows of one session with the same axis and step, none of which repeats another's key.

    Attributes:
        began: when its first row came, by the monotonic clock.
        first: the `seq` of its first row.
        last: its last row.
        values: what it holds.
        has_table: whether a table is in it.
    """

    began: float
    first: int
    last: Row
    values: dict[str, Any]
    has_table: bool = False

    @classmethod
    def of(cls, row: Row, more: Mapping[str, Any] = MappingProxyType({})) -> Self:
        """A line of one row, and of `more` than its metrics and strings."""
        return cls(time.monotonic(), row.seq, row, {**row.metrics, **row.text, **more}, row.table is not None)

    def takes(self, row: Row, axes: Container[str], more: Iterable[str] = ()) -> bool:
        """Whether a row belongs to this line too, with `more` keys. A key of an axis is in every row, with its step."""
        last = self.last
        if row.step != last.step or row.axis != last.axis:
            return False
        if (row.writer, row.session, row.seq) != (last.writer, last.session, last.seq + 1):
            return False
        if any(key in self.values for key in more):
            return False
        return not any(key in self.values and key not in axes for key in (*row.metrics, *row.text))

    def add(self, row: Row, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Add a row that belongs to the line, and `more`."""
        self.last = row
        self.values.update({**row.metrics, **row.text, **more})
        self.has_table |= row.table is not None


class Ranges:
    """Numbers of rows, as sorted ranges with both ends: `[(1, 40), (43, 50)]`."""

    def __init__(self, others: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges = list(others)  # sorted ones, as of other `Ranges`

    def add(self, first: int, last: int) -> None:
        """Add a range; it may touch or overlap others."""
        ranges = self._ranges
        if ranges and ranges[-1][0] <= first <= ranges[-1][1] + 1:  # as nearly all lines do, it follows the last one
            ranges[-1] = ranges[-1][0], max(last, ranges[-1][1])
            return
        at = bisect_left(ranges, first, key=lambda each: each[1] + 1)
        end = at
        while end < len(ranges) and ranges[end][0] <= last + 1:
            first, last = min(first, ranges[end][0]), max(last, ranges[end][1])
            end += 1
        ranges[at:end] = [(first, last)]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def cover(self, others: Ranges) -> bool:
        """Whether each number of the others is here."""
        ends = [last for _, last in self._ranges]
        places = [(bisect_left(ends, last), first) for first, last in others]
        return all(at < len(ends) and self._ranges[at][0] <= first for at, first in places)

    @property
    def last(self) -> int:
        """The highest number; 0 if there is none."""
        return self._ranges[-1][1] if self._ranges else 0


@dataclass(frozen=True, slots=True)
class Found:
    """What was read back: the rows of each session, and how many lines have each key."""

    rows: Mapping[Session, Ranges]
    counts: Mapping[str, int]


def find(lines: Iterable[Mapping[str, Any]], sessions: Iterable[Session]) -> Found:
    """Which rows of these sessions are in lines of history."""
    rows = {session: Ranges() for session in sessions}
    owners = {key: session for session in rows for key in _keys(*session)}
    counts: Counter[str] = Counter()
    for line in lines:
        for key in owners.keys() & line.keys():
            last, length = line[key], line.get(ROWS, 1)
            if isinstance(last, int) and isinstance(length, int):
                rows[owners[key]].add(last - length + 1, last)
                counts[key] += 1
    return Found(rows, counts)


def writer_of(line: Mapping[str, Any]) -> str | None:
    """Whose line of a shared run it is; `None` if it is not rolecall's."""
    return next((_owner(key) for key in line if _is_mark(key)), None)


def counts_of(writer: str | None, counts: Mapping[str, int]) -> dict[str, int]:
    """How many lines the server counts for each of a writer's sessions, or of every writer's."""
    return {key: count for key, count in counts.items() if _is_mark(key) and writer in {None, _owner(key)}}


def _is_mark(key: str) -> bool:
    return key.startswith(PREFIX) and key != ROWS


def _owner(mark: str) -> str:
    return mark.removeprefix(PREFIX).rpartition("/")[0]


def _keys(writer: str, session: int) -> tuple[str, str]:
    key = f"{PREFIX}{writer}/{session}"
    return key, f"{key}b"  # no session's key ends so


class _Window:
    """Lines with one key, which are counted together: those that the server held before, and new ones."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.lines = 0
        self.rows = Ranges()
        self._before = 0

    def add(self, line: Line) -> None:
        self.lines += 1
        self.rows.add(line.first, line.last.seq)

    def is_complete(self, counts: Mapping[str, int]) -> bool:
        return counts.get(self.key, 0) == self._before + self.lines

    def has_arrived(self, counts: Mapping[str, int]) -> bool:
        return counts.get(self.key, 0) > self._before

    def restart(self, before: int) -> None:
        self.lines, self.rows, self._before = 0, Ranges(), before


class HandedOver:
    """The lines of one session that the SDK was handed, and what the server holds of the session.

    Attributes:
        keys: the keys of its lines.
        held: the rows that the server holds.

    The SDK uploads lines seconds later, and a proxy may take an upload and drop it. A count that still grows could not
    tell a line that was dropped from one that is on its way. So lines have one of two keys in turn: while new lines get
    one, those with the other are all handed over, and are held once the server counts as many.
    """

    def __init__(self, writer: str, session: int) -> None:
        self.keys = _keys(writer, session)
        self.held = Ranges()
        self._filling, self._closed = map(_Window, self.keys)
        self._counts: tuple[int, ...] = ()
        self._suspected = False

    def marks(self, line: Line) -> dict[str, int]:
        """The hidden keys of a line that is handed over next."""
        marks = {self._filling.key: line.last.seq}
        if line.last.seq > line.first:
            marks[ROWS] = line.last.seq - line.first + 1
        return marks

    def add(self, line: Line) -> None:
        """The line was handed over."""
        self._filling.add(line)

    @property
    def rows(self) -> Ranges:
        """The rows that the server holds, and those that a running SDK will upload."""
        rows = Ranges(self.held)
        for window in (self._closed, self._filling):
            for first, last in window.rows:
                rows.add(first, last)
        return rows

    def learn(self, counts: Mapping[str, int]) -> bool:
        """Learn how many lines have each key on the server; return whether that has changed."""
        before, self._counts = self._counts, tuple(counts.get(key, 0) for key in self.keys)
        self._close_if_complete(self._closed, counts)
        if not self._closed.lines:
            self._close_if_complete(self._filling, counts)
            self._filling, self._closed = self._closed, self._filling
        return self._counts != before

    def _close_if_complete(self, window: _Window, counts: Mapping[str, int]) -> None:
        if window.lines and window.is_complete(counts):
            for first, last in window.rows:
                self.held.add(first, last)
            window.restart(counts[window.key])
            self._suspected = False

    def are_lost(self, counts: Mapping[str, int]) -> bool:
        """Whether the server twice showed later lines than some that it lacks: the SDK uploads lines in order."""
        overtaken = bool(self._closed.lines) and self._filling.has_arrived(counts)
        was_suspected, self._suspected = self._suspected, overtaken
        return overtaken and was_suspected

    def restart(self, found: Found, session: Session) -> None:
        """Forget what the SDK was handed, as it has ended: the server holds what was read back, and nothing else."""
        self.held = found.rows[session]
        self._suspected = False
        for window in (self._filling, self._closed):
            window.restart(found.counts.get(window.key, 0))

    @property
    def confirmed(self) -> int:
        """The `seq` up to which the server holds every row that it was given."""
        waiting = [first for window in (self._closed, self._filling) for first, _ in window.rows]
        return min(waiting) - 1 if waiting else self.held.last

    @property
    def is_waiting(self) -> bool:
        """Whether some lines are not known to be held."""
        return bool(self._closed.lines or self._filling.lines)
