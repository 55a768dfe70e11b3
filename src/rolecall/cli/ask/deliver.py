"""Send the rows that a job's backends do not hold yet.

You can run it twice, and while the job runs. The exit status is 1 if rows are left, or were lost
because the journal could not be written or was damaged.

Examples:
  rolecall deliver runs/grpo-1
  rolecall deliver runs/grpo-1 --to tensorboard --args '{log_dir: copies}'
  ROLECALL_ARGS='{api_key: ...}' rolecall deliver runs/grpo-1 --to wandb
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from rolecall.cli.ask.arguments import add_job_options, check_backend, collect_args, print_event, print_left
from rolecall.config.commands import command
from rolecall.delivery.redeliver import Held, deliver


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_job_options(parser)
    to = "copy the whole job to this backend (default: the job's own backends)"
    parser.add_argument("--to", metavar="BACKEND", help=to)


def run(options: argparse.Namespace) -> int:
    """Deliver a job, and say what is left."""
    if options.to:
        # before the job is read, so that the message names the option and not a config that nobody wrote
        check_backend("--to", options.to)
    args = collect_args(options, options.to)
    with _progress_bars() as draw:
        left = deliver(
            *(options.directory, options.to, args, options.timeout),
            trust=options.trust,
            on_event=print_event,
            on_progress=draw,
        )
    print_left(left)
    if any(each.rows or each.lacks_changes for each in left):
        # Without `--args`, which may hold a secret.
        again = command("deliver", options.directory, *(("--to", options.to) if options.to else ()))
        what = "some rows are" if any(each.rows for each in left) else "something is"
        print(f"{what} left; try again later: {again}")
    else:
        print("what the journal still has is delivered" if left else "all rows are delivered")
    return 1 if left else 0


@contextmanager
def _progress_bars() -> Iterator[Callable[[Sequence[Held]], None]]:
    """A function that draws how much each backend holds, on standard error.

    It draws nothing if that is not a terminal, or if rich is not installed: a delivery needs no drawing.
    """
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def draw(backends: Sequence[Held]) -> None:
            for held in backends:
                if held.backend not in tasks:
                    tasks[held.backend] = progress.add_task(held.backend, total=held.total)
                # a job that still runs logs more than there was at the start
                progress.update(tasks[held.backend], completed=min(held.rows, held.total))

        yield draw
