"""A chart of curves over steps, drawn in dots of Braille, or in characters of ASCII."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from operator import itemgetter, or_
from typing import Final

from rolecall.cli.view.lines import SERIES, Line, Look, Span, cells

MOST_CURVES: Final = len(SERIES)
"""Of more labels, all curves are drawn in one style, with their mean above them."""
_MARKS: Final = "*+ox#@"
"""Of the curves in ASCII."""
_BRAILLE: Final = 0x2800
_LEFT, _RIGHT = (
    tuple(sum(bit for at, bit in enumerate(bits) if rows >> at & 1) for rows in range(16))
    for bits in ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
)
"""The dots of a character of Braille, by the four bits of a column of it."""
_LARGEST: Final = 1e300
_LEAST_GAP: Final = 3
_WITH_MIDDLE: Final = 5
_THOUSAND: Final = 999.5
_MILLION: Final = 1e6

Dots = tuple[list[int], list[int]]
"""Columns and rows."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn as one line. Values that are not finite leave a gap.

    Attributes:
        label: what the legend says; curves with the same label are drawn alike.
        steps: the steps of its points, in the order in which they are connected.
        values: their values.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The range of what is drawn."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "_Bounds | None":
        """The bounds of curves that have points; `None` if no value is finite."""
        found = [_finite(curve.values) for curve in curves]
        finite = [pick(values) for values in found if values for pick in (min, max)]
        if not finite:
            return None
        first, last = min(min(curve.steps) for curve in curves), max(max(curve.steps) for curve in curves)
        return cls(first, last, min(finite), max(finite))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a step and a value are among the dots.

    Attributes:
        first: the step of the first column.
        low: the value at the bottom, in `unit`.
        unit: what values are multiplied with.
        across: columns for each step.
        up: rows for each value.
        bottom: the row of `low`.
    """

    first: int
    low: float
    unit: float
    across: float
    up: float
    bottom: int

    @classmethod
    def of(cls, bounds: _Bounds, columns: int, rows: int) -> "_Scale":
        """The scale that shows all points in so many dots."""
        largest = max(abs(bounds.low), abs(bounds.high))
        # A float cannot hold the range of the largest ones, nor the inverse of that of the smallest.
        unit = 1e-10 if largest > _LARGEST else 1e300 if 0 < largest < 1 / _LARGEST else 1.0
        span, height = bounds.last - bounds.first, bounds.high * unit - bounds.low * unit
        return cls(
            first=bounds.first,
            low=bounds.low * unit,
            unit=unit,
            across=(columns - 1) / span if span else 0.0,
            up=(rows - 1) / height if height else 0.0,
            # What does not change is in the middle.
            bottom=rows - 1 if height else rows // 2,
        )

    def dots(self, curve: Curve) -> Iterator[Dots]:
        """The columns and rows of each piece of a curve without a gap."""
        try:
            yield self._dots(curve.steps, curve.values)
        except (ValueError, OverflowError):  # `int` of a value that is not finite: rare, so it is not looked for before
            piece: list[int] = []
            for at in range(len(curve.values) + 1):
                if at < len(curve.values) and math.isfinite(curve.values[at]):
                    piece.append(at)
                elif piece:
                    yield self._dots([curve.steps[i] for i in piece], [curve.values[i] for i in piece])
                    piece = []

    def _dots(self, steps: Sequence[int], values: Sequence[float]) -> Dots:
        first, across, low, up, bottom, unit = self.first, self.across, self.low, self.up, self.bottom, self.unit
        return (
            [int((step - first) * across + 0.5) for step in steps],
            [bottom - int((value * unit - low) * up + 0.5) for value in values],
        )


class _Layer:
    """What is drawn in one style: for each column of dots an integer with a bit for each row, from the top."""

    def __init__(self, columns: int, *, is_braille: bool) -> None:
        self.columns = [0] * columns
        self._is_braille = is_braille

    def draw(self, dots: Dots) -> None:
        """Connect dots with lines."""
        columns, before_x, before_y = self.columns, -1, 0
        if len(dots[0]) == 1 and self._is_braille:
            columns[dots[0][0] ^ 1] |= 1 << dots[1][0]  # the one beside it: a dot alone is hardly seen
        for x, y in zip(*dots, strict=True):
            if x - before_x not in (-1, 0, 1) and before_x >= 0:
                # Up to the column beside this one.
                side = 1 if x > before_x else -1
                slope = (y - before_y) / (x - before_x)
                for between in range(before_x + side, x, side):
                    to_y = int(y - slope * (x - between) + 0.5)
                    self._run(between, before_y, to_y)
                    before_y = to_y
            if before_x < 0 or y == before_y:
                columns[x] |= 1 << y
            else:
                self._run(x, before_y, y)
            before_x, before_y = x, y

    def _run(self, x: int, from_y: int, to_y: int) -> None:
        """A vertical line that ends at `to_y` and begins beside `from_y`, where the last one has ended."""
        top, end = (from_y + 1, to_y) if from_y < to_y else (to_y, max(to_y, from_y - 1))
        self.columns[x] |= ((2 << (end - top)) - 1) << top

    def leave_out(self, other: "_Layer") -> None:
        """Make room for another layer: no dot of this one is within three rows of it."""
        for x, column in enumerate(other.columns):
            near = column | column << 1 | column << 2 | column << 3 | column >> 1 | column >> 2 | column >> 3
            for side in (x, x ^ 1) if self._is_braille else (x,):
                self.columns[side] &= ~near

    def cells(self, row: int) -> list[int]:
        """The characters of a row: the number of one of Braille, or whether there is any."""
        if not self._is_braille:
            return [column >> row & 1 for column in self.columns]
        shift = row * 4
        return [
            _LEFT[left >> shift & 15] | _RIGHT[right >> shift & 15]
            for left, right in zip(self.columns[::2], self.columns[1::2], strict=True)
        ]


def draw(curves: Sequence[Curve], width: int, height: int, look: Look) -> list[Line]:
    """A chart of so many lines: the curves with the range of their values, and the steps below."""
    curves = [curve for curve in curves if curve.steps]
    bounds = _Bounds.of(curves)
    if bounds is None:
        return [look.line(("no finite value", "dim")), *(Line() for _ in range(height - 1))]
    labels = _labels(bounds, height - 1)
    left = max(map(len, labels.values()))
    plot_width, plot_height = max(1, width - left - 1), height - 1
    columns, rows = (2 * plot_width, 4 * plot_height) if look.has_unicode else (plot_width, plot_height)
    layers, marks = _plot(
        _Scale.of(bounds, columns, rows), curves, partial(_Layer, columns, is_braille=look.has_unicode)
    )
    bar, tick = ("│", "┤") if look.has_unicode else ("|", "+")
    lines = []
    for row in range(plot_height):
        label = Span(labels.get(row, "").rjust(left) + (tick if row in labels else bar), "dim")
        lines.append(Line((label, *_spans(layers, marks, row, is_braille=look.has_unicode))))
    legend = _legend(curves, marks, look)
    steps = _steps(bounds, plot_width, legend)
    return [*lines, Line((Span(" " * (left + 1)), *steps.spans))]


def number(value: float) -> str:
    """A value for people; a whole number that was logged as one has all of its digits."""
    return str(value) if isinstance(value, int) else _digits(value, 4)


def _finite(values: Sequence[float]) -> Sequence[float]:
    """Those that are finite; most often all are, which their sum shows soonest."""
    return values if math.isfinite(sum(values)) else [value for value in values if math.isfinite(value)]


def _plot(
    scale: _Scale, curves: Sequence[Curve], layer: Callable[[], _Layer]
) -> tuple[list[_Layer], list[tuple[str, str]]]:
    """The layers of a chart, the lowest first, with the mark in ASCII and the style of each."""
    labels = list(dict.fromkeys(curve.label for curve in curves))
    if len(labels) <= MOST_CURVES:
        layers = {label: layer() for label in labels}
        for curve in curves:
            for dots in scale.dots(curve):
                layers[curve.label].draw(dots)
        return list(layers.values()), list(zip(_MARKS, SERIES, strict=True))
    cloud, mean = layer(), layer()
    sums, counts = [0] * len(cloud.columns), [0] * len(cloud.columns)
    for curve in curves:
        for dots in scale.dots(curve):
            if len(dots[0]) < len(cloud.columns):
                cloud.draw(dots)
            for x, y in zip(*dots, strict=True):
                cloud.columns[x] |= 1 << y
                sums[x] += y
                counts[x] += 1
    known = [x for x, count in enumerate(counts) if count]
    mean.draw((known, [round(sums[x] / counts[x]) for x in known]))
    cloud.leave_out(mean)
    return [cloud, mean], [(".", "dim"), ("*", "bold cyan")]


def _spans(layers: Sequence[_Layer], marks: Sequence[tuple[str, str]], row: int, *, is_braille: bool) -> Iterator[Span]:
    """A row of a chart. A character that several curves meet in has the dots of all, in the style of the last one."""
    found = [layer.cells(row) for layer in layers]
    pieces = []
    for cell in zip(*found, strict=True):
        top = next((at for at in reversed(range(len(cell))) if cell[at]), None)
        mark, style = marks[top] if top is not None else (" ", "")
        char = chr(_BRAILLE + reduce(or_, cell)) if top is not None and is_braille else mark
        pieces.append((char, style))
    for style, group in groupby(pieces, key=itemgetter(1)):
        yield Span("".join(char for char, _ in group), style)


def _labels(bounds: _Bounds, rows: int) -> dict[int, str]:
    """The label of each row that has one."""
    if bounds.low == bounds.high:
        return {rows // 2: _digits(bounds.low, 3)}
    found = {0: _digits(bounds.high, 3), rows - 1: _digits(bounds.low, 3)}
    if rows >= _WITH_MIDDLE and rows % 2:
        found[rows // 2] = _digits(bounds.low / 2 + bounds.high / 2, 3)
    return found


def _digits(value: float, digits: int) -> str:
    """A value in so many digits, or in more where that is shorter than an exponent."""
    # Just below a thousand, three digits would be rounded to 1e+03.
    return f"{value:.0f}" if _THOUSAND <= abs(value) < _MILLION else f"{float(value):.{digits}g}"


def _legend(curves: Sequence[Curve], marks: Sequence[tuple[str, str]], look: Look) -> Line:
    labels = list(dict.fromkeys(curve.label for curve in curves))
    if not 1 < len(labels) <= MOST_CURVES or (look.has_unicode and not look.has_colour):
        return Line()  # nothing to tell apart, or no means to
    legend = Line()
    for label, (mark, style) in zip(labels, marks, strict=False):
        legend += look.line(" " if legend.spans else "", (label if look.has_unicode else mark + label, style))
    return legend


def _steps(bounds: _Bounds, width: int, legend: Line) -> Line:
    """The first and the last step below their places, and between them the legend, or round steps if there is none."""
    first, last = str(bounds.first), str(bounds.last)
    if bounds.first == bounds.last:
        last = ""
    room = width - len(first) - len(last)
    if room < 1:
        return Line((Span(last[:width], "dim"),))
    if legend.spans and legend.width + 2 * _LEAST_GAP < room:
        before = (room - legend.width) // 2
        after = room - legend.width - before
        return Line((Span(first + " " * before, "dim"), *legend.spans, Span(" " * after + last, "dim")))
    text = list(first + " " * room + last)
    for step in _round_steps(bounds, width):
        label = str(step)
        at = int((step - bounds.first) * (width - 1) / (bounds.last - bounds.first)) - len(label) // 2
        # only where nothing is near
        if at >= len(first) + _LEAST_GAP and at + len(label) + _LEAST_GAP <= width - len(last):
            text[at : at + len(label)] = label
    return Line((Span("".join(text), "dim"),))


def _round_steps(bounds: _Bounds, width: int) -> Iterator[int]:
    """Multiples of 1, 2 or 5 times a power of ten, far enough from each other for their labels."""
    span = bounds.last - bounds.first
    if not span:
        return
    widest = max(cells(str(bounds.first)), cells(str(bounds.last))) + _LEAST_GAP
    least = max(1, math.ceil(span * widest / width))
    power = 10 ** (len(str(least)) - 1)
    each = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    yield from range((bounds.first // each + 1) * each, bounds.last, each)
