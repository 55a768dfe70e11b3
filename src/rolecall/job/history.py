"""Reads a job back from its journals: what `rolecall show` draws and exports."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from rolecall.rows import Change, Details, Media, Metrics, Row, TableData
from rolecall.states import State
from rolecall.store import reader as journals
from rolecall.store.codec import Damage, last_line
from rolecall.store.details import config_now, details_now, details_of
from rolecall.store.layout import LAUNCH, SINGLE, Layout, RunRecord, is_node, job_record
from rolecall.store.lease import newest
from rolecall.store.reader import End, WriterReader

_T = TypeVar("_T")
_MOST_DAMAGES: Final = 20
"""Of a writer, that are described: a wrecked file may have millions."""
_MOST_POINTS: Final = 512
"""Of a metric, that are kept: at least half as many, with which a chart of 128 columns misses nothing."""
_MOST_ROWS: Final = 100
"""Of a table, that are kept: its last ones."""
_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks for new writers and for how each is doing. Rows are looked for each time."""
_LOOK_SHARE: Final = 0.01
"""Of a core, for these looks: with many writers there are fewer."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one metric of one writer came to. Values that are not finite have no part in the range and the mean."""

    count: int
    first_step: int
    last_step: int
    last: float
    low: float | None
    high: float | None
    mean: float | None


@dataclass(slots=True)
class MetricHistory:
    """One metric of one writer, in the order in which it was logged.

    Of a long history the points that a chart needs are kept: the least and the greatest of those that were beside each
    other, and one that is not finite. `statistics` is of all points.

    Attributes:
        steps: the steps of the points that are kept.
        values: their values.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    _summed: int = 0
    _base: Statistics | None = None
    _total: float = 0.0
    _finite: int = 0

    def add(self, step: int, value: float) -> None:
        """One more point."""
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > _MOST_POINTS:
            self.statistics()
            self._thin()

    def statistics(self) -> Statistics:
        """Of all points that were added; there must be one."""
        base, new = self._base, self.values[self._summed :]
        if not new and base is not None:
            return base
        finite = [value for value in new if math.isfinite(value)]
        known = [*finite, *(each for each in (base.low, base.high) if each is not None)] if base else finite
        # Halves, so that the sum of the largest floats is none that is infinite.
        self._total += math.fsum(value / 2 for value in finite)
        self._finite += len(finite)
        self._summed = len(self.values)
        self._base = Statistics(
            count=len(new) + (base.count if base else 0),
            first_step=base.first_step if base else self.steps[0],
            last_step=self.steps[-1],
            last=self.values[-1],
            low=min(known, default=None),
            high=max(known, default=None),
            mean=self._total / self._finite * 2 if self._finite else None,
        )
        return self._base

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the count, the range and the last value."""
        found = self.statistics()
        names = ("count", "first_step", "last_step", "last")
        return {**{name: getattr(found, name) for name in names}, "min": found.low, "max": found.high}

    def _thin(self) -> None:
        kept: list[int] = []
        last = len(self.values) - 1
        for start in range(0, last, 4):
            group = range(start, min(start + 4, last))
            finite = [at for at in group if math.isfinite(self.values[at])]
            odd = [at for at in group if not math.isfinite(self.values[at])]
            ends = [pick(finite, key=self.values.__getitem__) for pick in (min, max)] if finite else []
            kept += sorted({*odd[:1], *ends})
        kept.append(last)  # charts end there
        self.steps = [self.steps[at] for at in kept]
        self.values = [self.values[at] for at in kept]
        self._summed = len(kept)


@dataclass(slots=True)
class Held(Generic[_T]):
    """What a writer logged under one key that is no number: how often, and the last one."""

    count: int
    step: int
    last: _T


@dataclass(slots=True)
class HeldTable(Held[TableData]):
    """The last table of a name, or what one that grows has come to.

    Attributes:
        rows: how many rows it has; the last ones are kept in `last`.
    """

    rows: int


class ByAxis:
    """Names a writer's metrics as backends do: a key belongs to the axis on which it was first logged."""

    def __init__(self) -> None:
        self._axes: dict[str, str | None] = {}

    def metrics(self, row: Row) -> Metrics:
        """The metrics of a row, those of another axis than their key's as `{axis}/{key}`. Rows come in order."""
        axis, axes = row.axis, self._axes
        others = [key for key in row.metrics if axes.setdefault(key, axis) != axis]
        if not others:
            return row.metrics
        return {f"{axis or 'step'}/{key}" if key in others else key: value for key, value in row.metrics.items()}


@dataclass(slots=True)
class WriterHistory:
    """What one writer logged, and how it ended.

    Attributes:
        rows: how many rows are in its journal.
        cleaned: how many `rolecall clean` removed from it.
        tables: how many of its rows are tables.
        last_step: that of its last row on its default axis; on any, if it uses no default axis.
        last_tables, last_media, last_text: the last one under each key.
        damages: the first places where its journal is damaged.
        damaged: how many there are.
        details: what it said of its run beside its rows, as it holds now; the config in it is what it changed.
    """

    writer: str
    sessions: int = 0
    state: State = State.NONE
    rows: int = 0
    cleaned: int = 0
    tables: int = 0
    last_step: int | None = None
    first_time: float | None = None
    last_time: float | None = None
    metrics: dict[str, MetricHistory] = field(default_factory=dict)
    last_tables: dict[str, HeldTable] = field(default_factory=dict)
    last_media: dict[str, Held[tuple[Media, ...]]] = field(default_factory=dict)
    last_text: dict[str, Held[str]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    damaged: int = 0
    details: Details = field(default_factory=Details)
    _has_default: bool = False
    _by_axis: ByAxis = field(default_factory=ByAxis)

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows += 1
        # Evaluations may count by themselves: a writer is as far as its default axis, if it has one.
        self._has_default = self._has_default or row.axis is None
        if row.axis is None or not self._has_default:
            self.last_step = row.step
        self.first_time = row.time if self.first_time is None else self.first_time
        self.last_time = row.time
        for key, value in self._by_axis.metrics(row).items():
            metric = self.metrics.get(key)
            if metric is None:
                metric = self.metrics[key] = MetricHistory()
            metric.add(row.step, value)
        for key, text in row.text.items():
            _hold(self.last_text, key, row.step, text)
        if row.table is not None:
            self.tables += 1
            self._hold_table(row.step, row.table)
        if row.media:
            _hold(self.last_media, row.media[0].key, row.step, row.media)

    def _hold_table(self, step: int, table: TableData) -> None:
        before = self.last_tables.get(table.name)
        count, rows, size = 1, table.rows, len(table.rows)
        if before is not None:
            count += before.count
            if table.append and before.last.columns == table.columns:
                # New rows of a table that grows: it is what it was, and these.
                rows, size = (*before.last.rows, *rows), before.rows + size
        self.last_tables[table.name] = HeldTable(count, step, replace(table, rows=rows[-_MOST_ROWS:]), size)

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = ("writer", "state", "sessions", "rows", "cleaned", "tables", "first_time", "last_time")
        metrics = {key: metric.summary() for key, metric in sorted(self.metrics.items())}
        said = {"summary": self.details.summary, "tags": self.details.tags}
        damaged = list(self.describe_damages())
        return {**{name: getattr(self, name) for name in plain}, **said, "damaged": damaged, "metrics": metrics}

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

    @property
    def roles(self) -> list[WriterHistory]:
        """Those that are roles."""
        return [each for each in self.writers if not is_node(each.writer)]

    @property
    def nodes(self) -> list[WriterHistory]:
        """Those that are agents of nodes, whose rows are system metrics."""
        return [each for each in self.writers if is_node(each.writer)]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the job, its writers with what they said of it, and of each metric what it came to."""
        job = {name: getattr(self.record, name) for name in ("run_id", "project", "name")}
        return {**job, "state": self.state, "writers": [writer.summary() for writer in self.writers]}


class JobReader:
    """Reads a job again and again while it runs; each time only what is new.

    Args:
        root: the `monitor_dir`.

    Raises:
        DirectoryError: no job was launched there.
    """

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root)
        self._record, _ = job_record(self._layout)
        self._readers: dict[str, tuple[WriterReader, WriterHistory]] = {}
        self._state = State.NONE
        self._due = -math.inf

    @property
    def history(self) -> JobHistory:
        """What was read so far; the writers in it go on as `refresh` reads."""
        return JobHistory(self._record, self._state, [history for _, history in self._readers.values()])

    def refresh(self) -> bool:
        """Read on; whether anything is new. New writers, and how each is doing, are looked for once a second.

        Raises:
            DirectoryError: the job was moved away, and there is no other.
        """
        changed = self._look() if time.monotonic() >= self._due else False
        for journal, history in self._readers.values():
            if journal.has_grown():
                changed = True
                _read(journal, history)
        return changed

    def _look(self) -> bool:
        begin = time.process_time()
        record, _ = job_record(self._layout)
        if record.run_id != self._record.run_id:
            # A new job was launched here, and this one moved to `previous`.
            self._readers.clear()
        before = self._states()
        self._record = record
        for writer in self._layout.writers():
            if writer not in self._readers:
                self._readers[writer] = WriterReader(self._layout, writer), WriterHistory(writer)
        self._readers = dict(sorted(self._readers.items()))
        for journal, history in self._readers.values():
            journal.look()
            history.sessions = len(journal.found)
            history.state = journal.found[-1].state() if journal.found else State.NONE
            ends = (last_line(session.path, session.seed) or {} for session in journal.found)
            history.cleaned = sum(rows for each in ends if isinstance(rows := each.get("cleaned"), int))
            history.details = details_of(journal.found[-1]) if journal.found else Details()
        self._state = _job_state(self._layout, [each.state for each in self.history.roles])
        self._due = time.monotonic() + max(_LOOK_INTERVAL, (time.process_time() - begin) / _LOOK_SHARE)
        return before != self._states()

    def _states(self) -> object:
        writers = [(each.writer, each.state, each.sessions, each.details) for _, each in self._readers.values()]
        return self._record, self._state, writers


def read_history(root: Path) -> JobHistory:
    """Everything that was logged below a `monitor_dir`. Reads while the job runs, too.

    Raises:
        DirectoryError: no job was launched there.
    """
    reader = JobReader(root)
    reader.refresh()
    return reader.history


def read_configs(root: Path) -> dict[str, Mapping[str, Any]]:
    """The config of the job, under `""`, and those of the roles that were opened with one of their own."""
    layout = Layout(root)
    found: dict[str, Mapping[str, Any]] = {}
    for writer in (LAUNCH, *layout.writers()):
        if config := config_now(layout, writer):
            found["" if writer in (LAUNCH, SINGLE) else writer] = config
    return found


def read_rows(root: Path) -> Iterator[Row]:
    """Every row, writer by writer, in the order in which it was logged.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root)
    job_record(layout)
    found = (row for writer in layout.writers() for row in journals.read_rows(layout, writer))
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
    found = (newest(layout.journal(writer)) for writer in layout.roles())
    return _job_state(layout, [session.state() for session in found if session is not None])


def _job_state(layout: Layout, states: list[State]) -> State:
    """How the job ended: as its launcher did, or all of its processes together if the last one of them ends it."""
    launch = newest(layout.journal(LAUNCH))
    if launch is None:
        return State.NONE
    state = launch.state()
    if "ends" not in launch.header():
        return state
    states = [state, *states]
    if State.RUNNING in states:
        return State.RUNNING
    # As the last courier tells the backends.
    return next((state for state in states if state is not State.FINISHED), State.FINISHED)


def _read(journal: WriterReader, history: WriterHistory) -> None:
    for _, (value, _) in journal.read():
        match value:
            case Change() | End():
                pass
            case Row():
                history.add(value)
            case Damage():
                history.damaged += 1
                if len(history.damages) < _MOST_DAMAGES:
                    history.damages.append(value)


def _hold(held: dict[str, Held[_T]], key: str, step: int, value: _T) -> None:
    count = held[key].count if key in held else 0
    held[key] = Held(count + 1, step, value)
