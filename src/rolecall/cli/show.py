"""`rolecall show`: what a job logged, as tables and charts, JSON or CSV."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from rolecall.cli.options import add_directory, check_directory
from rolecall.cli.output import without_nan
from rolecall.cli.view.screen import show
from rolecall.job.history import read_history, read_rows
from rolecall.job.status import read_deliveries
from rolecall.store.layout import Layout

HELP = "show what a job logged, as tables and charts"
EXAMPLES = """\
examples:
  rolecall show runs/grpo-1
  rolecall show runs/grpo-1 --metric 'explorer/*' --metric trainer/loss
  rolecall show runs/grpo-1 --csv > values.csv
"""
CSV_COLUMNS = ("writer", "session", "seq", "step", "time", "key", "value")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_directory(parser)
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="PATTERN",
        help="chart the metrics that match, such as 'explorer/*'; repeat it for more (default: the first four)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a summary as JSON, for scripts")
    form.add_argument("--csv", action="store_true", help="print every value as CSV, for scripts")


def run(options: argparse.Namespace) -> int:
    """Show a job in the form that was chosen."""
    if options.json:
        show_json(options.directory)
    elif options.csv:
        show_csv(options.directory)
    else:
        show(options.directory, options.metric)
    return 0


def show_json(root: Path, out: TextIO | None = None) -> None:
    """Print the job's summary as JSON, with NaN and infinities as strings."""
    job = read_history(root)
    backends = [asdict(status) for status in read_deliveries(Layout(root), job.record.plan)]
    json.dump(without_nan({**job.summary(), "backends": backends}), out or sys.stdout, indent=2)
    print(file=out or sys.stdout)


def show_csv(root: Path, out: TextIO | None = None) -> None:
    """Print every value of every row, one a line."""
    check_directory(root)
    writer = csv.writer(out or sys.stdout)
    writer.writerow(CSV_COLUMNS)
    for row in read_rows(root):
        for key, value in row.metrics.items():
            # `repr`: `str` of a float subclass, or a later Python's, might not read back as the same number
            writer.writerow((row.writer, row.session, row.seq, row.step, repr(row.time), key, repr(value)))
