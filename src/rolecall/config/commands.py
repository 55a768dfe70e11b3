"""The commands that messages tell a user to run."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["command"]


def command(*arguments: str | os.PathLike[str]) -> str:
    """A `rolecall` command, quoted for a shell, that works in the shell of whoever reads it.

    It names the program by its path, unless `rolecall` alone finds the same one: the environment that rolecall is
    installed in need not be activated. Paths are printed as given, so give absolute ones where the reader may be in
    another directory.
    """
    script = Path(sys.executable or "python").with_name("rolecall")
    if not os.access(script, os.X_OK):
        program = [
            sys.executable,
            "-m",
            "rolecall",
        ]  # an embedded or frozen interpreter, or no scripts installed
    else:
        # Not `samefile` of what is on PATH: another environment's script may be a link to a shared one.
        program = ["rolecall" if shutil.which("rolecall") == str(script) else str(script)]
    return shlex.join([*program, *map(_argument, arguments)])


def _argument(value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    # A directory called `-x` would be read as an option.
    return f"./{text}" if text.startswith("-") and not isinstance(value, str) else text
