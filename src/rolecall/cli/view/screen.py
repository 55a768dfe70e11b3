"""One job on one screen: what it is, how its roles do, and as many charts as there is room for."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rolecall.cli.view.chart import Curve, draw, number
from rolecall.cli.view.holdings import describe_holdings
from rolecall.cli.view.lines import Line, Look, cells, grid
from rolecall.cli.view.metrics import Metric
from rolecall.cli.view.summary import (
    Job,
    describe_backends,
    describe_details,
    describe_job,
    describe_nodes,
    describe_roles,
    plural,
)
from rolecall.config.commands import command

LEAST_WIDTH: Final = 38
"""Of a chart; two are beside each other on 80 columns."""
LEAST_HEIGHT: Final = 7
"""With the name above the chart and the steps below."""
MOST_HEIGHT: Final = 12
WIDEST: Final = 100
"""All charts of a row together, where nothing has to fit."""
MOST_CHARTS: Final = 6
"""Where nothing has to fit, unless the user names the metrics."""
_GAP: Final = 2
_FEW_RUNS: Final = 2
_FEW_SUMMARIES: Final = 3
_LARGE: Final = 4 * LEAST_HEIGHT
"""Rows below the roles with which a screen has room for tables beside many charts."""
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Screen:
    """What is drawn.

    Attributes:
        lines: from the top.
        charts: how many metrics have a chart.
    """

    lines: list[Line]
    charts: int


def compose(job: Job, metrics: Sequence[Metric], look: Look, *, draw_all: bool = False) -> Screen:
    """A job on `look.height` rows, if they are enough for the least of each part.

    Args:
        job: what is drawn.
        metrics: those to draw, the most important ones first.
        look: the terminal.
        draw_all: whether each metric gets a chart, however long that gets.
    """
    above = _above(job, look)
    below = [line.cut(look.width) for line in describe_holdings(job.history, look)]
    columns, width = columns_of(look, len(metrics))
    rows = -(-len(metrics) // columns)
    if draw_all or look.height is None:
        drawn = metrics if draw_all else metrics[:MOST_CHARTS]
        charts = _charts(drawn, look, MOST_HEIGHT, in_full=True)
        rest = [*_values(metrics[len(drawn) :], look, columns, width), *below, *_hint(job, metrics, drawn, look)]
        return Screen([*above, *charts, *rest], len(drawn))
    room = look.height - rows_of(above, look)
    if (needed := rows * LEAST_HEIGHT + rows_of(below, look)) <= room:
        taller = min((room - needed) // max(1, rows), MOST_HEIGHT - LEAST_HEIGHT)
        return Screen([*above, *_charts(metrics, look, LEAST_HEIGHT + taller), *below], len(metrics))
    kept = _fitting(below, look, room // 3 if room >= _LARGE else 0)
    hint = list(_hint(job, metrics, (), look))
    free = room - rows_of([*kept, *hint], look)
    rows = min(rows, max(1, free // LEAST_HEIGHT))
    drawn, left = metrics[: rows * columns], metrics[rows * columns :]
    free -= rows * LEAST_HEIGHT
    values = list(_values(left, look, columns, width, max(0, free)))
    if not left:
        kept, hint, values = _fitting(below, look, free + rows_of([*kept, *hint], look)), [], []
    return Screen([*above, *_charts(drawn, look, LEAST_HEIGHT), *values, *kept, *hint], len(drawn))


def rows_of(lines: Sequence[Line], look: Look) -> int:
    """How many rows of the screen lines take."""
    return sum(line.rows(look.width) for line in lines)


def columns_of(look: Look, count: int) -> tuple[int, int]:
    """How many of so many charts are beside each other, and how wide each is."""
    width = look.width if look.height is not None else min(look.width, WIDEST)
    columns = max(1, min(count, (width + _GAP) // (LEAST_WIDTH + _GAP)))
    return columns, (width + _GAP) // columns - _GAP


def chart(name: str, value: str, curves: Sequence[Curve], look: Look, width: int, height: int) -> list[Line]:
    """A chart below its name and its last value."""
    title = look.shorten(name, width - cells(value) - _GAP)
    gap = " " * max(1, width - cells(title) - cells(value))
    return [look.line((title, "bold"), gap, (value, "bold cyan")), *draw(curves, width, height - 1, look)]


def _above(job: Job, look: Look) -> list[Line]:
    has_to_fit = look.height is not None
    lines = describe_job(job, look)
    lines += describe_roles(job, look, max(3, look.height // 3) if look.height is not None else None)
    lines += describe_nodes(job, look)
    lines += describe_backends(job, look, _FEW_RUNS if has_to_fit else None)
    lines += describe_details(job, look, _FEW_SUMMARIES if has_to_fit else None)
    for writer in job.history.writers:
        lines += [look.line((f"damaged: {each}", "yellow"), is_whole=True) for each in writer.describe_damages()]
    return [line.cut(look.width) for line in lines]


def _charts(metrics: Sequence[Metric], look: Look, height: int, *, in_full: bool = False) -> list[Line]:
    columns, width = columns_of(look, len(metrics))
    lines: list[Line] = []
    row: list[list[Line]] = []
    for metric in metrics:
        value = number(metric.last())
        if in_full and cells(look.text(metric.name)) + cells(value) + _GAP > width:
            # The name is what `--metric` takes: it is written in full where the screen does not end.
            lines += [*grid(row, width, _GAP), look.line((metric.name, "bold"), is_whole=True)]
            lines += draw(metric.curves(), width, height - 1, look)
            row = []
            continue
        row.append(chart(metric.name, value, metric.curves(), look, width, height))
        if len(row) == columns:
            lines += grid(row, width, _GAP)
            row = []
    return [*lines, *grid(row, width, _GAP)]


def _values(metrics: Sequence[Metric], look: Look, columns: int, width: int, most: int | None = None) -> list[Line]:
    """The last values of metrics without a chart, in at most so many rows."""
    shown = metrics if most is None else metrics[: most * columns]
    lines = [_value(metric, look, width) for metric in shown]
    rows = -(-len(lines) // columns)
    return grid([lines[at : at + rows] for at in range(0, len(lines), max(1, rows))], width, _GAP)


def _value(metric: Metric, look: Look, width: int) -> Line:
    """The name and the last value, and how it got there."""
    value = number(metric.last())
    bars = _bars(next(iter(metric.ranks.values())).values) if look.has_unicode else ""
    name = look.shorten(metric.name, max(len(_BARS), width - cells(value) - cells(bars) - _GAP))
    gap = " " * max(1, width - cells(name) - cells(value) - cells(bars) - 1)
    return look.line(name, gap, (bars, "cyan"), " ", value)


def _bars(values: Sequence[float]) -> str:
    """A history in a few bars."""
    steps = len(_BARS) - 1
    picked = [values[at * (len(values) - 1) // steps] for at in range(steps + 1)] if len(values) > 1 else []
    finite = [value / 2 for value in picked if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    scale = steps / span if span > 0 else 0.0
    return "".join(_BARS[min(steps, int((each / 2 - low) * scale))] if math.isfinite(each) else " " for each in picked)


def _hint(job: Job, metrics: Sequence[Metric], drawn: Sequence[Metric], look: Look) -> Iterator[Line]:
    if len(drawn) < len(metrics):
        all_of_them = command("show", job.root, "--metric", "*")
        yield look.line((f"{plural(len(metrics), 'metric')}; to draw all: ", "dim"), all_of_them, is_whole=True)


def _fitting(lines: Sequence[Line], look: Look, room: int) -> list[Line]:
    """The first lines that take at most so many rows."""
    kept: list[Line] = []
    for line in lines:
        room -= line.rows(look.width)
        if room < 0:
            break
        kept.append(line)
    return kept
