"""Turns tables of rows into wandb's."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from rolecall import Cell, Media, MediaKind, Rejected, Row

if TYPE_CHECKING:
    import wandb

__all__ = ["TABLE_KINDS", "short_name", "table_of"]

# `wandb.Image` needs Pillow for a file, of which it only reads the size (0.19.10 and 0.31.0).
TABLE_KINDS: Final[frozenset[MediaKind]] = frozenset({"image"} if find_spec("PIL") is not None else ())
"""What is more than text in a cell."""
LONGEST_ARTIFACT: Final = 128
"""Characters of an artifact's name, by the SDK's own check."""
MARGIN: Final = 16


def table_of(row: Row, run_id: str) -> Mapping[str, wandb.Table]:
    """The row's table by its name, or nothing; a column may have values of several types.

    A name that is too long for wandb is cut, and tells by its end which one it was.

    Raises:
        Rejected: the SDK cannot make a table of it.
    """
    import wandb

    if row.table is None:
        return {}
    try:
        data: list[Any] = [[_cell(cell) for cell in line] for line in row.table.rows]
        table = wandb.Table(columns=list(row.table.columns), data=data, allow_mixed_types=True)
    except Exception as error:
        raise Rejected([row], f"wandb cannot make a table of {row.table.name!r}: {error}") from error
    return {short_name(row.table.name, run_id): table}


def _cell(cell: Cell) -> Any:
    import wandb

    if not isinstance(cell, Media):
        return cell
    return None if cell.path is None else wandb.Image(str(cell.path), caption=cell.caption or None)


def short_name(name: str, run_id: str) -> str:
    """The name under which a run holds a table."""
    # The table is an artifact `run-{run_id}-{name}`, with a few characters more in some versions (0.19.10, 0.31.0).
    longest = LONGEST_ARTIFACT - len(f"run-{run_id}-") - MARGIN
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9]}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
