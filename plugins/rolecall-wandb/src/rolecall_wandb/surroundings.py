"""What a run shows of the process whose rows it holds, though another process, the courier, opens it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from rolecall.backend import RunTicket

__all__ = ["settings_of_role"]

_OPTIONS_WITH_VALUE: Final = {"-W", "-X", "-Q"}


def settings_of_role(ticket: RunTicket) -> dict[str, Any]:
    """Fields of `wandb.Settings` that point at the role; none where the role opens the run itself.

    Console output can't be had from another process, and the courier's own would be taken for it.
    """
    if ticket.pid in {0, os.getpid()}:
        return {"git_root": os.getcwd()}
    found: dict[str, Any] = {"x_stats_pid": ticket.pid, "console": "off", "git_root": os.getcwd()}
    program = _program(_command(ticket.pid))
    return found | ({"program": program} if program else {})


def _command(pid: int) -> list[str]:
    """The role's command line, where the system tells; empty if not."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="replace").split("\0")[:-1]


def _program(command: list[str]) -> str | None:
    """The script of a Python command line, or `-m module`, as the SDK says it of its own process."""
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            module = next(words, None)
            return f"-m {module}" if module else None
        if word in _OPTIONS_WITH_VALUE:
            next(words, None)
        elif word == "-c" or word.startswith("-c"):
            return None
        elif not word.startswith("-"):
            return word
    return None
