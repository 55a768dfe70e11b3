"""Rows, tables and media: what a role logged, in the form that reaches a backend."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Metrics = Mapping[str, float | int]
MediaKind = Literal["image", "histogram", "html", "audio", "video", "file", "figure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An image, a histogram or another object that a role logged under a key.

    Attributes:
        key: the key that it was logged under.
        kind: what it is.
        path: a file with its bytes, readable until the row is acknowledged; `None` for a histogram.
        mime: the media type of that file.
        caption: what the user wrote below it.
        counts: the counts of a histogram's bins.
        edges: the edges of a histogram's bins, one more than `counts`.
    """

    key: str
    kind: MediaKind
    path: Path | None = None
    mime: str = ""
    caption: str = ""
    counts: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()


Cell = str | int | float | bool | Media | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableData:
    """A table that a role logged. Every row is as wide as `columns`.

    Attributes:
        name: the key that it was logged under.
        columns: the column names.
        rows: the cells, row by row. There is no `Media` among them, unless the run is a `SupportsTableMedia`.
        append: whether `rows` are new rows of a table that grows over steps.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    append: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one call of `Monitor.log` recorded: its metrics and strings, or one table, or the media of one key.

    `(writer, session, seq)` identifies a row forever. `step` does not, because steps repeat after a restart from a
    checkpoint.

    Attributes:
        writer: `"explorer"` or `"explorer/0"`.
        session: counts how often the writer was opened, from 1.
        seq: counts the rows of a session, from 1.
        step: the step on the row's axis, a whole number of 64 bits.
        time: seconds since the epoch, taken once, when the role logged.
        metrics: Python ints of 64 bits and floats, NaN and infinities included.
        axis: the name of the axis; `None` for the writer's default axis.
        text: strings that were logged beside the metrics.
        table: the table, if the row is one.
        media: the media of one key, if the row is that.
        commit: what `log` was given; see `wandb.Run.log`.
        backends: the only backends that get the row; `None` for all.
    """

    writer: str
    session: int
    seq: int
    step: int
    time: float
    metrics: Metrics = field(default_factory=dict)
    axis: str | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    table: TableData | None = None
    media: tuple[Media, ...] = ()
    commit: bool = False
    backends: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Row):
    """A change of the run's config, summary or tags: numbered as a row is, empty, and handed to no backend as one."""
