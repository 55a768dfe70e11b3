"""What a role logged, in the form that reaches a backend: rows, tables and media, and what it said of its run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

Metrics = Mapping[str, float | int]
DETAILS: Final = ("config", "summary", "tags")
"""What a role says of its run beside its rows."""
NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON has no such numbers, so they are strings in a journal."""
MediaKind = Literal["image", "histogram", "html", "audio", "video", "file", "figure", "markdown"]


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


# Not frozen: a frozen one takes three times as long to make, and one is made for each row that is delivered.
@dataclass(slots=True, kw_only=True)
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


@dataclass(slots=True, kw_only=True)
class Change(Row):
    """A change of the run's config, summary or tags: numbered as a row is, empty, and handed to no backend as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What one writer said of its run, as it holds now.

    Attributes:
        config: what it changed of its config since it was opened.
        summary: numbers and strings.
        tags: labels, each once.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, float | str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def plus(self, change: Mapping[str, Any]) -> Self:
        """These details with a change, as a line of a journal holds it.

        Raises:
            ValueError: it is none: a stranger may have written it.
        """
        config, summary = change.get("config", {}), change.get("summary", {})
        tags = change.get("tags", self.tags)
        if not (isinstance(config, dict) and isinstance(summary, dict) and isinstance(tags, list | tuple)):
            raise ValueError("it changes nothing that can be changed")  # noqa: TRY004 - one error for all damage
        # A loop may set thousands of values one by one: only what changes is looked at, the rest is copied.
        merged = {**self.summary}
        for key, value in summary.items():
            if isinstance(value, int | float | str):
                merged[key] = _value(value)
            else:
                merged.pop(key, None)
        return type(self)(config={**self.config, **config}, summary=merged, tags=tuple(dict.fromkeys(map(str, tags))))

    def line(self) -> dict[str, Any]:
        """The same as a part of a line; empty if nothing was said."""
        return {kind: value for kind in DETAILS if (value := getattr(self, kind))}


def _value(value: float | str) -> float | str:
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
