"""Formats tables, configs and HTML as Markdown, which TensorBoard's Text tab renders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from textwrap import indent
from typing import Any

from rolecall import Cell, Media, TableData

__all__ = ["MOST_CHARACTERS", "MOST_ROWS", "config_text", "shortened", "source_text", "table_text"]

_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+\-.!|&~:$]")

MOST_ROWS = 1000
"""How many rows of a table are shown. TensorBoard 2.21 renders 1,000 rows in 1 s and 10,000 in 17 s (measured)."""

MOST_CHARACTERS = 20_000
"""How much of HTML and Markdown is shown. TensorBoard 2.21 renders 100,000 characters in 2 s and a million in 38 s."""


def table_text(table: TableData) -> str:
    """Format a table so that each cell is shown as it is: Markdown characters in a cell have no effect."""
    rule = "|".join("---" for _ in table.columns)
    lines = [_line(table.columns), f"|{rule}|", *(_line(row) for row in table.rows[:MOST_ROWS])]
    if (hidden := len(table.rows) - MOST_ROWS) > 0:
        lines.append(f"\n{hidden} more rows are in the journal.")
    return "\n".join(lines)


def config_text(config: Mapping[str, Any]) -> str:
    """Format a config as a block of indented JSON."""
    # Four spaces make it a code block, in which Markdown characters have no effect.
    return indent(json.dumps(config, indent=2, ensure_ascii=False, default=str), "    ")


def source_text(html: str) -> str:
    """Format the source of a piece of HTML as a block of code.

    TensorBoard allows no styles and few tags, and shows all others as text (2.21). So it is shown as it was logged.
    """
    return shortened(html, "    ")


def shortened(text: str, edge: str = "") -> str:
    """As much of a text as is shown, each line behind `edge`."""
    shown = indent(text[:MOST_CHARACTERS], edge)
    if (hidden := len(text) - MOST_CHARACTERS) > 0:
        return f"{shown}\n\n{hidden} more characters are in the job's directory."
    return shown


def _line(cells: Iterable[Cell]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(cell: Cell) -> str:
    if isinstance(cell, Media):
        text = cell.caption or (cell.path.name if cell.path is not None else "")
    else:
        text = "" if cell is None else str(cell)
    return "<br>".join(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", line) for line in text.splitlines())
