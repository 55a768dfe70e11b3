"""Rows and tables: what a role logged, as it reaches a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Cell", "Metrics", "Row", "Status", "Table"]

Metrics = Mapping[str, float | int]
Cell = str | int | float | bool | None
Status = Literal["finished", "failed", "killed"]
"""How a writer, or the whole job, ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A small table that a role logged: `rows` are as wide as `columns`."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one call of `Monitor.log` or `Monitor.log_table` recorded.

    `(writer, session, seq)` names a row for ever; `step` does not, as steps repeat after a restart from a
    checkpoint. A *session* is one process's opening of a writer, counted from 1; `seq` counts the rows of a
    session from 1. `time` is in seconds since the epoch, taken once, when the role logged. Metrics are Python
    ints and floats, NaN and infinities included; integers fit in 64 bits.
    """

    writer: str
    session: int
    seq: int
    step: int
    time: float
    metrics: Metrics = field(default_factory=dict)
    table: Table | None = None
    commit: bool = False
