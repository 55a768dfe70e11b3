"""What trackio's database holds of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rolecall import Row, TableData

__all__ = ["log_id", "log_prefix", "metrics", "points", "time_of", "timestamp"]

# `trackio.utils.RESERVED_KEYS` (0.38 to 0.43): columns of the same name hide these keys when a run is read.
RESERVED: Final = frozenset({"project", "run", "timestamp", "step", "time", "metrics"})

# How trackio writes what JSON has no number for (`trackio.utils.serialize_values`). It reads such strings as numbers.
NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})


def log_prefix(run_id: str, writer: str, session: int) -> str:
    """What all rows of a session have at the start of their `log_id`."""
    return f"{run_id}:{writer}:{session}:"


def log_id(run_id: str, row: Row) -> str:
    """What trackio knows a row by. It ignores a row whose `log_id` it has, in a run or in any other of the project."""
    return f"{log_prefix(run_id, row.writer, row.session)}{row.seq}"


def metrics(row: Row) -> dict[str, Any]:
    """The row's metrics, strings and table, under the keys that `trackio.Run.log` would give them."""
    found: dict[str, Any] = {**row.metrics, **row.text}
    if row.table is not None:
        found[row.table.name] = _table(row.table)
    return {renamed(key): value for key, value in found.items()}


def points(held: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a row as trackio holds or reads it."""
    for key, value in held.items():
        if isinstance(value, str) and value in NOT_FINITE:
            yield key, float(value)
        elif isinstance(value, (int, float)):
            yield key, value


def renamed(key: str) -> str:
    """The key as `trackio.Run.log` renames it (0.38 to 0.43)."""
    return f"__{key}" if key in RESERVED or key.startswith("__") else key


def timestamp(time: float) -> str:
    """Seconds since the epoch in trackio's form; of one width, as trackio sorts them as strings."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds")


def time_of(stamp: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


def _table(table: TableData) -> dict[str, Any]:
    """What `trackio.Table` makes of it; columns of one name get a number, as each row is an object by column."""
    names = list[str]()
    for name in table.columns:
        names.append(name if name not in names else f"{name}_{len(names)}")
    rows = [dict(zip(names, cells, strict=True)) for cells in table.rows]
    return {"_type": "trackio.table", "_value": rows}
