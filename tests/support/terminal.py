"""A real terminal: tmux, without a window."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

__all__ = ["PATIENCE", "Tmux"]

PATIENCE = 60.0
"""Seconds to wait for what should be on the screen."""


class Tmux:
    """A terminal with a shell in it.

    Args:
        directory: where the shell starts.
        columns: how wide the terminal is.
        rows: how high it is.
        environment: variables of the shell.
    """

    def __init__(self, directory: Path, columns: int, rows: int, environment: dict[str, str]) -> None:
        self._name = f"rolecall-{uuid.uuid4().hex}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Nothing of whoever runs the tests: COLUMNS would win over the size of the terminal.
        env = {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC", "PS1": "$ ", **environment}
        if "PYTHONPATH" in os.environ:
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        shell = ["env", "-i", "TERM=tmux-256color", *(f"{key}={value}" for key, value in env.items()), "sh"]
        size = ["-x", str(columns), "-y", str(rows)]
        self._run("-f", os.devnull, "new-session", "-d", *size, "-c", str(directory), shlex.join(shell))
        self.until(lambda: "$" in self.text())

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._name, "kill-server"], capture_output=True, check=False)

    def type(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def text(self, *options: str) -> str:
        """What is on the screen; `-e` keeps the colours."""
        lines = self._run("capture-pane", "-p", *options).splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.text()
            time.sleep(0.05)

    def run(self, command: str) -> str:
        """Run a command to its end; what it left on the screen, without the command itself."""
        self.type(f"clear; {command}; echo status $?")
        self.press("Enter")
        self.until(lambda: re.search(r"^status \d", self.text(), re.MULTILINE) is not None)
        return self.text()

    def _run(self, *arguments: str) -> str:
        ran = subprocess.run(["tmux", "-L", self._name, *arguments], capture_output=True, text=True, check=True)
        return ran.stdout
