"""Reads a job back from its journals: what `rolecall show` draws and exports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolecall.errors import DirectoryError
from rolecall.rows import Row
from rolecall.states import State
from rolecall.store import reader
from rolecall.store.codec import Damage
from rolecall.store.layout import LAUNCH, Layout, RunRecord, read_record
from rolecall.store.lease import Session, sessions


@dataclass(slots=True)
class MetricHistory:
    """One metric of one writer, in the order in which it was logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class WriterHistory:
    """What one writer logged, and how it ended."""

    writer: str
    sessions: int = 0
    state: State = State.NONE
    rows: int = 0
    tables: int = 0
    first_time: float | None = None
    last_time: float | None = None
    metrics: dict[str, MetricHistory] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)

    def take(self, row: Row | Damage) -> None:
        """Add one row, or the damage between two."""
        if isinstance(row, Damage):
            self.damages.append(row)
            return
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
    """A job as its `monitor_dir` shows it."""

    record: RunRecord
    state: State
    writers: list[WriterHistory]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the job, its writers, and of each metric the count, range and last value."""
        return {
            "run_id": self.record.run_id,
            "project": self.record.project,
            "name": self.record.name,
            "state": str(self.state),
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
            f"{root}: not a monitor_dir (no run.json); give the monitor_dir of a job that was launched"
        )
    state = _state(sessions(layout.journal(LAUNCH)))
    return JobHistory(record, state, [_read_writer(layout, writer) for writer in layout.writers()])


def read_rows(root: Path) -> Iterator[Row]:
    """Every row, writer by writer, in the order in which it was logged."""
    layout = Layout(root)
    for writer in layout.writers():
        yield from (row for row in reader.read_rows(layout, writer) if isinstance(row, Row))


def _read_writer(layout: Layout, writer: str) -> WriterHistory:
    found = sessions(layout.journal(writer))
    history = WriterHistory(writer, sessions=len(found), state=_state(found))
    for row in reader.read_rows(layout, writer):
        history.take(row)
    return history


def _state(found: list[Session]) -> State:
    return found[-1].state() if found else State.NONE


def _summary(writer: WriterHistory) -> dict[str, Any]:
    return {
        "writer": writer.writer,
        "state": str(writer.state),
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
