"""Compares two bags of points of any size: those that the journals say, and those that a run holds.

They are sorted outside of memory, in a database file of sqlite that nobody else can open.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import Final, Literal, NamedTuple, Self

from rolecall.protocol import Point

DifferenceKind = Literal["missing", "extra", "different"]

_TABLES: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8000;
CREATE TABLE points (key INTEGER, step INTEGER, value REAL, time REAL, side INTEGER);
CREATE TABLE missing (key INTEGER, step INTEGER, value REAL, time REAL);
CREATE INDEX missing_at ON missing (key, step);
"""
# Equal points cancel each other here, where no Python sees them. NaN is NULL in sqlite, and NULLs are one group.
_UNEQUAL: Final = """
SELECT key, step, value, time, SUM(side = 0) AS wanted, SUM(side = 1) AS allowed, SUM(side = 2) AS held
FROM points GROUP BY key, step, value, time HAVING wanted != held OR allowed > 0 ORDER BY key, step, value, time
"""
_TAKE: Final = """
DELETE FROM missing
WHERE rowid = (SELECT rowid FROM missing WHERE key = ? AND step = ? AND value IS ? AND time IS ? LIMIT 1)
"""


class Side(IntEnum):
    """Who says that there is such a point."""

    WANTED = 0
    """The journal, and the backend has acknowledged it."""
    ALLOWED = 1
    """The journal, and the backend may hold it or not: it is on its way, or was rejected with its row."""
    HELD = 2
    """The backend."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A point that is not the same on both sides.

    Attributes:
        kind: `missing` in the backend, `extra` there, or `different`: another value at the same step.
        key: the metric, as the backend names it.
        step: the step.
        wanted: the value that the journal says; `None` if none.
        held: the value that the backend holds; `None` if none.
    """

    kind: DifferenceKind
    key: str
    step: int
    wanted: float | None
    held: float | None


class _Found(NamedTuple):
    """A value at one step that only one side has."""

    value: float | None
    time: float


class PointTable:
    """The points of one run."""

    def __init__(self) -> None:
        # A database without a name is a temporary file, which sqlite deletes (https://sqlite.org/inmemorydb.html).
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_TABLES)
        self._numbers: dict[str, int] = {}
        self.counts = dict.fromkeys(Side, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, points: Iterable[tuple[Side, str, Point]]) -> None:
        """Add points of any side, in any order."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", map(self._entry, points))
        self._db.execute("COMMIT")

    def differences(self) -> Iterator[Difference]:
        """Every point that the sides do not share, by key and step; remembers what is missing for `take`.

        Of several points at one step, those count as the same, or as altered, that have the same time.
        """
        keys = list(self._numbers)
        for (number, step), at_step in groupby(self._db.execute(_UNEQUAL), key=lambda row: row[:2]):
            missing, extra = _unpaired(at_step)
            pairs = min(len(missing), len(extra))
            _align(missing, extra)
            for wanted, held in zip(missing, extra, strict=False):
                yield Difference("different", keys[number], step, _real(wanted.value), _real(held.value))
            for found in extra[pairs:]:
                yield Difference("extra", keys[number], step, None, _real(found.value))
            for found in missing[pairs:]:
                self._db.execute("INSERT INTO missing VALUES (?, ?, ?, ?)", (number, step, *found))
                yield Difference("missing", keys[number], step, _real(found.value), None)

    def take(self, key: str, point: Point) -> bool:
        """Whether a point is one of those that `differences` found missing; each counts once."""
        entry = (self._numbers.get(key), point.step, point.value, point.time)
        return self._db.execute(_TAKE, entry).rowcount > 0

    def _entry(self, point: tuple[Side, str, Point]) -> tuple[int, int, float, float, int]:
        side, key, (step, value, time) = point
        self.counts[side] += 1
        return self._numbers.setdefault(key, len(self._numbers)), step, float(value), time, side


def _unpaired(rows: Iterable[tuple[int, int, float | None, float, int, int, int]]) -> tuple[list[_Found], list[_Found]]:
    """What is missing and what is extra of the points of one metric at one step, sorted by value and time."""
    missing: list[_Found] = []
    extra: list[_Found] = []
    for value, equal in groupby(rows, key=lambda row: row[2]):
        lacking: list[_Found] = []
        beyond: list[_Found] = []
        spared = 0
        for _, _, _, time, wanted, allowed, held in equal:
            lacking += [_Found(value, time)] * (wanted - held)
            beyond += [_Found(value, time)] * (held - wanted)
            spared += allowed
        # What has another time than the journal says is the same point all the same: not every backend keeps times.
        moved = min(len(lacking), len(beyond))
        missing += lacking[moved:]
        extra += beyond[moved + spared :]
    return missing, extra


def _align(missing: list[_Found], extra: list[_Found]) -> None:
    """Put points of the same time side by side, at the start of both lists: they are one point that was altered."""
    both = {found.time for found in missing} & {found.time for found in extra}
    for side in (missing, extra):
        side.sort(key=lambda found: (found.time not in both, found.time))


def _real(value: float | None) -> float:
    return math.nan if value is None else value
