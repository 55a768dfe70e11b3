"""Show what a job logged on one screen, live, or beside another job.

Examples:
  rolecall show runs/grpo-1
  rolecall show runs/grpo-1 --follow
  rolecall show runs/grpo-1 runs/grpo-2
  rolecall show runs/grpo-1 --metric 'explorer/*' --metric trainer/loss
  rolecall show runs/grpo-1 --html grpo-1.html
  rolecall show runs/grpo-1 --csv > values.csv
"""

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

from pydantic_core import to_json

from rolecall.cli.page.build import write_page
from rolecall.cli.view.compare import compare
from rolecall.cli.view.live import follow, read_job
from rolecall.cli.view.metrics import metrics_of
from rolecall.cli.view.screen import compose
from rolecall.cli.view.terminal import look_at_output, write
from rolecall.cli.view.text import visible
from rolecall.errors import ConfigError
from rolecall.job.history import read_rows


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    parser.add_argument("other", type=Path, nargs="?", help="that of another job, to compare the two")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="PATTERN",
        help="draw each metric that matches, such as 'explorer/*'; repeat it for more (default: what fits the screen)",
    )
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII alone")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--follow", action="store_true", help="stay, and draw what is new, until the job has ended")
    html = "write a page with charts, images and tables, which opens in a browser without a network"
    form.add_argument("--html", type=Path, metavar="FILE", help=html)
    form.add_argument("--json", action="store_true", help="print a summary as JSON, for scripts")
    form.add_argument("--csv", action="store_true", help="print every value as CSV, for scripts")


def run(options: argparse.Namespace) -> int:
    """Show a job, or two, in the form that was chosen."""
    form = next((name for name in ("follow", "json", "csv") if getattr(options, name)), None)
    if options.html:
        roots = [options.directory, *([options.other] if options.other else [])]
        size = write_page(roots, options.html, options.metric)
        print(visible(f"{options.html}: {size:,} bytes"))
        return 0
    if form and options.other:
        raise ConfigError(f"--{form}: is for one job; leave out {options.other}")
    match form:
        case "csv":
            _print_csv(options.directory)
        case "json":
            _print_json(options.directory)
        case _ if options.html:
            roots = [options.directory, *([options.other] if options.other else [])]
            size = write_page(roots, options.html, options.metric)
            print(visible(f"{options.html}: {size:,} bytes"))
        case "follow":
            follow(options.directory, options.metric, look_at_output(ascii_only=options.ascii))
        case _:
            _draw(options)
    return 0


def _draw(options: argparse.Namespace) -> None:
    look = look_at_output(ascii_only=options.ascii)
    look = replace(look, height=look.height and look.height - 1)  # a row is left for the prompt
    job = read_job(options.directory)
    if options.other:
        lines = compare((job, read_job(options.other)), options.metric, look)
    else:
        (metrics,) = metrics_of([job.history], options.metric)
        lines = compose(job, metrics, look, draw_all=bool(options.metric)).lines
    write(lines, look)


def _print_json(root: Path) -> None:
    job = read_job(root)
    summary = {**job.history.summary(), "backends": job.backends}
    # Bytes: JSON is UTF-8 whatever the terminal's encoding is.
    sys.stdout.buffer.write(to_json(summary, indent=2, inf_nan_mode="strings") + b"\n")
    sys.stdout.buffer.flush()


def _print_csv(root: Path) -> None:
    rows = read_rows(root)
    writer = csv.writer(sys.stdout)
    writer.writerow(("writer", "session", "seq", "step", "time", "key", "value"))
    for row in rows:
        for key, value in row.metrics.items():
            # `repr`: `str` of a float subclass, or a later Python's, might not read back as the same number
            writer.writerow((row.writer, row.session, row.seq, row.step, repr(row.time), key, repr(value)))
