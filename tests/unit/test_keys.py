"""A row as it is in a run: as it was logged, or among those of other writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rolecall.delivery.keys import Keys
from rolecall.rows import Media, Row, TableData
from rolecall.store.axes import AxisBook
from rolecall.store.codec import encode
from rolecall.store.layout import Layout
from rolecall.store.lease import claim

NOWHERE = Layout(Path("no-such-directory"))


def row(**settings: Any) -> Row:
    return Row(writer="explorer/0", session=1, seq=1, step=7, time=1764000000.0, **settings)


def keys_of(writer: str = "explorer/0", layout: Layout = NOWHERE, **settings: Any) -> Keys:
    book = AxisBook(layout, writer, writes=layout is not NOWHERE)
    return Keys(book, **{"shared": True, "declares_axes": True, **settings})


def shared_row(given: Row, declares_axes: bool, report: Callable[[str], None] = lambda _: None) -> Row:
    """The first row of a writer, as it is in a shared run."""
    return renamed(keys_of(given.writer, declares_axes=declares_axes, report=report), given)


def renamed(keys: Keys, given: Row) -> Row:
    keys.rename(found := replace(given))
    return found


def test_prefix_and_axis_are_added() -> None:
    mapped = shared_row(row(metrics={"reward/mean": 0.5, "n": 3}, commit=True), declares_axes=True)
    assert mapped == row(metrics={"explorer/0/reward/mean": 0.5, "explorer/0/n": 3, "explorer/0/step": 7}, commit=True)


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
        (
            0.5,
            {"explorer/0/step": 7, "explorer/0/step_": 0.5, "explorer/0/loss": 0.25},
            ["the metric explorer/0/step is explorer/0/step_"],
        ),
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
    assert {text.partition(" in the run")[0] for text in heard} == {"the key explorer/0/step is explorer/0/step_"}
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


# ------------------------------------------------------------------ several axes


def names(keys: Keys, axis: str | None, *logged: str, step: int = 3) -> list[str]:
    """The names of metrics that are logged together; the step among them, if it is a metric."""
    mapped = renamed(keys, replace(row(metrics=dict.fromkeys(logged, 0.5), axis=axis), step=step))
    return list(mapped.metrics)


def test_each_axis_has_a_step_of_its_own() -> None:
    keys = keys_of("trainer")
    assert names(keys, None, "loss") == ["trainer/loss", "trainer/step"]
    assert names(keys, "eval", "accuracy") == ["trainer/accuracy", "trainer/eval/step"]
    assert keys.bindings(0) == ({"trainer/loss": "trainer/step", "trainer/accuracy": "trainer/eval/step"}, 2)
    assert keys.bindings(2) == ({}, 2)


def test_key_belongs_to_the_axis_on_which_it_was_first_logged() -> None:
    heard: list[str] = []
    keys = keys_of("trainer", report=heard.append)
    names(keys, None, "loss", "lr")
    names(keys, "eval", "accuracy")
    assert names(keys, "eval", "loss", "accuracy") == ["trainer/eval/loss", "trainer/accuracy", "trainer/eval/step"]
    assert names(keys, None, "accuracy") == ["trainer/step/accuracy", "trainer/step"]
    said = "belongs to another axis, on which it was logged first; on"
    assert heard == [
        f"trainer/loss {said} trainer/eval/step it is trainer/eval/loss",
        f"trainer/accuracy {said} trainer/step it is trainer/step/accuracy",
    ]
    assert keys.bindings(0)[0]["trainer/eval/loss"] == "trainer/eval/step"


def test_moved_key_never_meets_another_one() -> None:
    keys = keys_of("trainer")
    names(keys, None, "loss", "eval/loss")
    assert names(keys, "eval", "loss") == ["trainer/eval/loss_", "trainer/eval/step"]


def test_key_of_an_axis_gives_way_unless_it_says_the_step() -> None:
    """slime logs `train/step` beside what it logs on the axis `train`."""
    keys = keys_of("actor")
    first = renamed(keys, replace(row(metrics={"train/loss": 0.5, "train/step": 3}, axis="train"), step=3))
    assert first.metrics == {"actor/train/loss": 0.5, "actor/train/step": 3}
    other = renamed(keys, replace(row(metrics={"reward": 1.0, "train/step": 9}, axis="rollout"), step=1))
    assert other.metrics == {"actor/reward": 1.0, "actor/train/step_": 9, "actor/rollout/step": 1}


def test_run_of_its_own_has_axes_once_there_are_two() -> None:
    """Until then it is what it would be without axes."""
    keys = keys_of("trainer", shared=False)
    plain = row(metrics={"loss": 0.5, "step": 1})
    assert renamed(keys, plain) == plain
    assert (keys.carries_axes, keys.bindings(0)) == (False, ({}, 0))
    assert names(keys, "eval", "accuracy") == ["accuracy", "eval/step"]
    assert names(keys, None, "loss") == ["loss", "step"]
    assert keys.bindings(0)[0] == {"loss": "step", "accuracy": "eval/step"}


def test_backend_whose_metrics_have_steps_gets_names_alone() -> None:
    keys = keys_of("trainer", shared=False, declares_axes=False)
    plain = row(metrics={"loss": 0.5}, axis="eval")
    assert renamed(keys, plain) == plain
    assert names(keys, None, "loss", "eval/step") == ["step/loss", "eval/step"]
    assert keys.bindings(0) == ({}, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_axes_are_known_after_a_restart(tmp_path: Path, *, shared: bool) -> None:
    """A courier goes on amid a journal, and all backends have the same names."""
    layout = Layout(tmp_path)
    names(keys_of("trainer", layout, shared=not shared), None, "loss")
    names(keys_of("trainer", layout, shared=shared), "eval", "accuracy")
    prefix = "trainer/" if shared else ""
    successor = keys_of("trainer", layout, shared=shared)
    assert successor.carries_axes
    assert successor.bindings(0)[0] == {f"{prefix}loss": f"{prefix}step", f"{prefix}accuracy": f"{prefix}eval/step"}
    assert names(successor, "eval", "loss") == [f"{prefix}eval/loss", f"{prefix}eval/step"]


# ------------------------------------------------------------------ prefixes


def prefixed(tmp_path: Path, prefix: str, *writers: str) -> Layout:
    layout = Layout(tmp_path)
    for writer in writers:
        claim(layout.journal(writer), {"writer": writer, "prefix": prefix}, writer)
    return layout


@pytest.mark.parametrize("shared", [True, False])
def test_given_prefix_always_holds(tmp_path: Path, *, shared: bool) -> None:
    keys = keys_of("trainer", prefixed(tmp_path, "rl/", "trainer"), shared=shared)
    assert names(keys, "eval", "loss") == ["rl/loss", "rl/eval/step"]
    assert keys.bindings(0)[0] == {"rl/loss": "rl/eval/step"}


def test_roles_that_share_a_prefix_share_its_axes(tmp_path: Path) -> None:
    layout = prefixed(tmp_path, "", "orchestrator", "trainer")
    orchestrator, trainer = (keys_of(writer, layout) for writer in ("orchestrator", "trainer"))
    assert names(trainer, None, "loss", "0/x") == ["loss", "0/x", "step"]
    assert names(orchestrator, None, "reward") == ["reward", "step"]
    assert names(orchestrator, "eval", "accuracy") == ["accuracy", "eval/step"]
    assert orchestrator.bindings(0)[0].keys() == {"reward", "accuracy"}


def test_first_writer_has_its_way_with_a_key_of_two(tmp_path: Path) -> None:
    """Whichever is read first: by then, the other one has logged it on its own axis."""
    layout = prefixed(tmp_path, "", "orchestrator", "trainer")
    books = {writer: AxisBook(layout, writer) for writer in ("orchestrator", "trainer")}
    late, early = (Keys(books[writer], shared=True, declares_axes=True) for writer in ("trainer", "orchestrator"))
    assert names(late, "train", "loss") == ["loss", "train/step"]
    assert names(early, None, "loss") == ["loss", "step"]
    books["trainer"].refresh()
    assert names(late, "train", "loss") == ["train/loss", "train/step"]
    for writer in ("orchestrator", "trainer"):
        assert AxisBook(layout, writer).bindings() == {"loss": "step", "train/loss": "train/step"}
    assert encode({"axes": {"loss": "step"}}) in layout.bindings("orchestrator").read_bytes()
