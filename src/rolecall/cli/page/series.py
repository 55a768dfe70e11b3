"""Thins metrics while they are read: a page draws a million points with a few thousand, and shows every peak."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

MOST_POINTS: Final = 2048
"""Of a line: a chart on a wide screen has fewer pixels."""
_MOST_LINES: Final = 8
"""Of a series: a role that restarts all the time is no reason for a page full of lines."""
_LOSSLESS: Final = 2
_LARGEST: Final = 1e290
"""A browser computes with the range of what it draws, which a float cannot hold for larger values."""
_LEAST: Final = 1 / _LARGEST
_LARGEST_WHOLE: Final = 1 << 53
_GAP: Final = math.nan

Point = tuple[int, float]


class Line:
    """A metric over steps, in about `MOST_POINTS` points.

    The points are sorted into buckets, each of as many that were logged one after the other. A bucket keeps its least
    and its greatest value; it is a gap if no value in it is finite.
    """

    def __init__(self) -> None:
        self.count = 0
        self._width = _LOSSLESS
        # Two places for each bucket. Arrays, as a job may have thousands of lines: 16 bytes for each place.
        self._steps = array("q")
        self._values = array("d")
        self._new: list[Point] = []

    def add(self, step: int, value: float) -> None:
        """One more point."""
        self.count += 1
        self._new.append((step, value))
        if len(self._new) == self._width:
            self._keep(_extremes(self._new) if self._width > _LOSSLESS else self._new)
            self._new = []
            if len(self._steps) >= MOST_POINTS:
                self._halve()

    def points(self, limit: int) -> list[Point]:
        """At most `limit` points and the last one, in the order of their steps. A value that is no number is a gap."""
        kept = list(zip(self._steps, self._values, strict=True))
        rest = self._new if self._width == _LOSSLESS or not self._new else [*_extremes(self._new), self._new[-1]]
        points = kept + rest
        if len(points) > limit:
            width = 2 * math.ceil(len(points) / limit)
            points = [*_thin(points, width), points[-1]]
        unique = [*points[:1], *(after for before, after in pairwise(points) if after != before)]
        # Mostly they are in order. A role may log an earlier step late.
        return sorted(unique, key=_step_of)

    def _halve(self) -> None:
        points = list(_thin(list(zip(self._steps, self._values, strict=True)), 4))
        self._steps, self._values = array("q"), array("d")
        self._keep(points)
        self._width *= 2

    def _keep(self, points: Sequence[Point]) -> None:
        for step, value in points:
            self._steps.append(step)
            self._values.append(value)


class Series:
    """One metric of one writer.

    Args:
        axis: the name of its axis; `None` for the writer's own.

    Attributes:
        axis: as given.
        count: how many points were logged.
        last: the last value.
        odd: how many values are not finite, by their name.
        first_odd: the step of the first of them.
    """

    def __init__(self, axis: str | None = None) -> None:
        self.axis = axis
        self.count = 0
        self.last: float = _GAP
        self.odd: Counter[str] = Counter()
        self.first_odd = 0
        self.lines = [Line()]
        self._session = 0
        self._step = 0

    def add(self, session: int, step: int, value: float) -> None:
        """One more point."""
        if session != self._session:
            # Restarted from a checkpoint: what it logs again is a line of its own, and not a zigzag with the first.
            if self._session and step <= self._step and len(self.lines) < _MOST_LINES:
                self.lines.append(Line())
            self._session = session
        if not -_LARGEST < value < _LARGEST:
            self._note(step, value)
            value = _GAP
        else:
            self.last = value
        self.count += 1
        self._step = step
        self.lines[-1].add(step, value)

    def _note(self, step: int, value: float) -> None:
        if not self.odd:
            self.first_odd = step
        self.last = value
        self.odd[_name_of(value)] += 1

    def drawn(self, limit: int) -> dict[str, Any]:
        """Ready for JSON, each line in about `limit` points."""
        found: dict[str, Any] = {"count": self.count, "last": _short(self.last)}
        points = [line.points(limit) for line in self.lines]
        finite = [value for line in points for _, value in line if math.isfinite(value)]
        if finite:
            found |= {"min": _short(min(finite)), "max": _short(max(finite))}
        if self.odd:
            found |= {"odd": dict(self.odd), "first_odd": self.first_odd}
        found["lines"] = [_encoded(line) for line in points]
        return found


def fair_limit(counts: Sequence[int], total: int) -> int:
    """How many points each of the lines may have, so that all of them have about `total`; short ones leave room."""
    limit = MOST_POINTS
    while limit > _LOSSLESS and sum(min(count, limit) for count in counts) > total:
        limit //= 2
    return limit


def _extremes(points: Sequence[Point]) -> Sequence[Point]:
    """The points with the least and the greatest value, in order; two gaps if there is no value."""
    values = [value for _, value in points]
    if math.isfinite(sum(values)):
        low, high = values.index(min(values)), values.index(max(values))
    else:
        finite = [(value, at) for at, value in enumerate(values) if math.isfinite(value)]
        if not finite:
            return [points[0], points[-1]]
        low, high = min(finite)[1], max(finite)[1]
    return [points[low], points[high]] if low <= high else [points[high], points[low]]


def _thin(points: Sequence[Point], width: int) -> Iterator[Point]:
    for at in range(0, len(points), width):
        yield from _extremes(points[at : at + width])


def _encoded(points: Sequence[Point]) -> dict[str, Any]:
    """Steps as differences, which are mostly a digit or two; values as a page shows them."""
    steps = [step for step, _ in points]
    return {
        "steps": [*steps[:1], *(after - before for before, after in pairwise(steps))],
        # A chart cannot tell values that are so small from zero, and a browser may fail at it.
        "values": [
            _short(value if abs(value) > _LEAST else 0) if math.isfinite(value) else None for _, value in points
        ],
    }


def _short(value: float) -> float | int | str:
    """With the 9 digits that tell floats of 32 bits apart; whole numbers as they are."""
    if not math.isfinite(value):
        return _name_of(value)
    if float(value).is_integer() and abs(value) < _LARGEST_WHOLE:
        return int(value)
    return float(f"{value:.9g}")


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"beyond {_LARGEST:g}"


def _step_of(point: Point) -> int:
    return point[0]
