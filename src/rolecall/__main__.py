"""Look at what training jobs logged, and deliver it to their trackers.

Exit status:
  0  done
  1  deliver, relay: some rows are left or lost; verify: something differs
  2  the call, the config, the directory or a backend cannot be used
  3  verify: a backend could not be read
  130  interrupted

Examples:
  rolecall demo
  rolecall check config.yaml
  rolecall show runs/grpo-1
  rolecall COMMAND --help
"""

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.metadata import requires
from typing import Final

from rolecall.backends.installed import version_of
from rolecall.cli.view.text import visible_lines
from rolecall.config.commands import with_path
from rolecall.config.environment import follow_log_level
from rolecall.errors import RolecallError, describe_os_error

COMMANDS: Final = {
    "backends": "rolecall.cli.backends",
    "check": "rolecall.cli.check",
    "demo": "rolecall.demo.command",
    "ls": "rolecall.cli.ls",
    "show": "rolecall.cli.show",
    "deliver": "rolecall.cli.ask.deliver",
    "relay": "rolecall.cli.ask.relay",
    "verify": "rolecall.cli.ask.verify",
    "export": "rolecall.cli.export",
    "clean": "rolecall.cli.clean",
    "new-backend": "rolecall.cli.new_backend",
    "completion": "rolecall.cli.completion",
}
"""The module of each command, in the order of the help."""

FOR_CLI = ("rich", "numpy", "shtab")
"""What the extra `cli` installs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit status. Errors are printed as messages, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is printed escaped, and is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if argv is None else argv
    named = given[0] if given else ""
    # Importing all of them takes a quarter of the time of `rolecall backends`.
    alone = named in COMMANDS and named != "completion"
    options = _parser([named] if alone else tuple(COMMANDS)).parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        follow_log_level()
        status: int = options.run(options)
    except RolecallError as error:
        status = 2
        print(visible_lines(f"rolecall: {error}"), file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name not in FOR_CLI:
            raise
        status = 2
        # What the extra `cli` requires, by name: rolecall itself is not on a package index.
        parts = (text.partition(";") for text in requires("rolecall") or ())
        wanted = shlex.join(requirement.strip() for requirement, _, marker in parts if "cli" in marker)
        install = with_path(f"pip install {wanted}")
        print(f"rolecall: {error.name} is not installed; run: {install}", file=sys.stderr)
    except BrokenPipeError:
        status = 0
        # `rolecall show | head`: Python would report the pipe once more when it flushes at exit
        sys.stderr.close()
    except OSError as error:  # a file of somebody else, a read-only disk, a symlink where none may be
        status = 2
        advice = "; run this as the user whose job it is" if isinstance(error, PermissionError) else ""
        print(visible_lines(f"rolecall: {describe_os_error(error)}{advice}"), file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
        print("rolecall: interrupted", file=sys.stderr)
    return status


def _parser(names: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    # The help of a command, its examples included, is the docstring of its module; `-OO` runs without any.
    as_written = argparse.RawDescriptionHelpFormatter
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser("rolecall", description=summary, epilog=more, formatter_class=as_written)
    parser.add_argument("--version", action="version", version=f"rolecall {version_of('rolecall')}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = import_module(COMMANDS[name])
        summary, _, more = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(name, help=summary, description=summary, epilog=more, formatter_class=as_written)
        module.add_options(command)
        command.set_defaults(run=module.run)
    parser.set_defaults(parser=parser)  # `completion` describes all of it
    return parser


if __name__ == "__main__":
    sys.exit(main())
