"""Tables of rows, as wandb's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rolecall.backend import Row
from rolecall.errors import Rejected

if TYPE_CHECKING:
    import wandb

__all__ = ["table_of"]


def table_of(row: Row) -> dict[str, wandb.Table]:
    """The row's table by its name; a column may hold values of several types.

    Raises:
        Rejected: the SDK can make no table of it.
    """
    import wandb

    if row.table is None:
        return {}
    data = [list(line) for line in row.table.rows]
    try:
        table = wandb.Table(columns=list(row.table.columns), data=data, allow_mixed_types=True)
    except Exception as error:
        raise Rejected([row], f"wandb makes no table of {row.table.name!r}: {error}") from error
    return {row.table.name: table}
