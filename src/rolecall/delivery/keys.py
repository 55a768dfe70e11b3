"""How a writer's rows stand in a run.

In a shared run a writer's keys get the prefix `{writer}/`, and where axes are declared every row also carries
`{writer}/step`. Rows are placed as they are read: so the keys of rows that look alike are placed once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from rolecall.rows import Row

__all__ = ["AS_IT_IS", "Placement", "axis_of"]


def axis_of(writer: str) -> str:
    """The key of a writer's step axis in a shared run."""
    return f"{writer}/step"


@dataclass(frozen=True, slots=True)
class Placement:
    """How a writer's rows stand in a run: as they are, or in a shared one under a prefix and with their axis.

    Attributes:
        prefix: what comes before each key.
        axis: the key under which a row also holds its step, if it does.
    """

    prefix: str = ""
    axis: str | None = None

    @classmethod
    def shared(cls, writer: str, declares_axes: bool) -> Placement:
        """In a run that others write too: with an axis where axes are declared."""
        return cls(f"{writer}/", axis_of(writer) if declares_axes else None)

    def keys(self, keys: Iterable[str]) -> tuple[str, ...]:
        """A writer's keys as they stand in the run."""
        return tuple(f"{self.prefix}{key}" for key in keys)

    def place(self, row: Row) -> Row:
        """The row as it stands in the run."""
        if not self.prefix:
            return row
        metrics = dict(zip(self.keys(row.metrics), row.metrics.values(), strict=True))
        if self.axis is not None:
            metrics[self.axis] = row.step
        table = row.table and replace(row.table, name=f"{self.prefix}{row.table.name}")
        return replace(row, metrics=metrics, table=table)


AS_IT_IS: Final = Placement()
"""In a run of the writer's own."""
