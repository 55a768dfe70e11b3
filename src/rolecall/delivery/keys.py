"""How a writer's rows are written into a run: in a shared one under a prefix, and with their step as a metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from rolecall.rows import Row
from rolecall.store.axes import axis_of


@dataclass(frozen=True, slots=True)
class KeyMapping:
    """The keys of a writer's rows in a run.

    Attributes:
        prefix: what comes before each key.
        axis: the key under which a row also holds its step; `None` if it does not.
    """

    prefix: str = ""
    axis: str | None = None

    @classmethod
    def shared(cls, writer: str, declares_axes: bool) -> KeyMapping:
        """In a run that others write too: with an axis where the backend declares axes."""
        return cls(f"{writer}/", axis_of(writer) if declares_axes else None)

    def apply(self, row: Row) -> Row:
        """The row as it is in the run."""
        prefix = self.prefix
        if not prefix:
            return row
        metrics = {f"{prefix}{key}": value for key, value in row.metrics.items()}
        if self.axis is not None:
            metrics[self.axis] = row.step
        return replace(
            row,
            metrics=metrics,
            text={f"{prefix}{key}": value for key, value in row.text.items()},
            table=row.table and replace(row.table, name=f"{prefix}{row.table.name}"),
            media=tuple(replace(media, key=f"{prefix}{media.key}") for media in row.media),
        )


UNCHANGED: Final = KeyMapping()
"""In a run of the writer's own."""
