"""What trackio's database holds of a row, and what it is when it is read back."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from rolecall import Point, Row, RunTicket, TableData
from rolecall_trackio.store import Store

__all__ = ["TrackioReadback", "log_id", "metrics", "renamed", "timestamp"]

# `trackio.utils.RESERVED_KEYS` (0.38 to 0.43): columns of the same name hide these keys when a run is read.
RESERVED: Final = frozenset({"project", "run", "timestamp", "step", "time", "metrics"})

# How trackio writes what JSON has no number for (`trackio.utils.serialize_values`). It reads such strings as numbers.
NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})


class TrackioReadback:
    """Reads the database itself; a `rolecall.SupportsReadback` that reads a run once for all metrics.

    `trackio.Api` has no metrics (0.43), and what the dashboard calls has the whole run in memory and opens the database
    to write.
    """

    def __init__(self, store: Store, ticket: RunTicket) -> None:
        self._store, self._run_id = store, ticket.backend_run_id or ticket.run_id

    def keys(self) -> Iterator[str]:
        """See `rolecall.SupportsReadback`."""
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        """See `rolecall.SupportsReadback`."""
        return (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        """See `rolecall.SupportsScan`."""
        rows = self._store.select("SELECT step, timestamp, metrics FROM metrics WHERE run_id = ?", self._run_id)
        for step, stamp, held in rows:
            for key, value in _points(json.loads(held)):
                yield key, Point(step, value, datetime.fromisoformat(stamp).timestamp())

    def expected(self, row: Row) -> Row:
        """The row with trackio's names of its keys, and its time in microseconds."""
        return replace(row, metrics=dict(_points(metrics(row))), time=datetime.fromtimestamp(row.time, UTC).timestamp())

    def close(self) -> None:
        """Nothing is open."""


def log_id(run_id: str, writer: str, session: int, seq: int | None = None) -> str:
    """What trackio knows a row by; without `seq`, what all of a session begin with.

    It ignores a row whose `log_id` it has, in a run or in any other of the project.
    """
    return f"{run_id}:{writer}:{session}:{'' if seq is None else seq}"


def metrics(row: Row) -> dict[str, Any]:
    """The row's metrics, strings and table, under the keys that `trackio.Run.log` would give them."""
    table = {} if row.table is None else {row.table.name: _table(row.table)}
    return {renamed(key): value for key, value in {**row.metrics, **row.text, **table}.items()}


def renamed(key: str) -> str:
    """The key as `trackio.Run.log` renames it (0.38 to 0.43)."""
    return f"__{key}" if key in RESERVED or key.startswith("__") else key


def timestamp(time: float) -> str:
    """Seconds since the epoch in trackio's form; of one width, as trackio sorts them as strings."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds")


def _points(held: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a row as trackio holds or reads it."""
    for key, value in held.items():
        if isinstance(value, int | float) or (isinstance(value, str) and value in NOT_FINITE):
            yield key, float(value) if isinstance(value, str) else value


def _table(table: TableData) -> dict[str, Any]:
    """What `trackio.Table` makes of it; columns of one name get a number, as each row is an object by column."""
    names = [f"{name}_{at}" if name in table.columns[:at] else name for at, name in enumerate(table.columns)]
    return {"_type": "trackio.table", "_value": [dict(zip(names, cells, strict=True)) for cells in table.rows]}
