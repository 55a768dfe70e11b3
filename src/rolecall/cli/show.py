"""Show what a job logged, as tables and charts.

Examples:
  rolecall show runs/grpo-1
  rolecall show runs/grpo-1 --metric 'explorer/*' --metric trainer/loss
  rolecall show runs/grpo-1 --html grpo-1.html
  rolecall show runs/grpo-1 --csv > values.csv
"""

from __future__ import annotations  # rich is imported when it draws, and not for its types

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import to_json

from rolecall.cli.page.build import write_page
from rolecall.cli.text import visible
from rolecall.config.commands import command, with_path
from rolecall.errors import ConfigError
from rolecall.job.history import JobHistory, MetricHistory, read_history, read_rows
from rolecall.job.status import DeliveryStatus, read_deliveries, unended
from rolecall.states import State
from rolecall.store.layout import Layout

if TYPE_CHECKING:
    from rich.table import Table

CHARTS = 4
"""How many metrics are drawn if none is chosen."""
HEIGHT = 14
WIDEST_CHART = 100
_LARGEST_DRAWN = 1e290
UNBOUNDED = 10_000
"""The width of a file or a pipe, in which nothing has to be folded."""
_ASCII_FRAME = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="PATTERN",
        help="chart the metrics that match, such as 'explorer/*'; repeat it for more (default: the first four)",
    )
    form = parser.add_mutually_exclusive_group()
    html = "write a page with charts, images and tables, which opens in a browser without a network"
    form.add_argument("--html", type=Path, metavar="FILE", help=html)
    form.add_argument("--json", action="store_true", help="print a summary as JSON, for scripts")
    form.add_argument("--csv", action="store_true", help="print every value as CSV, for scripts")


def run(options: argparse.Namespace) -> int:
    """Show a job in the form that was chosen."""
    root: Path = options.directory
    if options.csv:
        _print_csv(root)
        return 0
    if options.html:
        size = write_page([root], options.html, options.metric)
        print(visible(f"{options.html}: {size:,} bytes"))
        return 0
    job = read_history(root)
    backends = read_deliveries(Layout(root), job.record.plan)
    if options.json:
        # Bytes: JSON is UTF-8 whatever the terminal's encoding is.
        summary = {**job.summary(), "backends": backends}
        sys.stdout.buffer.write(to_json(summary, indent=2, inf_nan_mode="strings") + b"\n")
        sys.stdout.buffer.flush()
    else:
        _draw(job, backends, root, options.metric)
    return 0


def _print_csv(root: Path) -> None:
    rows = read_rows(root)
    writer = csv.writer(sys.stdout)
    writer.writerow(("writer", "session", "seq", "step", "time", "key", "value"))
    for row in rows:
        for key, value in row.metrics.items():
            # `repr`: `str` of a float subclass, or a later Python's, might not read back as the same number
            writer.writerow((row.writer, row.session, row.seq, row.step, repr(row.time), key, repr(value)))


def _draw(job: JobHistory, backends: Sequence[DeliveryStatus], root: Path, patterns: Sequence[str]) -> None:
    """Draw a job as tables, and charts of the metrics whose `{writer}/{key}` matches one of the patterns."""
    metrics = {f"{each.writer}/{key}": each.metrics[key] for each in job.writers for key in sorted(each.metrics)}
    chosen = [name for name in metrics if any(fnmatchcase(name, pattern) for pattern in patterns or ("*",))]
    if patterns and not chosen:
        known = ", ".join(metrics) or "none yet"
        raise ConfigError(f"--metric {' '.join(patterns)}: no metric matches; the metrics are {known}")
    from rich.console import Console

    # Names, keys and paths are the user's: `[red]` in one is no markup and `:cat:` no picture.
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(markup=False, highlight=False, emoji=False, width=None if has_width else UNBOUNDED)
    width, ascii_only = min(console.width, WIDEST_CHART), console.options.ascii_only
    drawn = chosen if patterns else chosen[:CHARTS]
    parts: list[str | Table] = [
        *_describe_writers(job, root),
        *(_describe_backends(backends, unended(Layout(root), job.record.plan), root) if backends else ()),
        *(f"damaged: {visible(damage)}" for writer in job.writers for damage in writer.describe_damages()),
        *(part for name in drawn for part in _chart(name, metrics[name], width, ascii_only)),
    ]
    if rest := len(chosen) - len(drawn):
        parts.append(f"{rest} more metrics: {command('show', root, '--metric', '*')}")
    for part in parts:
        # A line that may hold a path or a command is neither cut nor folded, so that it can be copied.
        console.print(part, soft_wrap=isinstance(part, str))


def _describe_writers(job: JobHistory, root: Path) -> Iterator[str | Table]:
    # Not the table's title, which would be folded to the table's width.
    yield visible(f"{job.record.project} / {job.record.name}  run {job.record.run_id}  {job.state}")
    yield visible(str(root))
    table = _table("writer", "state", "rows", "step", "last row", "metric", "last value")
    for writer in job.writers:
        values = [
            (visible(key), str(each.steps[-1]), _number(each.values[-1]))
            for key, each in sorted(writer.metrics.items())
        ]
        rows = f"{writer.rows}, {writer.cleaned} cleaned" if writer.cleaned else str(writer.rows)
        head = (writer.writer, str(writer.state), rows, _clock(writer.last_time))
        for key, step, value in values or [("", "", "")]:
            name, state, count, last = head
            table.add_row(name, state, count, step, last, key, value)
            head = ("", "", "", "")  # is said once for each writer
        table.add_section()
    yield table


def _describe_backends(backends: Sequence[DeliveryStatus], unended: Sequence[str], root: Path) -> Iterator[str | Table]:
    table = _table("backend", "writer", "delivered", "waiting", "rejected", "courier")
    for status in backends:
        counts = (str(count) for count in (status.delivered, status.waiting, status.rejected))
        table.add_row(status.backend, status.writer, *counts, status.courier)
    yield table
    runs = [f"{each.backend}: {with_path(each.run.url or each.run.id)}" for each in backends if each.run]
    reasons = [f"{each.backend}: rows of {each.writer} are waiting: {each.why}" for each in backends if each.why]
    # One run is one line, though several writers share it.
    yield from dict.fromkeys(map(visible, runs + reasons))
    # A live courier sends them by itself.
    if any(status.waiting and status.courier is not State.RUNNING for status in backends):
        yield f"to send what is waiting: {command('deliver', root)}"
    elif unended and not any(status.courier is State.RUNNING for status in backends):
        yield f"{', '.join(unended)}: the run has not ended; to end it: {command('deliver', root)}"


def _table(*headers: str) -> Table:
    from rich.table import Column, Table

    # the default cuts a long word and puts an ellipsis in its place
    return Table(*(Column(header, overflow="fold") for header in headers))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _clock(seconds: float | None) -> str:
    """The time of day; the number itself if it is none that a calendar has."""
    try:
        return "" if seconds is None else time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


def _chart(name: str, metric: MetricHistory, width: int, ascii_only: bool) -> Iterator[str]:
    """A line over the writer's own step, below its name. Values that are not finite leave a gap."""
    import plotext

    points = [(step, value) for step, value in zip(metric.steps, metric.values, strict=True) if math.isfinite(value)]
    # plotext (5.3) computes with the range, which a float cannot hold if values are as large or as small as it can.
    largest = max((abs(value) for _, value in points), default=0.0)
    unit = 1e300 if largest > _LARGEST_DRAWN else 1e-300 if 0 < largest < 1 / _LARGEST_DRAWN else 1.0
    points = [(step, value / unit) for step, value in points]
    # plotext leaves out a title that is wider than the chart
    yield visible(name) if unit == 1 else f"{visible(name)} (in units of {unit:g})"
    plotext.clear_figure()  # plotext draws on one figure of the whole process
    plotext.theme("clear")
    plotext.plotsize(width, HEIGHT)
    plotext.xlabel("step")
    marker = "*" if ascii_only else "braille"
    plotext.plot([step for step, _ in points], [value for _, value in points], marker=marker)
    chart = str(plotext.uncolorize(plotext.build()))
    yield chart.translate(_ASCII_FRAME) if ascii_only else chart
