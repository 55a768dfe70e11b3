"""What the commands share that ask the backends of a job: their options, and what they print."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rolecall.backends.builtin import LOCAL, NONE
from rolecall.backends.registry import Registry
from rolecall.cli.view.text import visible_lines
from rolecall.config.loading import parse_mapping
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.redeliver import Left
from rolecall.errors import BackendError, ConfigError

ARGS = "ROLECALL_ARGS"
"""The environment's `--args`, for secrets: every user of a machine can list the arguments of its processes."""


def add_job_options(parser: argparse.ArgumentParser, timeout: float = 600, until: str = "") -> None:
    """Add the options of every command that asks the backends of a job.

    Args:
        parser: of the command.
        timeout: seconds until it gives up by default.
        until: when it ends by default, in words, if that is no number of seconds.
    """
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    args = f"arguments of the backend that are not stored with the job, as YAML or JSON; put secrets into {ARGS}"
    parser.add_argument("--args", default="{}", help=args)
    trust = "use the servers that the directory names, even if somebody else may have written it"
    parser.add_argument("--trust", action="store_true", help=trust)
    when = f"when to give up (default: {until or timeout})"
    parser.add_argument("--timeout", type=float, default=timeout, metavar="SECONDS", help=when)


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


def print_left(left: Iterable[Left]) -> None:
    """Say what backends lack, on standard error."""
    for each in left:
        if each.rows:
            print(f"{each.writer}: {each.rows} rows are not in {each.backend} yet", file=sys.stderr)
        if each.lacks_changes:
            what = f"{each.writer}: what it last changed of its config, summary or tags is not in {each.backend} yet"
            print(what, file=sys.stderr)
        if each.missing:
            lost = f"{each.writer}: {each.missing} rows are not in its journal and may not be in {each.backend}"
            print(lost, file=sys.stderr)


def print_event(event: CourierEvent) -> None:
    """Say what happened to a backend, on standard error."""
    # That a run was opened, gets on or is done is what a user expects.
    if event.kind not in ("ended", "opened", "prepared", "progress"):
        print(visible_lines(f"{event.writer}: {event.backend}: {event.kind} {event.message}"), file=sys.stderr)
