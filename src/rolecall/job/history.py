"""Reads a job back from its journals: what `rolecall show` draws and exports."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rolecall.rows import Change, Row
from rolecall.states import State
from rolecall.store import reader
from rolecall.store.codec import Damage, last_line
from rolecall.store.details import Details, config_now, details_now
from rolecall.store.layout import LAUNCH, Layout, RunRecord, job_record
from rolecall.store.lease import newest, sessions

_MOST_DAMAGES: Final = 20
"""Of a writer, that are described: a wrecked file may have millions."""


@dataclass(slots=True)
class MetricHistory:
    """One metric of one writer, in the order in which it was logged."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The count, the range and the last value. Values that are not finite have no part in the range."""
        finite = [value for value in self.values if math.isfinite(value)]
        return {
            "count": len(self.values),
            "first_step": self.steps[0],
            "last_step": self.steps[-1],
            "last": self.values[-1],
            "min": min(finite, default=None),
            "max": max(finite, default=None),
        }


@dataclass(slots=True)
class WriterHistory:
    """What one writer logged, and how it ended.

    Attributes:
        rows: how many rows are in its journal.
        cleaned: how many `rolecall clean` removed from it.
        damages: the first places where its journal is damaged.
        damaged: how many there are.
    """

    writer: str
    sessions: int = 0
    state: State = State.NONE
    rows: int = 0
    cleaned: int = 0
    tables: int = 0
    first_time: float | None = None
    last_time: float | None = None
    metrics: dict[str, MetricHistory] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    damaged: int = 0

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = ("writer", "state", "sessions", "rows", "cleaned", "tables", "first_time", "last_time")
        metrics = {key: metric.summary() for key, metric in sorted(self.metrics.items())}
        damaged = list(self.describe_damages())
        return {**{name: getattr(self, name) for name in plain}, "damaged": damaged, "metrics": metrics}

    def describe_damages(self) -> Iterator[str]:
        """The first places, and how many more there are."""
        yield from map(str, self.damages)
        if more := self.damaged - len(self.damages):
            yield f"{self.writer}: {more} more places"


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job as its `monitor_dir` shows it."""

    record: RunRecord
    state: State
    writers: list[WriterHistory]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the job, its writers, and of each metric the count, range and last value."""
        job = {name: getattr(self.record, name) for name in ("run_id", "project", "name")}
        return {**job, "state": self.state, "writers": [writer.summary() for writer in self.writers]}


def read_history(root: Path) -> JobHistory:
    """Everything that was logged below a `monitor_dir`. Reads while the job runs, too.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root)
    record, _ = job_record(layout)
    writers = [_read_writer(layout, writer) for writer in (LAUNCH, *layout.writers())]
    return JobHistory(record, _job_state(layout, [writer.state for writer in writers]), writers[1:])


def read_rows(root: Path) -> Iterator[Row]:
    """Every row, writer by writer, in the order in which it was logged.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root)
    job_record(layout)
    found = (row for writer in layout.writers() for row in reader.read_rows(layout, writer))
    return (row for row in found if isinstance(row, Row) and not isinstance(row, Change))


def read_details(root: Path) -> dict[str, Details]:
    """What each writer said of its run beside its rows, as it holds now: the config, the summary and the tags.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root)
    job_record(layout)
    found = {writer: (details_now(layout, writer), config_now(layout, writer)) for writer in layout.writers()}
    return {writer: replace(details, config=config) for writer, (details, config) in found.items()}


def job_state(layout: Layout) -> State:
    """How the job in a directory is doing, or ended."""
    found = (newest(layout.journal(writer)) for writer in (LAUNCH, *layout.writers()))
    return _job_state(layout, [session.state() if session is not None else State.NONE for session in found])


def _job_state(layout: Layout, states: list[State]) -> State:
    """How the job ended: as its launcher did, or all of its processes together if the last one of them ends it."""
    launch = newest(layout.journal(LAUNCH))
    if launch is None or "ends" not in launch.header():
        return states[0]
    if State.RUNNING in states:
        return State.RUNNING
    # As the last courier tells the backends.
    return next((state for state in states if state is not State.FINISHED), State.FINISHED)


def _read_writer(layout: Layout, writer: str) -> WriterHistory:
    found = sessions(layout.journal(writer))
    history = WriterHistory(writer, len(found), found[-1].state() if found else State.NONE)
    ends = (last_line(session.path, session.seed) or {} for session in found)
    history.cleaned = sum(rows for each in ends if isinstance(rows := each.get("cleaned"), int))
    for row in reader.read_rows(layout, writer):
        if isinstance(row, Damage):
            history.damaged += 1
            if len(history.damages) < _MOST_DAMAGES:
                history.damages.append(row)
            continue
        if isinstance(row, Change):
            continue
        history.rows += 1
        history.tables += row.table is not None
        history.first_time = row.time if history.first_time is None else history.first_time
        history.last_time = row.time
        for key, value in row.metrics.items():
            metric = history.metrics.setdefault(key, MetricHistory())
            metric.steps.append(row.step)
            metric.values.append(value)
    return history
