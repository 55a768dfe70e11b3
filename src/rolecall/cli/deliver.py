"""Send the rows that a job's backends do not hold yet.

It is safe to run twice, and beside a job that still runs. The exit status is 1 if rows are left, or
are lost because the journal could not be written or was damaged.

Examples:
  rolecall deliver runs/grpo-1
  rolecall deliver runs/grpo-1 --to tensorboard --args '{log_dir: copies}'
  ROLECALL_ARGS='{api_key: ...}' rolecall deliver runs/grpo-1 --to wandb
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rolecall.backends.builtin import LOCAL, NONE
from rolecall.backends.registry import Registry
from rolecall.cli.text import visible_lines
from rolecall.config.commands import command
from rolecall.config.loading import parse_mapping
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.redeliver import Held, deliver
from rolecall.errors import BackendError, ConfigError

ARGS = "ROLECALL_ARGS"
"""The environment's `--args`, for secrets: every user of a machine can list the arguments of its processes."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_job_options(parser)
    to = "copy the whole job to this backend (default: the job's own backends)"
    parser.add_argument("--to", metavar="BACKEND", help=to)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that asks the backends of a job."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    args = f"arguments of the backend, as YAML or JSON, that the job did not keep; put secrets in {ARGS} instead"
    parser.add_argument("--args", default="{}", help=args)
    trust = "use servers that only the directory names, although somebody else may have written it"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="when to give up (default: 600)")


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
    for each in left:
        if each.rows:
            print(f"{each.writer}: {each.rows} rows are not in {each.backend} yet", file=sys.stderr)
        if each.missing:
            lost = f"{each.writer}: {each.missing} rows are not in its journal and may not be in {each.backend}"
            print(lost, file=sys.stderr)
    if any(each.rows for each in left):
        # Without `--args`, which may hold a secret.
        again = command("deliver", options.directory, *(("--to", options.to) if options.to else ()))
        print(f"some rows are left; try again later: {again}")
    else:
        print("what the journal still has is delivered" if left else "all rows are delivered")
    return 1 if left else 0


def collect_args(options: argparse.Namespace, backend: str | None) -> dict[str, dict[str, Any]]:
    """The arguments by backend; the command line's win over the environment's.

    Args:
        options: as they were parsed.
        backend: the only backend, whose arguments need no name above them.
    """
    args: dict[str, dict[str, Any]] = {}
    for option, text in ((ARGS, os.environ.get(ARGS, "{}")), ("--args", options.args)):
        given = parse_mapping(option, text)
        keyed = {backend: given} if backend and backend not in given else given
        for name, values in keyed.items():
            if not isinstance(values, dict):
                raise ConfigError(
                    f"{option}: {name}: must be the arguments of a backend of that name, as a mapping: "
                    "'{mlflow: {uri: ...}}'; or name one backend on the command line"
                )
            args[name] = {**args.get(name, {}), **values}
    return args


def check_backend(option: str, name: str) -> None:
    """Refuse a backend that nothing can be delivered to; the message names the option."""
    if name in (LOCAL, NONE):
        raise ConfigError(f"{option}: nothing can be delivered to {name!r}; choose another backend")
    try:
        Registry().load(name)
    except BackendError as error:
        raise type(error)(f"{option}: {error}") from error.__cause__


def print_event(event: CourierEvent) -> None:
    """Say what happened to a backend, on standard error."""
    # That a run was opened, gets on or is done is what a user expects.
    if event.kind not in ("ended", "opened", "prepared", "progress"):
        print(visible_lines(f"{event.writer}: {event.backend}: {event.kind} {event.message}"), file=sys.stderr)


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
