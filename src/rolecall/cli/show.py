"""Draws a job in the terminal: roles, rows, last values, and a chart of each chosen metric."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rolecall.errors import ConfigError
from rolecall.job.history import JobHistory, MetricHistory, WriterHistory, read_history, read_rows
from rolecall.job.status import DeliveryStatus as Progress
from rolecall.job.status import read_deliveries as read_progress
from rolecall.store.layout import Layout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["show", "show_csv", "show_json"]

CHARTS = 4
HEIGHT = 14
CSV_COLUMNS = ("writer", "session", "seq", "step", "time", "key", "value")


def show_json(root: Path, out: TextIO | None = None) -> None:
    """The job's summary as JSON; NaN and infinities as strings, which JSON lacks."""
    job = read_history(root)
    backends = [one.summary() for one in read_progress(Layout(root), job.record.plan)]
    json.dump(_finite({**job.summary(), "backends": backends}), out or sys.stdout, indent=2)
    print(file=out or sys.stdout)


def show_csv(root: Path, out: TextIO | None = None) -> None:
    """Every value of every row, one a line."""
    read_history(root)
    writer = csv.writer(out or sys.stdout)
    writer.writerow(CSV_COLUMNS)
    for row in read_rows(root):
        for key, value in row.metrics.items():
            writer.writerow((row.writer, row.session, row.seq, row.step, repr(row.time), key, repr(value)))


def show(root: Path, patterns: Sequence[str] = ()) -> None:
    """The job as tables and charts. A pattern is a shell's, matched against `{writer}/{key}`.

    Raises:
        ConfigError: a pattern matches no metric.
    """
    job = read_history(root)
    chosen = list(_chosen(job, patterns))
    if patterns and not chosen:
        known = ", ".join(f"{writer.writer}/{key}" for writer in job.writers for key in writer.metrics)
        raise ConfigError(
            f"--metric {' '.join(patterns)}: matches nothing; metrics are {known or 'none yet'}"
        )
    from rich.console import Console

    console = Console()
    _show_job(console, job, root)
    for name, metric in chosen if patterns else chosen[:CHARTS]:
        console.out(_chart(name, metric, min(console.width, 100)), highlight=False)
    if not patterns and len(chosen) > CHARTS:
        console.print(
            f"{len(chosen) - CHARTS} more metrics: choose with --metric 'PATTERN', all with --metric '*'"
        )


def _show_job(console: Console, job: JobHistory, root: Path) -> None:
    from rich.table import Table

    title = f"{job.record.project} / {job.record.name}  run {job.record.run_id}  {job.state}"
    table = Table(
        "writer", "state", "rows", "step", "last row", "metric", "last value", title=title, caption=str(root)
    )
    for writer in job.writers:
        _add_writer(table, writer)
        table.add_section()
    console.print(table)
    if backends := read_progress(Layout(root), job.record.plan):
        console.print(_backends(backends))
    for damage in (damage for writer in job.writers for damage in writer.damages):
        console.print(f"damaged: {damage}", markup=False)


def _backends(backends: Sequence[Progress]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "backend", "writer", "delivered", "waiting", "rejected", "courier", "why rows wait, or where they are"
    )
    for one in backends:
        counts = (str(count) for count in (one.delivered, one.waiting, one.rejected))
        where = (one.run.url or one.run.id) if one.run else ""
        table.add_row(one.backend, one.writer, *counts, one.courier, escape(one.why or where))
    return table


def _add_writer(table: Table, writer: WriterHistory) -> None:
    when = time.strftime("%H:%M:%S", time.localtime(writer.last_time)) if writer.last_time else ""
    head = (writer.writer, writer.state, str(writer.rows))
    if not writer.metrics:
        table.add_row(*head, "", when, "", "")
    for index, (key, metric) in enumerate(sorted(writer.metrics.items())):
        table.add_row(
            *(head if index == 0 else ("", "", "")),
            str(metric.steps[-1]),
            when if index == 0 else "",
            key,
            f"{metric.values[-1]:.6g}",
        )


def _chosen(job: JobHistory, patterns: Sequence[str]) -> Iterator[tuple[str, MetricHistory]]:
    for writer in job.writers:
        for key, metric in sorted(writer.metrics.items()):
            name = f"{writer.writer}/{key}"
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns):
                yield name, metric


def _chart(name: str, metric: MetricHistory, width: int) -> str:
    """A line over the writer's own step; values that are not finite leave a gap."""
    import plotext

    points = [
        (step, value) for step, value in zip(metric.steps, metric.values, strict=True) if math.isfinite(value)
    ]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, HEIGHT)
    plotext.title(name)
    plotext.xlabel("step")
    plotext.plot([step for step, _ in points], [value for _, value in points], marker="braille")
    return str(plotext.uncolorize(plotext.build()))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
