"""Reads what a page shows of a job from its journals, row by row: memory does not grow with the job."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeVar

from rolecall.cli.page.sampled import Sampled
from rolecall.cli.page.series import Series
from rolecall.cli.view.metrics import standing
from rolecall.cli.view.text import visible
from rolecall.job.history import ByAxis
from rolecall.rows import Change, Media, Row, TableData
from rolecall.store.codec import Damage
from rolecall.store.layout import Layout, RunRecord, job_record
from rolecall.store.reader import read_rows

_MOST_CELLS: Final = 5000
"""Of a table: beyond that a page is no place to read it."""
_MOST_STEPS: Final = 60
"""Of one key with media: a slider with more is no better to use."""
_MOST_TABLES: Final = 12
_MOST_TEXTS: Final = 100
_MOST_DAMAGES: Final = 20
_LONGEST_TEXT: Final = 4000
_DIGITS: Final = re.compile(r"([0-9]+)")

T = TypeVar("T")


@dataclass(slots=True)
class TableSample:
    """The first rows of a table, and how many it has."""

    columns: tuple[str, ...]
    rows: list[Sequence[object]]
    count: int


@dataclass(slots=True)
class Totals:
    """What a writer has logged."""

    rows: int = 0
    step: int | None = None
    first_time: float | None = None
    last_time: float | None = None
    damages: list[str] = field(default_factory=list)
    damaged: int = 0


@dataclass(slots=True)
class Contents:
    """What a page shows of a job. Keys are pairs: the writer, and the name under which it logged something.

    Attributes:
        hidden: the metrics that no pattern chose.
    """

    layout: Layout
    record: RunRecord
    totals: dict[str, Totals] = field(default_factory=dict)
    metrics: dict[tuple[str, str], Series] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    media: dict[tuple[str, str], Sampled[tuple[int, tuple[Media, ...]]]] = field(default_factory=dict)
    tables: dict[tuple[str, str], Sampled[tuple[int, TableSample]]] = field(default_factory=dict)
    texts: dict[tuple[str, str], Sampled[tuple[int, str]]] = field(default_factory=dict)


def read_contents(root: Path, patterns: Sequence[str]) -> Contents:
    """Read a job's journals once. Metrics whose `{writer}/{key}` matches none of the patterns are left out.

    Raises:
        DirectoryError: no job was launched there.
    """
    layout = Layout(root.absolute())  # the page names files for whoever reads it, wherever that is
    contents = Contents(layout, job_record(layout)[0])
    for writer in sorted(layout.writers(), key=natural):
        totals = contents.totals[writer] = Totals()
        # Found by the key alone: a tuple for each value would take as long as all the rest.
        series: dict[str, Series | None] = {}
        by_axis = ByAxis()
        for row in read_rows(layout, writer):
            if isinstance(row, Damage):
                _note(totals, row)
                continue
            if isinstance(row, Change):
                continue  # what it came to is on the page, in `about_job`
            totals.rows += 1
            totals.step = row.step
            totals.last_time = row.time
            totals.first_time = row.time if totals.first_time is None else totals.first_time
            for key, value in by_axis.metrics(row).items():
                if key not in series:
                    series[key] = _series(contents, row, key, patterns)
                if (found := series[key]) is not None:
                    found.add(row.session, row.step, value)
            _add_others(contents, row)
    return contents


def order(key: str) -> tuple[int, list[str | int]]:
    """What people look for first comes first."""
    return standing(key), natural(key)


def natural(name: str) -> list[str | int]:
    """To sort by: `explorer/2` comes before `explorer/10`."""
    return [int(part) if at % 2 else part for at, part in enumerate(_DIGITS.split(name))]


def _note(totals: Totals, damage: Damage) -> None:
    totals.damaged += 1
    if len(totals.damages) < _MOST_DAMAGES:
        totals.damages.append(visible(str(damage)))


def _series(contents: Contents, row: Row, key: str, patterns: Sequence[str]) -> Series | None:
    name = f"{row.writer}/{key}"
    if patterns and not any(fnmatchcase(name, pattern) for pattern in patterns):
        contents.hidden.append(name)
        return None
    return contents.metrics.setdefault((row.writer, key), Series(row.axis))


def _add_others(contents: Contents, row: Row) -> None:
    writer, step = row.writer, row.step
    for key, text in row.text.items():
        # Most strings stay the same for long, such as the name of a phase: a page shows when they change.
        if (writer, key) not in contents.texts or contents.texts[writer, key].last[1] != cut(text):
            _add(contents.texts, (writer, key), _MOST_TEXTS, (step, cut(text)))
    if row.table is not None:
        name = (writer, row.table.name)
        _add(contents.tables, name, _MOST_TABLES, (step, _table(row.table, contents.tables.get(name))))
    if row.media:
        _add(contents.media, (writer, row.media[0].key), _MOST_STEPS, (step, row.media))


def _add(into: dict[tuple[str, str], Sampled[T]], key: tuple[str, str], most: int, item: T) -> None:
    if key not in into:
        into[key] = Sampled(most)
    into[key].add(item)


def _table(table: TableData, before: Sampled[tuple[int, TableSample]] | None) -> TableSample:
    rows = _MOST_CELLS // max(1, len(table.columns))
    found = TableSample(table.columns, [_cells(row) for row in table.rows[:rows]], len(table.rows))
    if table.append and before is not None:
        # New rows of a table that grows: it is what it was, and these.
        last = before.last[1]
        if last.columns == table.columns:
            found = TableSample(table.columns, (last.rows + found.rows)[:rows], last.count + found.count)
    return found


def _cells(row: Sequence[object]) -> Sequence[object]:
    return [cut(cell) if isinstance(cell, str) else cell for cell in row]


def cut(text: str, longest: int = _LONGEST_TEXT) -> str:
    """The text, shortened where it is very long."""
    left = len(text) - longest
    return text if left <= 0 else f"{text[:longest]}… ({left} more characters)"
