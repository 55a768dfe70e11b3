"""A row as it is in a run: as it was logged, or among those of other writers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rolecall.delivery.keys import shared_row
from rolecall.rows import Media, Row, TableData
from rolecall.store.axes import axis_of


def row(**settings: Any) -> Row:
    return Row(writer="explorer/0", session=1, seq=1, step=7, time=1764000000.0, **settings)


def test_prefix_and_axis_are_added() -> None:
    mapped = shared_row(row(metrics={"reward/mean": 0.5, "n": 3}, commit=True), declares_axes=True)
    assert mapped == row(metrics={"explorer/0/reward/mean": 0.5, "explorer/0/n": 3, "explorer/0/step": 7}, commit=True)
    assert axis_of("explorer/0") == "explorer/0/step"


def test_all_else_stays() -> None:
    """Each field has a value that no other has, and that is not its default."""
    given = Row(
        writer="trainer",
        session=2,
        seq=3,
        step=4,
        time=5.0,
        metrics={"loss": 0.5},
        axis="epoch",
        text={"phase": "warm-up"},
        table=TableData(name="samples", columns=(), rows=()),
        media=(Media(key="image", kind="image"),),
        commit=True,
    )
    mapped = shared_row(given, declares_axes=False)
    changed = {field.name for field in fields(Row) if getattr(mapped, field.name) != getattr(given, field.name)}
    assert changed == {"metrics", "text", "table", "media"}


def test_no_axis_where_none_is_declared() -> None:
    mapped = shared_row(row(metrics={"loss": 0.5}), declares_axes=False)
    assert mapped.metrics == {"explorer/0/loss": 0.5}


def test_tables_texts_and_media_are_prefixed() -> None:
    given = row(
        text={"phase": "warm-up"},
        table=TableData(name="samples", columns=("a",), rows=((1,),)),
        media=(Media(key="image", kind="image", caption="a cat"),),
    )
    mapped = shared_row(given, declares_axes=False)
    assert mapped == row(
        text={"explorer/0/phase": "warm-up"},
        table=TableData(name="explorer/0/samples", columns=("a",), rows=((1,),)),
        media=(Media(key="explorer/0/image", kind="image", caption="a cat"),),
    )


def test_given_row_stays() -> None:
    given = row(metrics={"loss": 0.5})
    shared_row(given, declares_axes=True)
    assert given == row(metrics={"loss": 0.5})


def test_step_wins_over_its_namesake() -> None:
    """A metric that has the axis' name gives way."""
    mapped = shared_row(row(metrics={"step": 0.5, "loss": 0.25}), declares_axes=True)
    assert mapped.metrics == {"explorer/0/step": 7, "explorer/0/loss": 0.25}
