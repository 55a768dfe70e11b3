"""What `rolecall show` draws in a terminal of 80 and of 160 columns."""

from __future__ import annotations

import tempfile
from pathlib import Path

from picture_tools import save_text
from sample_job import plant_job
from terminal import Tmux
from terminal_picture import draw_terminal

SIZES = {80: 31, 160: 40}
"""Columns, and the rows beside them."""


def take_all() -> None:
    """A picture of each size, of a job of eight roles that is the same each time."""
    with tempfile.TemporaryDirectory(prefix="rolecall-") as folder:
        plant_job(Path(folder, "runs", "grpo-1"))
        for columns, rows in SIZES.items():
            save_text(f"terminal-{columns}", draw_terminal(shown(Path(folder), columns, rows), columns))


def shown(folder: Path, columns: int, rows: int) -> str:
    """The command and what it draws, from the first line on, which has gone up when the last one is drawn."""
    terminal = Tmux(folder, columns, rows, {})
    try:
        terminal.type("rolecall show runs/grpo-1")
        terminal.press("Enter")
        terminal.until(lambda: terminal.text().endswith("\n$\n"))
        return terminal.text("-e", "-S", "-").removesuffix("$\n")
    finally:
        terminal.close()
