"""A row as it is in a run: as it was logged, or among those of other writers."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("value", "metrics", "told"),
    [
        (0.5, {"explorer/0/step": 7, "explorer/0/step_": 0.5, "explorer/0/loss": 0.25}, ["the metric 'step' is"]),
        (7, {"explorer/0/step": 7, "explorer/0/loss": 0.25}, []),
    ],
)
def test_step_gives_way_to_the_axis(value: float, metrics: dict[str, float], told: list[str]) -> None:
    """A metric that has the axis' name is kept under another one, unless it says the same."""
    heard: list[str] = []
    mapped = shared_row(row(metrics={"step": value, "loss": 0.25}), True, heard.append)
    assert mapped.metrics == metrics
    assert [text[: len(start)] for text, start in zip(heard, told, strict=True)] == told
    assert shared_row(row(metrics={"step": value}), declares_axes=False).metrics == {"explorer/0/step": value}


def test_what_is_no_metric_never_takes_the_axis() -> None:
    """In wandb, a string, a table or an image of the axis' key would replace the step."""
    heard: list[str] = []
    given = row(
        text={"step": "warm-up"},
        table=TableData(name="step", columns=(), rows=()),
        media=(Media(key="step", kind="image"),),
    )
    mapped = shared_row(given, True, heard.append)
    assert (dict(mapped.metrics), dict(mapped.text)) == ({"explorer/0/step": 7}, {"explorer/0/step_": "warm-up"})
    assert mapped.table is not None
    assert (mapped.table.name, mapped.media[0].key) == ("explorer/0/step_", "explorer/0/step_")
    assert {text.partition(" in the shared run")[0] for text in heard} == {"the key 'step' is explorer/0/step_"}
    assert dict(shared_row(given, False).text) == {"explorer/0/step": "warm-up"}


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("0/reward", "agent/0_/reward"),
        ("12/step", "agent/12_/step"),
        ("0", "agent/0"),
        ("0x/reward", "agent/0x/reward"),
        ("a/0/reward", "agent/a/0/reward"),
    ],
)
def test_keys_of_two_roles_never_meet(key: str, shown: str) -> None:
    heard: list[str] = []
    given = replace(row(metrics={key: 0.5}, text={key: "x"}), writer="agent")
    mapped = shared_row(given, False, heard.append)
    assert (dict(mapped.metrics), dict(mapped.text)) == ({shown: 0.5}, {shown: "x"})
    assert bool(heard) == (shown != f"agent/{key}")
    ranked = shared_row(row(metrics={key: 0.5}), False, heard.append)
    assert dict(ranked.metrics) == {f"explorer/0/{key}": 0.5}
