"""The command `rolecall`: builds the parser, and turns errors into messages and exit statuses."""

from __future__ import annotations

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import requires
from typing import Protocol

from rolecall.backends.installed import version_of
from rolecall.cli import backends, check, deliver, demo, export, show
from rolecall.errors import RolecallError

FOR_CLI = ("rich", "plotext", "numpy")
"""What the extra `cli` installs."""
EXAMPLES = """\
exit status:
  0  done
  1  deliver: some rows are left
  2  the call, the config, the directory or a backend cannot be used
  130  interrupted

examples:
  rolecall demo
  rolecall check config.yaml
  rolecall show runs/grpo-1
  rolecall COMMAND --help
"""


class Command(Protocol):
    """What each module of a command has."""

    @property
    def HELP(self) -> str:  # noqa: N802 - a module's constant
        """What the command does, in a few words."""

    @property
    def EXAMPLES(self) -> str:  # noqa: N802 - a module's constant
        """What stands below its options in `--help`."""

    def add_options(self, parser: argparse.ArgumentParser, /) -> None:
        """Add its options to a parser."""

    def run(self, options: argparse.Namespace, /) -> int:
        """Do it, and return the exit status."""


COMMANDS: Mapping[str, Command] = {
    "backends": backends,
    "check": check,
    "demo": demo,
    "show": show,
    "deliver": deliver,
    "export": export,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status. Errors are printed as messages, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is printed escaped, and is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return COMMANDS[options.command].run(options)
    except RolecallError as error:
        print(f"rolecall: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in FOR_CLI:
            raise
        # What the extra `cli` requires, by name: rolecall itself is not on a package index.
        wanted = [
            text.partition(";")[0].strip() for text in requires("rolecall") or () if "cli" in text.partition(";")[2]
        ]
        print(f"rolecall: {error.name} is not installed; run: pip install {shlex.join(wanted)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `rolecall show | head`: Python would report the pipe once more when it flushes at exit
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("rolecall: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rolecall",
        description="The monitor layer of training jobs that run as several processes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rolecall {version_of('rolecall')}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name,
                help=command.HELP,
                description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
                epilog=command.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
