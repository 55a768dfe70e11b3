"""Reads a job back from its journals: what `rolecall show` draws and exports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolecall.errors import DirectoryError
from rolecall.rows import Row
from rolecall.store.codec import Damage
from rolecall.store.journal import Entry, read_to_end
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Session, sessions
from rolecall.store.manifest import RunRecord, read_record

__all__ = ["JobHistory", "MetricHistory", "WriterHistory", "read_history", "read_rows"]


@dataclass(slots=True)
class MetricHistory:
    """One metric of one writer, in the order in which it was logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class WriterHistory:
    """What one writer logged. `state` is how it ended, `running`, or `killed`."""

    writer: str
    sessions: int = 0
    state: str = "killed"
    rows: int = 0
    tables: int = 0
    first_time: float | None = None
    last_time: float | None = None
    metrics: dict[str, MetricHistory] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        """Add what one entry says."""
        if isinstance(entry.value, Damage):
            self.damages.append(entry.value)
        elif isinstance(entry.value, Row):
            self._take_row(entry.value)

    def _take_row(self, row: Row) -> None:
        self.rows += 1
        self.tables += row.table is not None
        self.first_time = row.time if self.first_time is None else self.first_time
        self.last_time = row.time
        for key, value in row.metrics.items():
            metric = self.metrics.setdefault(key, MetricHistory())
            metric.steps.append(row.step)
            metric.values.append(value)


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job as its `monitor_dir` tells it."""

    record: RunRecord
    state: str
    writers: list[WriterHistory]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the job, its writers, and of each metric the count, range and last value."""
        return {
            "run_id": self.record.run_id,
            "project": self.record.project,
            "name": self.record.name,
            "state": self.state,
            "writers": [_summary(writer) for writer in self.writers],
        }


def read_history(root: Path) -> JobHistory:
    """Everything that was logged below a `monitor_dir`. Reads while the job runs, too.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root)
    record = read_record(layout)
    if record is None:
        raise DirectoryError(
            f"{root}: no run.json is here, so it is no monitor_dir. Give the monitor_dir of a job that was launched"
        )
    state = _state(sessions(layout.journal(LAUNCH)))
    return JobHistory(record, state, [_read_writer(layout, writer) for writer in layout.writers()])


def read_rows(root: Path) -> Iterator[Row]:
    """Every row, writer by writer, in the order in which it was logged."""
    layout = Layout(root)
    for writer in layout.writers():
        for session in sessions(layout.journal(writer)):
            values = (entry.value for entry in read_to_end(writer, session))
            yield from (value for value in values if isinstance(value, Row))


def _read_writer(layout: Layout, writer: str) -> WriterHistory:
    found = sessions(layout.journal(writer))
    history = WriterHistory(writer, sessions=len(found), state=_state(found))
    for session in found:
        for entry in read_to_end(writer, session):
            history.take(entry)
    return history


def _state(found: list[Session]) -> str:
    if not found:
        return "unknown"
    is_live, status = found[-1].look()
    return status or ("running" if is_live else "killed")


def _summary(writer: WriterHistory) -> dict[str, Any]:
    return {
        "writer": writer.writer,
        "state": writer.state,
        "sessions": writer.sessions,
        "rows": writer.rows,
        "tables": writer.tables,
        "first_time": writer.first_time,
        "last_time": writer.last_time,
        "damaged": [str(damage) for damage in writer.damages],
        "metrics": {key: _metric(metric) for key, metric in sorted(writer.metrics.items())},
    }


def _metric(metric: MetricHistory) -> dict[str, Any]:
    finite = [value for value in metric.values if math.isfinite(value)]
    return {
        "count": len(metric.values),
        "first_step": metric.steps[0],
        "last_step": metric.steps[-1],
        "last": metric.values[-1],
        "min": min(finite, default=None),
        "max": max(finite, default=None),
    }
