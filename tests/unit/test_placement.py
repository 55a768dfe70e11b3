"""A row as it stands in a run: as it is, or among those of other writers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rolecall.delivery.keys import AS_IT_IS, Placement, axis_of
from rolecall.rows import Row, TableData


def row(**settings: Any) -> Row:
    return Row(writer="explorer/0", session=1, seq=1, step=7, time=1764000000.0, **settings)


def shared(declares_axes: bool) -> Placement:
    return Placement.shared("explorer/0", declares_axes)


def test_keys_get_the_writers_prefix_and_a_row_its_axis() -> None:
    placed = shared(declares_axes=True).place(row(metrics={"reward/mean": 0.5, "n": 3}, commit=True))
    assert placed == row(
        metrics={"explorer/0/reward/mean": 0.5, "explorer/0/n": 3, "explorer/0/step": 7}, commit=True
    )
    assert axis_of("explorer/0") == "explorer/0/step"


def test_all_else_of_a_row_stays_as_it_is() -> None:
    """Each field has a value that no other has, and that is not its default."""
    given = Row(writer="trainer", session=2, seq=3, step=4, time=5.0, metrics={"loss": 0.5}, commit=True)
    placed = Placement.shared("trainer", declares_axes=False).place(given)
    changed = {
        field.name for field in fields(Row) if getattr(placed, field.name) != getattr(given, field.name)
    }
    assert changed == {"metrics"}


def test_where_no_axes_are_declared_a_row_has_none() -> None:
    placed = shared(declares_axes=False).place(row(metrics={"loss": 0.5}))
    assert placed.metrics == {"explorer/0/loss": 0.5}


def test_a_table_gets_the_prefix_too() -> None:
    table = TableData(name="samples", columns=("a",), rows=((1,),))
    placed = shared(declares_axes=False).place(row(table=table))
    assert placed.table == TableData(name="explorer/0/samples", columns=("a",), rows=((1,),))


def test_the_row_that_was_given_stays_as_it_was() -> None:
    given = row(metrics={"loss": 0.5})
    shared(declares_axes=True).place(given)
    assert given == row(metrics={"loss": 0.5})


def test_a_metric_that_has_the_axis_name_gives_way_to_the_step() -> None:
    placed = shared(declares_axes=True).place(row(metrics={"step": 0.5, "loss": 0.25}))
    assert placed.metrics == {"explorer/0/step": 7, "explorer/0/loss": 0.25}


def test_in_a_run_of_its_own_a_row_is_as_it_was_logged() -> None:
    given = row(metrics={"loss": 0.5})
    assert AS_IT_IS.place(given) is given
    assert AS_IT_IS.keys(["loss"]) == ("loss",)
