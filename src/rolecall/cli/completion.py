"""Print a script with which your shell completes rolecall's commands, options and paths.

For bash, put this line into ~/.bashrc:
  eval "$(rolecall completion bash)"
For zsh, write the script to a directory of $fpath, as _rolecall.

Examples:
  rolecall completion bash
  rolecall completion zsh > ~/.zfunc/_rolecall
"""

import argparse
from collections.abc import Iterator
from typing import Final

SHELLS: Final = ("bash", "zsh")
_DIRECTORIES: Final = ("directory", "other", "monitor_dir", "into")
_FILES: Final = ("config", "html")
"""By the name of the argument: `argparse` knows that something is a path, but not which kind."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to complete in")


def run(options: argparse.Namespace) -> int:
    """Print the script for the parser of all commands, which the options name."""
    import shtab

    parser: argparse.ArgumentParser = options.parser
    for action in _actions(parser):
        if action.dest in _DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments and options of a parser and of the commands in it."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way; shtab itself goes the same
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _actions(command)
