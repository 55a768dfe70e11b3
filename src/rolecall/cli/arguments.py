"""What the commands share that ask the backends of a job: their options, and what they print."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rolecall.backends.builtin import LOCAL, NONE
from rolecall.backends.registry import Registry
from rolecall.cli.view.text import visible_lines
from rolecall.config.loading import parse_mapping
from rolecall.delivery.events import CourierEvent
from rolecall.errors import BackendError, ConfigError

ARGS = "ROLECALL_ARGS"
"""The environment's `--args`, for secrets: every user of a machine can list the arguments of its processes."""


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that asks the backends of a job."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    args = f"arguments of the backend that are not stored with the job, as YAML or JSON; put secrets into {ARGS}"
    parser.add_argument("--args", default="{}", help=args)
    trust = "use the servers that the directory names, even if somebody else may have written it"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="when to give up (default: 600)")


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
