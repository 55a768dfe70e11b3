"""Tables that grow over steps, as the SDK's incremental tables.

Each increment has the new rows, and names the increments before it (`wandb.Table(log_mode="INCREMENTAL")` and
`sdk/data_types/table.py`, 0.31.0). The SDK's own table has all rows in memory, and after a restart it asks the run's
summary what came before, which in a shared run is that of another writer, and never that of a line which was lost. So
each increment is a table of its own here, and what came before it is what the run's history holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import wandb

__all__ = ["INCREMENTAL", "GrowingTables", "has_increments"]

INCREMENTAL: Final = "INCREMENTAL"
MOST: Final = 99
"""Earlier increments that one names: wandb's workspace shows the last 100, and each line of history has their names."""


@cache
def has_increments() -> bool:
    """Whether this SDK has such tables, with the two places where each says what came before it."""
    import wandb

    try:
        table: Any = wandb.Table(columns=["a"], log_mode=INCREMENTAL)
    except Exception:  # noqa: BLE001 - an older one refuses it in one way or another
        return False
    return hasattr(table, "_increment_num") and hasattr(table, "_previous_increments_paths")


@dataclass(slots=True)
class _Known:
    """The increments of a table that the run holds: the number of the next one, and where the last ones are."""

    next: int = 0
    paths: list[str] = field(default_factory=list)
    width: int | None = None

    def add(self, entry: Mapping[str, Any]) -> None:
        """One more, by what a line of history has of it."""
        if (width := entry.get("ncols")) != self.width:
            self.paths.clear()  # rows of other columns cannot be shown as one table
        number, path = entry.get("increment_num"), entry.get("artifact_path")
        self.next = max(self.next, number + 1 if isinstance(number, int) else 0)
        self.width = width
        if isinstance(path, str):
            self.paths = [*self.paths, path][-MOST:]


class GrowingTables:
    """What one SDK's run knows of the tables that grow.

    Args:
        history: reads the lines that the run holds, in order.
    """

    def __init__(self, history: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._history = history
        self._known: dict[str, _Known] | None = None

    def recall(self, tables: Mapping[str, wandb.Table]) -> None:
        """Read once what the run holds, if one of the tables grows.

        Raises:
            Unavailable: the server does not answer.
        """
        if self._known is None and any(map(_grows, tables.values())):
            known: dict[str, _Known] = {}
            for line in self._history():
                for key, value in line.items():
                    if isinstance(value, dict) and value.get("_type") == "incremental-table-file":
                        known.setdefault(key, _Known()).add(value)
            self._known = known

    def link(self, values: Mapping[str, Any]) -> None:
        """Tell each increment in a line, just before it is logged, what came before it."""
        for key, table in values.items():
            if self._known is not None and _grows(table):
                known = self._known.setdefault(key, _Known())
                table._increment_num = known.next  # noqa: SLF001 - the SDK sets it from the run's summary
                is_same = known.width in (None, len(table.columns))
                table._previous_increments_paths = [*known.paths] if is_same else []  # noqa: SLF001 - as above

    def add(self, values: Mapping[str, Any], run: wandb.Run) -> None:
        """Take note of the increments in a line that was logged."""
        for key, table in values.items():
            if self._known is not None and _grows(table):
                self._known[key].add(table.to_json(run))


def _grows(value: Any) -> bool:
    return getattr(value, "log_mode", None) == INCREMENTAL
