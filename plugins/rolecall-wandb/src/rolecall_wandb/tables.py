"""Tables of rows, as wandb's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rolecall.backend import Row

if TYPE_CHECKING:
    import wandb

__all__ = ["table_of"]


def table_of(row: Row) -> dict[str, wandb.Table]:
    """The row's table by its name; a column may hold values of several types."""
    import wandb

    if row.table is None:
        return {}
    data = [list(line) for line in row.table.rows]
    return {row.table.name: wandb.Table(columns=list(row.table.columns), data=data, allow_mixed_types=True)}
