"""The commands that messages tell a user to run."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

_PROGRAM: Final = re.compile(r"((?:\w+=\S* )*)([\w.-]+)( .+)", re.DOTALL)


def command(*arguments: str | os.PathLike[str]) -> str:
    """A `rolecall` command, quoted for a shell, that works in the shell of whoever reads it.

    It names the program by its path, unless `rolecall` alone finds the same one: the environment that rolecall is
    installed in need not be activated. Paths are printed as given, so give absolute ones where the reader may be in
    another directory.
    """
    script = Path(sys.executable or "python").with_name("rolecall")
    if not os.access(script, os.X_OK):
        program = [sys.executable, "-m", "rolecall"]  # an embedded or frozen interpreter, or no scripts installed
    else:
        # Not `samefile` of what is on PATH: another environment's script may be a link to a shared one.
        program = ["rolecall" if shutil.which("rolecall") == str(script) else str(script)]
    return " ".join(map(_quoted, [*program, *map(_argument, arguments)]))


def with_path(url: str) -> str:
    """Where to look at a run, as a backend says it: an address as it is, a command as it works in this environment.

    `tensorboard --logdir runs` becomes `/path/to/bin/tensorboard --logdir runs` if the program is installed beside this
    Python and the environment is not activated. Settings may come before the program: `NAME=value mlflow ui`.
    """
    matched = _PROGRAM.match(url)
    if matched is None:
        return url
    settings, program, arguments = matched.groups()
    found = shutil.which(program, path=str(Path(sys.executable).parent))
    # The same name elsewhere on PATH is another environment's, of whatever version.
    if found is None or found == shutil.which(program):
        return url
    return f"{settings}{shlex.quote(found)}{arguments}"


def _quoted(text: str) -> str:
    """A word of a command on one line, with nothing that a terminal would act on."""
    if text.isprintable():
        return shlex.quote(text)
    # bash, zsh and ksh; in bytes, as a path may hold what is no text
    safe = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text))  # noqa: PLR2004
    return f"$'{''.join(safe)}'"


def _argument(value: str | os.PathLike[str]) -> str:
    text = os.fspath(value)
    # A directory called `-x` would be read as an option.
    return f"./{text}" if text.startswith("-") and not isinstance(value, str) else text
