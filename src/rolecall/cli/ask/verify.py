"""Compare what a job's backends hold with its journals, point by point.

It reads back every run, and lists the points that are missing, extra or different. With --repair it
sends what is missing, and compares again. The exit status is 0 if all is equal, 1 if anything differs,
nothing was delivered or a run is gone, 2 if it cannot start, and 3 if a backend could not be read.

Examples:
  rolecall verify runs/grpo-1
  rolecall verify runs/grpo-1 --backend mlflow --json
  rolecall verify runs/grpo-1 --repair --new-run
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Final

from pydantic_core import to_json

from rolecall.cli.ask.arguments import add_job_options, check_backend, collect_args, print_event
from rolecall.cli.view.text import visible
from rolecall.config.commands import command, with_path
from rolecall.config.spec import JobSpec
from rolecall.delivery.check.compare import RunReport
from rolecall.delivery.check.points import Difference
from rolecall.delivery.check.verify import Comparing, Repair, verify
from rolecall.delivery.redeliver import deliver, open_job
from rolecall.errors import ConfigError
from rolecall.job.output.bar import Progress, bar

_LINES: Final = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_job_options(parser)
    backend = "compare only this backend (default: all of the job's that can be read back)"
    parser.add_argument("--backend", metavar="BACKEND", help=backend)
    parser.add_argument("--repair", action="store_true", help="send what is missing; the job must have ended")
    new_run = "with --repair: send everything to a new run if the old one is gone or takes no points in place"
    parser.add_argument("--new-run", action="store_true", help=new_run)
    parser.add_argument("--json", action="store_true", help="print the reports as JSON, for scripts")


def run(options: argparse.Namespace) -> int:
    """Compare a job, repair it if asked to, and say what differs."""
    if options.new_run and not options.repair:
        raise ConfigError("--new-run: is for --repair; give both")
    if options.backend:
        check_backend("--backend", options.backend)
    directory, args, trust = options.directory, collect_args(options, options.backend), options.trust
    spec = open_job(directory, options.backend, args, trust=trust, option="--backend", delivered=True)

    def send(backend: str, timeout: float) -> None:
        deliver(directory, backend, args, timeout, trust=trust, on_event=print_event)

    repair = Repair(deliver=send, new_run=options.new_run) if options.repair else None
    reports = _verify(spec, options.timeout, repair)
    if options.json:
        found = [{**asdict(report), **asdict(report.total())} for report in reports]
        # Bytes: JSON is UTF-8 whatever the terminal's encoding is.
        sys.stdout.buffer.write(to_json(found, indent=1, inf_nan_mode="strings") + b"\n")
        sys.stdout.buffer.flush()
    else:
        for line in _describe(reports, options):
            print(visible(line))
    states = {report.state for report in reports}
    if "unreadable" in states:
        return 3
    return 1 if states - {"equal"} else 0


def _verify(spec: JobSpec, timeout: float, repair: Repair | None) -> list[RunReport]:
    """The reports; on a terminal, with a bar meanwhile."""
    now = Comparing("", 0, 0)

    def keep(comparing: Comparing) -> None:
        nonlocal now
        now = comparing

    # A repair prints what happens to the backends, and a bar would be drawn over that.
    with bar(lambda: Progress(f"comparing {now.backend}", now.done, now.total)) if repair is None else nullcontext():
        return verify(spec, timeout, repair, keep)


def _describe(reports: Sequence[RunReport], options: argparse.Namespace) -> Iterator[str]:
    if not reports:
        yield "nothing was logged, so there is nothing to compare"
    for report in reports:
        yield from _describe_run(report)
    if any(report.tables for report in reports):
        yield "tables are not compared"
    if any(report.waiting for report in reports):
        yield f"what is not delivered yet was not compared; to send it: {command('deliver', options.directory)}"
    is_stuck = any(report.state == "gone" or (report.total().missing and report.problem) for report in reports)
    again = ("verify", options.directory, *(("--backend", options.backend) if options.backend else ()), "--repair")
    if any(report.total().missing for report in reports) and not options.repair:
        yield f"to send what is missing: {command(*again)}"
    if is_stuck and not options.new_run:
        yield f"to send everything to a new run: {command(*again, '--new-run')}"


def _describe_run(report: RunReport) -> Iterator[str]:
    name = f"{report.backend}: " + ("all roles" if report.shared else report.writers[0])
    done = f", {report.sent} rows were sent again" if report.sent else ""
    done += ", after everything was sent to a new run" if report.new_run else ""
    verdict = {
        "equal": f"equal, {report.points} points" if report.id is not None else "nothing was logged for it",
        "different": f"{report.points} points in the journal, {report.held} in the run",
        "undelivered": "nothing is delivered yet, so there is nothing to compare",
        "gone": f"the run is gone: {report.problem}",
        "unreadable": f"could not be read: {report.problem}",
    }[report.state]
    yield f"{name}: {verdict}{done}"
    if report.state == "different":
        yield from _table(report)
    if report.state == "different" and report.problem:
        yield f"  not repaired: {report.problem}"
    if report.state == "different" and report.url:
        yield f"  {with_path(report.url)}"
    yield from (f"  damaged: {damage}" for damage in report.damages)
    if report.cleaned:
        yield f"  {report.cleaned} rows were removed by `rolecall clean`, so extra points are not listed"
    if report.waiting:
        yield f"  {report.waiting} rows are not delivered yet"


def _table(report: RunReport) -> Iterator[str]:
    """The metrics that differ, and the first points that do."""
    rows = [(key, *map(str, asdict(counts).values())) for key, counts in report.metrics.items()]
    left = len(rows) - _LINES
    if left > 0:
        rows = [*rows[:_LINES], (f"{left} more metrics", "", "", "")]
    rows = [("metric", "missing", "extra", "different"), *rows]
    if len(report.metrics) > 1:
        rows.append(("all", *map(str, asdict(report.total()).values())))
    width = max(len(row[0]) for row in rows)
    for key, *counts in rows:
        yield f"  {key:<{width}}" + "".join(f"{count:>11}" for count in counts)
    yield from (f"  {_describe_point(each)}" for each in report.examples)


def _describe_point(each: Difference) -> str:
    values = {"missing": f"{each.wanted!r} is missing", "extra": f"{each.held!r} is extra"}
    return f"{each.key} at step {each.step}: " + values.get(each.kind, f"{each.held!r} instead of {each.wanted!r}")
