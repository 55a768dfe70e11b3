"""List the jobs below a directory, a line for each.

Examples:
  rolecall ls runs
  rolecall ls --json | jq -r '.[] | select(.state == "killed") | .directory'
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from rolecall.cli.view.lines import Line, Look
from rolecall.cli.view.summary import STYLES
from rolecall.cli.view.terminal import look_at_output, write
from rolecall.cli.view.text import visible
from rolecall.errors import DirectoryError, describe_os_error
from rolecall.job.history import job_state
from rolecall.states import State
from rolecall.store.acks import logged
from rolecall.store.layout import Layout, job_record

DEEPEST: Final = 8
"""How far below the directory jobs are looked for."""
MOST_FOLDERS: Final = 20_000
"""How many directories are looked into: somebody may give `/`."""
_HEADS: Final = ("job", "state", "started", "roles", "rows", "backends", "directory")


@dataclass(frozen=True, slots=True)
class Found:
    """A job, as its directory shows it without reading its rows."""

    directory: str
    project: str
    name: str
    state: State
    started: float
    roles: list[str]
    rows: int
    backends: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("directory", type=Path, nargs="?", default=Path(), help="where to look (default: here)")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.add_argument("--ascii", action="store_true", help="print ASCII alone")


def run(options: argparse.Namespace) -> int:
    """Print each job that is there, the newest last."""
    search = _Search(options.directory)
    jobs = sorted(
        (found for root in search.roots() if (found := search.read(root))),
        key=lambda each: (each.started, each.directory),
    )
    if options.json:
        sys.stdout.buffer.write(to_json([asdict(each) for each in jobs], indent=2) + b"\n")
        sys.stdout.buffer.flush()
    else:
        look = look_at_output(ascii_only=options.ascii)
        write(_lines(jobs, look) if jobs else [look.line(f"no job is in {options.directory}")], look)
    for problem in search.problems:
        print(visible(f"rolecall: {problem}"), file=sys.stderr)
    return 0


class _Search:
    """Looks for jobs below a directory; follows no symlink.

    Attributes:
        problems: what could not be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.problems: list[str] = []

    def roots(self) -> Iterator[Path]:
        """The `monitor_dir` of each job.

        Raises:
            DirectoryError: the directory itself cannot be read.
        """
        waiting, looked = [(self._directory, 0)], 0
        while waiting:
            folder, depth = waiting.pop()
            looked += 1
            if looked > MOST_FOLDERS:
                self.problems.append(f"{self._directory}: has more than {MOST_FOLDERS:,} directories; name one of them")
                return
            try:
                with os.scandir(folder) as entries:
                    found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            except OSError as error:
                if depth == 0:
                    what = f"{folder}: cannot be read: {error.strerror}; give a directory with jobs below it"
                    raise DirectoryError(what) from error
                self.problems.append(describe_os_error(error))
                continue
            if "run.json" in found and found.get("journal", True):
                yield folder
                # Nothing else is in a job's directory but its earlier jobs.
                found = {name: is_folder for name, is_folder in found.items() if name == "previous"}
            if depth < DEEPEST:
                waiting += [(folder / name, depth + 1) for name, is_folder in found.items() if is_folder]

    def read(self, root: Path) -> Found | None:
        """What is in the directory of a job; `None` if it cannot be read."""
        layout = Layout(root)
        try:
            record, _ = job_record(layout)
            writers = layout.roles()
            return Found(
                directory=str(root),
                project=record.project,
                name=record.name,
                state=job_state(layout),
                started=record.created,
                roles=writers,
                rows=sum(logged(layout.journal(writer)) for writer in writers),
                backends=[each.backend for each in record.plan.backends],
            )
        except (DirectoryError, OSError) as error:
            self.problems.append(describe_os_error(error) if isinstance(error, OSError) else str(error))
            return None


def _lines(jobs: list[Found], look: Look) -> Iterator[Line]:
    rows = [_HEADS, *map(_cells, jobs)]
    widths = [max(len(look.text(row[at])) for row in rows) for at in range(len(_HEADS))]
    for at, row in enumerate(rows):
        line = Line((), is_whole=True)  # the directory is not cut, so that it can be copied
        for head, cell, width in zip(_HEADS, row, widths, strict=True):
            is_last = head == _HEADS[-1]
            style = "dim" if at == 0 else STYLES.get(jobs[at - 1].state, "") if head == "state" else ""
            text = cell.rjust(width) if head in ("roles", "rows") else cell
            piece = look.line((text, style))
            line += piece if is_last else piece.padded(width + 2)
        yield line


def _cells(job: Found) -> tuple[str, ...]:
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(max(job.started, 0.0), 2**33)))
    name, backends = f"{job.project} / {job.name}", ",".join(job.backends) or "none"
    return name, str(job.state), started, str(len(job.roles)), f"{job.rows:,}", backends, job.directory
