"""Draws a job in the terminal: its writers, their last values, what each backend holds, and charts."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from rolecall.config.commands import command, with_path
from rolecall.errors import ConfigError
from rolecall.job.history import JobHistory, MetricHistory, WriterHistory, read_history
from rolecall.job.status import DeliveryStatus, read_deliveries
from rolecall.states import State
from rolecall.store.layout import Layout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CHARTS = 4
"""How many metrics are drawn if none is chosen."""
HEIGHT = 14
WIDEST_CHART = 100
UNBOUNDED = 10_000
"""The width of a file or a pipe, in which nothing has to be folded."""
_ASCII_FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")


def show(root: Path, patterns: Sequence[str] = ()) -> None:
    """Draw a job as tables and charts.

    Args:
        root: its `monitor_dir`.
        patterns: which metrics to chart, as a shell's patterns that are matched against `{writer}/{key}`.

    Raises:
        DirectoryError: no job was launched there.
        ConfigError: no metric matches the patterns.
    """
    job = read_history(root)
    chosen = list(_choose(job, patterns))
    if patterns and not chosen:
        known = ", ".join(f"{writer.writer}/{key}" for writer in job.writers for key in writer.metrics)
        raise ConfigError(f"--metric {' '.join(patterns)}: no metric matches; the metrics are {known or 'none yet'}")
    from rich.console import Console

    # Names, keys and paths are the user's: `[red]` in one is no markup and `:cat:` no picture.
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(markup=False, highlight=False, emoji=False, width=None if has_width else UNBOUNDED)
    _draw_writers(console, job, root)
    if backends := read_deliveries(Layout(root), job.record.plan):
        _draw_backends(console, backends, root)
    for damage in (damage for writer in job.writers for damage in writer.damages):
        _line(console, f"damaged: {damage}")
    for name, metric in chosen if patterns else chosen[:CHARTS]:
        chart = _chart(name, metric, min(console.width, WIDEST_CHART), console.options.ascii_only)
        console.out(chart, highlight=False)
    if not patterns and len(chosen) > CHARTS:
        rest = len(chosen) - CHARTS
        _line(console, f"{rest} more metrics: {command('show', root, '--metric', '*')}")


def _line(console: Console, text: str) -> None:
    """Print a line that may hold a path or a command: neither is cut or folded, so that it can be copied."""
    console.print(text, soft_wrap=True)


def _draw_writers(console: Console, job: JobHistory, root: Path) -> None:
    # Not the table's title, which would be folded to the table's width.
    _line(console, f"{job.record.project} / {job.record.name}  run {job.record.run_id}  {job.state}")
    _line(console, str(root))
    table = _table("writer", "state", "rows", "step", "last row", "metric", "last value")
    for writer in job.writers:
        _add_writer(table, writer)
        table.add_section()
    console.print(table)


def _draw_backends(console: Console, backends: Sequence[DeliveryStatus], root: Path) -> None:
    table = _table("backend", "writer", "delivered", "waiting", "rejected", "courier")
    for status in backends:
        counts = (str(count) for count in (status.delivered, status.waiting, status.rejected))
        table.add_row(status.backend, status.writer, *counts, status.courier)
    console.print(table)
    # One run is one line, though several writers share it.
    for line in dict.fromkeys(
        f"{status.backend}: {with_path(status.run.url or status.run.id)}" for status in backends if status.run
    ):
        _line(console, line)
    for line in dict.fromkeys(
        f"{status.backend}: rows of {status.writer} are waiting: {status.why}" for status in backends if status.why
    ):
        _line(console, line)
    # A live courier sends them by itself.
    if any(status.waiting and status.courier is not State.RUNNING for status in backends):
        _line(console, f"to send what is waiting: {command('deliver', root)}")


def _table(*headers: str) -> Table:
    from rich.table import Column, Table

    # the default cuts a long word and puts an ellipsis in its place
    return Table(*(Column(header, overflow="fold") for header in headers))


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


def _choose(job: JobHistory, patterns: Sequence[str]) -> Iterator[tuple[str, MetricHistory]]:
    for writer in job.writers:
        for key, metric in sorted(writer.metrics.items()):
            name = f"{writer.writer}/{key}"
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns):
                yield name, metric


def _chart(name: str, metric: MetricHistory, width: int, ascii_only: bool) -> str:
    """A line over the writer's own step. Values that are not finite leave a gap."""
    import plotext

    points = [(step, value) for step, value in zip(metric.steps, metric.values, strict=True) if math.isfinite(value)]
    plotext.clear_figure()  # plotext draws on one figure of the whole process
    plotext.theme("clear")
    plotext.plotsize(width, HEIGHT)
    plotext.title(name)
    plotext.xlabel("step")
    marker = "*" if ascii_only else "braille"
    plotext.plot([step for step, _ in points], [value for _, value in points], marker=marker)
    chart = str(plotext.uncolorize(plotext.build()))
    return chart.translate(_ASCII_FRAME) if ascii_only else chart
