"""Two jobs beside each other: their metrics, overlaid and in numbers, and how their configs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rolecall.cli.view.chart import number
from rolecall.cli.view.lines import SERIES, Line, Look, cells, grid
from rolecall.cli.view.metrics import Metric, mean, metrics_of
from rolecall.cli.view.screen import LEAST_HEIGHT, MOST_HEIGHT, chart, columns_of, rows_of
from rolecall.cli.view.summary import Job, describe_job, plural
from rolecall.config.commands import command
from rolecall.job.history import read_configs

_LABELS: Final = ("A", "B")
_HEADS: Final = ("last", "best", "mean")
_WIDEST_VALUE: Final = 40

Pair = tuple[Metric | None, Metric | None]


def compare(jobs: tuple[Job, Job], patterns: Sequence[str], look: Look) -> list[Line]:
    """The lines of a comparison; on a terminal they fit the screen, unless the user names the metrics.

    Raises:
        ConfigError: no metric matches a pattern.
    """
    pairs = _pairs(jobs, patterns)
    above = [line.cut(look.width) for line in (*_describe(jobs, look), *_differences(jobs, look))]
    columns, _ = columns_of(look, len(pairs))
    table = _table(pairs, look)
    if look.height is None or patterns:
        charts = _charts(pairs if patterns else pairs[:columns], look, MOST_HEIGHT)
        return [*above, *table, *charts]
    free = look.height - rows_of(above, look)
    height = max(LEAST_HEIGHT, min(MOST_HEIGHT, free - len(table)))
    charts = _charts(pairs[:columns], look, height)
    free -= len(charts)
    if len(table) > free:
        all_of_them = command("show", *(job.root for job in jobs), "--metric", "*")
        hint = look.line((f"{plural(len(pairs), 'metric')}; to see all: ", "dim"), all_of_them, is_whole=True)
        table = [*table[: max(1, free - hint.rows(look.width))], hint]
    return [*above, *charts, *table]


def _pairs(jobs: tuple[Job, Job], patterns: Sequence[str]) -> list[Pair]:
    first, second = (
        {(metric.role, metric.key): metric for metric in metrics}
        for metrics in metrics_of([job.history for job in jobs], patterns)
    )
    return [(first.get(name), second.get(name)) for name in {**first, **second}]


def _describe(jobs: tuple[Job, Job], look: Look) -> Iterator[Line]:
    for job, label, style in zip(jobs, _LABELS, SERIES, strict=False):
        mark = look.line((f"{label}  ", f"bold {style}"))
        for line in describe_job(job, replace(look, width=look.width - mark.width)):
            yield mark + line


def _differences(jobs: tuple[Job, Job], look: Look) -> Iterator[Line]:
    """A line for each value of the config that is not the same."""
    first, second = (dict(_flat(read_configs(job.root))) for job in jobs)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if not names:
        yield look.line(("the configs are equal" if first else "no config", "dim"))
        return
    rows = [
        (
            look.shorten(name, _WIDEST_VALUE),
            *(look.shorten(each.get(name, "-"), _WIDEST_VALUE) for each in (first, second)),
        )
        for name in names
    ]
    yield from _columns([("config", *_LABELS), *rows], look, "<")


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, each in value.items():
        key = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(each, dict) and each:
            yield from _flat(each, key)
        else:
            yield key, json.dumps(each, ensure_ascii=False, sort_keys=True)


def _table(pairs: Sequence[Pair], look: Look) -> list[Line]:
    heads = [f"{word} {label}" for word in _HEADS for label in _LABELS]
    rows = [("metric", *heads)]
    for pair in pairs:
        numbers = [_numbers(metric) if metric else ("-",) * len(_HEADS) for metric in pair]
        rows.append((_name(pair), *(each[at] for at in range(len(_HEADS)) for each in numbers)))
    room = max(20, look.width - sum(max(map(len, column)) + 2 for column in list(zip(*rows, strict=True))[1:]))
    return list(_columns([(look.shorten(row[0], room), *row[1:]) for row in rows], look, ">"))


def _numbers(metric: Metric) -> tuple[str, ...]:
    found = metric.statistics()
    is_loss = "loss" in metric.key.lower() or "error" in metric.key.lower()
    ends = [each.low if is_loss else each.high for each in found]
    finite = [each for each in ends if each is not None]
    best = (min if is_loss else max)(finite, default=None)
    means = [each.mean for each in found if each.mean is not None]
    return tuple(
        "-" if each is None else number(each) for each in (metric.last(), best, mean(means) if means else None)
    )


def _columns(rows: Sequence[Sequence[str]], look: Look, align: str) -> Iterator[Line]:
    """Cells below each other: the first row is the head, and the columns of the jobs have their colours."""
    widths = [max(cells(look.text(row[at])) for row in rows) for at in range(len(rows[0]))]
    for nth, row in enumerate(rows):
        line = Line()
        for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
            style = SERIES[(at - 1) % len(_LABELS)] if at else ""
            blank = " " * (width - cells(look.text(cell)))
            before, after = (blank, "") if align == ">" and at else ("", blank)
            line += look.line(before, (cell, f"{'bold' if nth == 0 else ''} {style}".strip()), after, "  ")
        yield line.cut(look.width)


def _charts(pairs: Sequence[Pair], look: Look, height: int) -> list[Line]:
    columns, width = columns_of(look, len(pairs))
    blocks = []
    for pair in pairs:
        known = [(metric, label) for metric, label in zip(pair, _LABELS, strict=True) if metric is not None]
        curves = [metric.mean_curve(label) for metric, label in known]
        value = " ".join(number(metric.last()) for metric, _ in known)
        blocks.append(chart(_name(pair), value, curves, look, width, height))
    rows = (blocks[at : at + columns] for at in range(0, len(blocks), columns))
    return [line for row in rows for line in grid(row, width, 2)]


def _name(pair: Pair) -> str:
    names = [metric.name for metric in pair if metric is not None]
    role = next(metric.role for metric in pair if metric is not None)
    key = next(metric.key for metric in pair if metric is not None)
    return names[0] if len(set(names)) == 1 else f"{role}/*/{key}"
