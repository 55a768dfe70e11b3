"""Makes a run show the role's process, although another process, the courier, opens it."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rolecall import RunTicket

__all__ = ["in_place_of_role", "settings_of_role"]

_WITH_VALUE: Final = "cmWX"  # options of Python that take a value, in the same word or the next
_WITH_VALUE_APART: Final = "--check-hash-based-pycs"
_VARIABLE: Final = "WANDB_PROGRAM"
_NO_PROGRAM: Final = "<python with no main file>"  # what the SDK itself shows


def settings_of_role(ticket: RunTicket) -> dict[str, Any]:
    """Fields of `wandb.Settings` that refer to the role's process."""
    # Without `git_root` the SDK would look for a repository in the run's own directory.
    found: dict[str, Any] = {"git_root": os.getcwd()}
    # A courier cannot read the role's console, and the run would show its own instead.
    return found if _is_here(ticket) else found | {"x_stats_pid": ticket.pid, "console": "off"}


@contextmanager
def in_place_of_role(ticket: RunTicket) -> Iterator[None]:
    """Make the SDK find the role's program and arguments instead of those of this process."""
    # A program that the user has set in WANDB_PROGRAM is kept.
    if _is_here(ticket):
        yield
        return
    program, arguments = _read(_command(ticket.pid))
    sets_program = _VARIABLE not in os.environ
    own = sys.argv
    if sets_program:
        os.environ[_VARIABLE] = program
    sys.argv = [program, *arguments]
    try:
        yield
    finally:
        sys.argv = own
        if sets_program:
            del os.environ[_VARIABLE]


def _is_here(ticket: RunTicket) -> bool:
    return ticket.pid in {0, os.getpid()}


def _read(command: Sequence[str]) -> tuple[str, list[str]]:
    """The program and its arguments, as the SDK shows them for a process with this command line."""
    program, arguments = _program(command)
    if program is None:
        return _NO_PROGRAM, arguments
    path = os.path.abspath(program)
    return (path if os.path.exists(path) else program), arguments


def _command(pid: int) -> list[str]:
    """The role's command line; empty if the system does not show it."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="replace").split("\0")[:-1]


def _program(command: Sequence[str]) -> tuple[str | None, list[str]]:
    """The script of a Python command line, or `-m module`, and its arguments."""
    words = deque(command[1:])
    while words:
        word = words.popleft()
        if word == _WITH_VALUE_APART:
            words.popleft()
        elif word == "-" or not word.startswith("-"):
            return (None if word == "-" else word), list(words)
        elif not word.startswith("--"):
            option, value = _option(word, words)
            if option in {"c", "m"}:
                return (f"-m {value}" if option == "m" and value else None), list(words)
    return None, []


def _option(word: str, words: deque[str]) -> tuple[str, str]:
    """The option with a value in a word like `-uW`, and the value, taken from `words` if it is not in this word."""
    for position, letter in enumerate(word[1:], 2):
        if letter in _WITH_VALUE:
            return letter, word[position:] or (words.popleft() if words else "")
    return "", ""
