"""What a backend acknowledged is kept, by one courier at a time; what is lost of it costs a repetition."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rolecall.errors import WriterConflict
from rolecall.rows import Row
from rolecall.store.acks import (
    Delivered,
    Delivery,
    RunReference,
    delivered,
    is_carried,
    read_reference,
    undelivered,
    write_atomically,
)
from rolecall.store.codec import Frame, encode, read_frames
from rolecall.store.journal import JournalWriter, Place, read_journal
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, newest, sessions, this_process

NOTHING = Delivered(Place(1, 0), 0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "monitor")


def open_delivery(layout: Layout) -> Delivery:
    return Delivery(layout, "mlflow", "trainer")


def done(layout: Layout) -> Delivered:
    return delivered(layout, "mlflow", "trainer")


def left(layout: Layout) -> int:
    return undelivered(layout, "mlflow", "trainer")


def write_rows(layout: Layout, count: int, end: bool = True) -> Session:
    session = claim(layout.journal("trainer"), {"writer": "trainer"}, "it")
    journal = JournalWriter(session)
    for step in range(1, count + 1):
        journal.append(step, {"loss": 0.5})
    if end:
        journal.end("finished")
    else:
        journal.abandon()
    return session


def offsets(session: Session) -> list[int]:
    return [entry.offset for entry in read_journal("trainer", session) if isinstance(entry.value, Row)]


def plant_dead(layout: Layout, number: int, *frames: dict[str, Any] | bytes) -> Path:
    """A courier's session whose process is no more."""
    folder = layout.delivery("mlflow", "trainer")
    folder.mkdir(parents=True, exist_ok=True)
    header = {"rolecall": 1, "owner": asdict(replace(this_process(), start="0")), "a": [1, 0], "k": 0}
    path = folder / f"{number}.jsonl"
    path.write_bytes(
        b"".join(frame if isinstance(frame, bytes) else encode(frame) for frame in (header, *frames))
    )
    return path


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nothing_is_delivered_before_anyone_said_so(layout: Layout) -> None:
    assert done(layout) == NOTHING
    assert left(layout) == 0
    assert not is_carried(layout, "mlflow", "trainer")


def test_an_acknowledgement_is_seen_at_once_and_by_the_next_courier(layout: Layout) -> None:
    delivery = open_delivery(layout)
    assert delivery.done == NOTHING
    delivery.acknowledge(Place(1, 500), 5)
    delivery.acknowledge(Place(2, 100), 3)
    assert delivery.done == done(layout) == Delivered(Place(2, 100), 8)
    delivery.release("finished")
    successor = open_delivery(layout)
    assert successor.done == Delivered(Place(2, 100), 8)
    assert done(layout) == Delivered(Place(2, 100), 8), "it stands in the new session's first frame"
    successor.release("finished")


def test_the_file_says_what_the_documentation_says(layout: Layout) -> None:
    delivery = open_delivery(layout)
    delivery.acknowledge(Place(1, 5120), 40)
    row = Row(writer="trainer", session=1, seq=41, step=41, time=1.0)
    delivery.set_aside([row], "too large")
    delivery.acknowledge(Place(1, 5320), 1)
    delivery.release("finished")
    header, *frames = [
        frame.value for frame in read_frames(delivery.session.path) if isinstance(frame, Frame)
    ]
    assert header == {"rolecall": 1, "owner": asdict(this_process()), "a": [1, 0], "k": 0}
    rejected = {"session": 1, "seq": 41, "step": 41, "reason": "too large"}
    assert frames == [
        {"a": [1, 5120], "k": 40},
        {"a": [1, 5120], "k": 40, "rejected": rejected},
        {"a": [1, 5320], "k": 41},
        {"a": [1, 5320], "k": 41, "end": "finished"},
    ]


def test_what_moved_nothing_is_not_written(layout: Layout) -> None:
    delivery = open_delivery(layout)
    delivery.acknowledge(Place(1, 500), 5)
    size = delivery.session.path.stat().st_size
    delivery.acknowledge(Place(1, 500), 0)
    assert delivery.session.path.stat().st_size == size
    delivery.release("finished")


def test_one_courier_carries_at_a_time(layout: Layout) -> None:
    delivery = open_delivery(layout)
    assert is_carried(layout, "mlflow", "trainer")
    with pytest.raises(WriterConflict, match="the delivery of trainer to mlflow is held by process"):
        open_delivery(layout)
    other = Delivery(layout, "tensorboard", "trainer")
    other.release("finished")
    delivery.release("finished")
    delivery.release("finished")
    assert not is_carried(layout, "mlflow", "trainer")
    open_delivery(layout).release("finished")


def test_a_dead_couriers_work_is_taken_over(layout: Layout) -> None:
    plant_dead(layout, 1, {"a": [1, 700], "k": 7})
    delivery = open_delivery(layout)
    assert delivery.session.number == 2
    assert delivery.done == Delivered(Place(1, 700), 7)
    delivery.release("finished")


@pytest.mark.parametrize("cut", [1, 10, 20, -1])
def test_a_torn_acknowledgement_costs_itself_alone(layout: Layout, cut: int) -> None:
    torn = encode({"a": [1, 900], "k": 9})[:cut]
    plant_dead(layout, 1, {"a": [1, 700], "k": 7}, torn)
    assert done(layout) == Delivered(Place(1, 700), 7)
    delivery = open_delivery(layout)
    assert delivery.done == Delivered(Place(1, 700), 7)
    delivery.release("finished")


def test_a_successor_that_said_nothing_hides_no_acknowledgement(layout: Layout) -> None:
    plant_dead(layout, 1, {"a": [1, 700], "k": 7})
    plant_dead(layout, 2).write_bytes(b"damaged\n")
    plant_dead(layout, 3).write_bytes(b"")
    assert done(layout) == Delivered(Place(1, 700), 7)


def test_what_a_predecessor_acknowledged_between_our_look_and_its_death_counts(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plant_dead(layout, 1, {"a": [1, 700], "k": 7})
    link = os.link

    def late(source: Path, target: Path) -> None:
        link(source, target)
        path.write_bytes(path.read_bytes() + encode({"a": [1, 900], "k": 9}))

    monkeypatch.setattr(os, "link", late)
    delivery = open_delivery(layout)
    assert delivery.done == Delivered(Place(1, 900), 9)
    delivery.release("finished")
    assert done(layout) == Delivered(Place(1, 900), 9)


@pytest.mark.parametrize(
    "crafted",
    [
        {},
        {"a": None, "k": 1},
        {"a": [1], "k": 1},
        {"a": [1, 2, 3], "k": 1},
        {"a": ["1", 2], "k": 1},
        {"a": [1.0, 2], "k": 1},
        {"a": [1, -1], "k": 1},
        {"a": [-1, 1], "k": 1},
        {"a": [1, 2**63], "k": 1},
        {"a": [10**30, 1], "k": 1},
        {"a": {"1": 2}, "k": 1},
        {"a": "12", "k": 1},
        {"a": [1, 2]},
        {"a": [1, 2], "k": None},
        {"a": [1, 2], "k": -1},
    ],
    ids=range(15),
)
def test_a_crafted_acknowledgement_is_none(layout: Layout, crafted: dict[str, Any]) -> None:
    write_rows(layout, 3)
    plant_dead(layout, 1, {"a": [1, 700], "k": 7})
    plant_dead(layout, 2, crafted)
    assert done(layout) == Delivered(Place(1, 700), 7)
    assert left(layout) == 0


def test_a_place_behind_the_end_of_a_journal_is_the_end(layout: Layout) -> None:
    write_rows(layout, 3)
    plant_dead(layout, 1, {"a": [1, 2**62], "k": 7})
    assert left(layout) == 0


def test_undelivered_counts_each_row_behind_the_acknowledgement(layout: Layout) -> None:
    first = write_rows(layout, 10)
    second = write_rows(layout, 5)
    third = write_rows(layout, 2, end=False)
    assert left(layout) == 17
    delivery = open_delivery(layout)
    for at, offset in enumerate(offsets(first), start=1):
        delivery.acknowledge(Place(1, offset), 1)
        assert left(layout) == 17 - at
    delivery.acknowledge(Place(2, 0), 0)
    assert left(layout) == 7
    delivery.acknowledge(Place(2, offsets(second)[-1]), 5)
    assert left(layout) == 2
    delivery.acknowledge(Place(3, offsets(third)[0]), 1)
    assert left(layout) == 1
    assert undelivered(layout, "tensorboard", "trainer") == 17
    assert undelivered(layout, "mlflow", "explorer") == 0
    delivery.release("finished")
    assert left(layout) == 1


def test_undelivered_counts_rows_alone(layout: Layout) -> None:
    session = write_rows(layout, 3)
    with session.path.open("ab") as file:
        file.write(
            b"damaged\n\n" + encode({"n": "no row"}) + encode({"n": 4, "s": 4, "t": 1.0, "m": {}})[:-1]
        )
    assert left(layout) == 3


def test_undelivered_reads_journals_longer_than_what_is_read_at_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rolecall.store.acks._MUCH", 1 << 30)
    session = write_rows(layout, 0)
    line = encode({"n": 1, "s": 1, "t": 1.0, "m": {f"layer/{at}": 0.5 for at in range(1000)}})
    session.path.write_bytes(session.path.read_bytes() + line * 200)
    assert session.path.stat().st_size > 3 << 20
    assert left(layout) == 200


@pytest.mark.parametrize("room", range(0, 40, 3))
def test_on_a_full_disk_an_acknowledgement_costs_itself_alone(layout: Layout, room: int) -> None:
    delivery = open_delivery(layout)
    delivery.acknowledge(Place(1, 500), 5)
    size = delivery.session.path.stat().st_size
    said = done(layout)
    with no_file_longer_than(size + room):
        for at in (6, 7):
            with suppress(OSError):
                delivery.acknowledge(Place(1, at * 100), 1)
                said = delivery.done
    assert done(layout) == said
    assert delivery.done == Delivered(Place(1, 700), 7), "the backend holds them all the same"
    delivery.acknowledge(Place(1, 800), 1)
    assert done(layout) == Delivered(Place(1, 800), 8)
    delivery.release("finished")
    assert not is_carried(layout, "mlflow", "trainer")


def test_a_release_that_cannot_be_written_is_told_and_raises_nothing(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = open_delivery(layout)
    with no_file_longer_than(delivery.session.path.stat().st_size + 5):
        delivery.release("finished")
    assert "its end could not be written" in caplog.text
    with pytest.raises(OSError, match="Bad file"):
        delivery.acknowledge(Place(1, 900), 9)


# ------------------------------------------------------------------ what the backend calls the run


def test_a_run_is_found_by_its_reference(layout: Layout) -> None:
    assert read_reference(layout, "mlflow", "trainer") is None
    delivery = open_delivery(layout)
    delivery.refer(RunReference("abc", "http://host/abc"))
    assert read_reference(layout, "mlflow", "trainer") == RunReference("abc", "http://host/abc")
    delivery.refer(RunReference("abc", None))
    assert read_reference(layout, "mlflow", "trainer") == RunReference("abc", None)
    delivery.release("finished")
    folder = layout.delivery("mlflow", "trainer")
    assert sorted(os.listdir(folder)) == ["1.jsonl", "run.json"], "no draft is left over"
    assert [session.number for session in sessions(folder)] == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"{}", b'{"id": "x"}', b"\xff\xfe\xfd", b"null"])
def test_a_reference_that_is_none_is_not_there(layout: Layout, content: bytes) -> None:
    path = layout.run("mlflow", "trainer")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_reference(layout, "mlflow", "trainer") is None


def test_a_reference_is_of_texts_whatever_stands_there(layout: Layout) -> None:
    path = layout.run("mlflow", "trainer")
    write_atomically(path, {"id": 5, "url": 7})
    assert read_reference(layout, "mlflow", "trainer") == RunReference("5", "7")
    assert json.loads(path.read_text()) == {"id": 5, "url": 7}


def test_a_live_session_without_acknowledgement_is_the_newest(layout: Layout) -> None:
    delivery = open_delivery(layout)
    assert newest(layout.delivery("mlflow", "trainer")) == delivery.session
    delivery.release("killed")
    assert delivery.session.status() == "killed"


@pytest.mark.parametrize("ended", [True, False])
def test_many_rows_are_counted_as_few_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    layout = Layout(tmp_path)
    session = claim(layout.journal("trainer"), {"writer": "trainer"}, "it")
    writer = JournalWriter(session)
    for step in range(1, 101):
        writer.append(step, {"loss": 1.0})
    if ended:
        writer.end("finished")
    else:
        writer.abandon()
    places = [entry.offset for entry in read_journal("trainer", session)]
    for much in (1 << 30, 0):
        monkeypatch.setattr("rolecall.store.acks._MUCH", much)
        assert undelivered(layout, "mlflow", "trainer") == 100
    delivery = Delivery(layout, "mlflow", "trainer")
    for rows in (40, 100):
        delivery.acknowledge(Place(1, places[rows - 1]), 1)
        for much in (1 << 30, 0):
            monkeypatch.setattr("rolecall.store.acks._MUCH", much)
            assert undelivered(layout, "mlflow", "trainer") == 100 - rows
    delivery.release(None)
