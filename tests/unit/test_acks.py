"""What a backend acknowledged is kept, by one courier at a time; what is lost of it costs a repetition."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from journal_files import no_file_longer_than, read_all

from rolecall.errors import WriterConflict
from rolecall.rows import Row
from rolecall.states import State
from rolecall.store import codec
from rolecall.store.acks import (
    Acknowledged,
    Acknowledgements,
    Position,
    RunReference,
    acknowledged,
    is_carried,
    is_left,
    logged,
    read_reference,
    rejections,
    undelivered,
)
from rolecall.store.codec import Line, encode, read_lines
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, newest, sessions, succeed, this_process

NOTHING = Acknowledged(Position(1, 0, 0), 0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "monitor")


def open_acks(layout: Layout) -> Acknowledgements:
    return Acknowledgements(layout, "mlflow", "trainer")


def done(layout: Layout) -> Acknowledged:
    return acknowledged(layout, "mlflow", "trainer")


def left(layout: Layout) -> int:
    return undelivered(layout, "mlflow", "trainer")


def courier(layout: Layout) -> Session:
    """The newest session of the delivery."""
    session = newest(layout.delivery("mlflow", "trainer"))
    assert session is not None
    return session


def write_rows(layout: Layout, count: int, end: bool = True) -> Session:
    session = claim(layout.journal("trainer"), {"writer": "trainer", "config": {}}, "it")
    journal = JournalWriter(session)
    for step in range(1, count + 1):
        journal.append({"loss": 0.5}, step)
    if end:
        journal.end("finished")
    else:
        journal.abandon()
    return session


def offsets(session: Session) -> list[int]:
    return [entry.offset for entry in read_all(session) if isinstance(entry.value, Row)]


def ack(session: int, offset: int, seq: int, rows: int) -> dict[str, Any]:
    return {"ack": [session, offset, seq], "rows": rows}


def plant_dead(layout: Layout, number: int, *lines: dict[str, Any] | bytes) -> Path:
    """A courier's session whose process is no more."""
    folder = layout.delivery("mlflow", "trainer")
    folder.mkdir(parents=True, exist_ok=True)
    header = {"rolecall": 2, "owner": asdict(replace(this_process(), start="0")), **ack(1, 0, 0, 0)}
    session = Session(folder / f"{number}.jsonl", number)
    session.path.write_bytes(
        b"".join(line if isinstance(line, bytes) else encode(line, session.seed) for line in (header, *lines))
    )
    return session.path


def seed(number: int) -> int:
    return Session(Path(f"trainer/{number}.jsonl"), number).seed


def test_nothing_is_acknowledged_at_first(layout: Layout) -> None:
    assert done(layout) == NOTHING
    assert left(layout) == 0
    assert not is_carried(layout, "mlflow", "trainer")
    assert not is_left(layout, "mlflow", "trainer")


def test_acknowledgement_is_seen_at_once(layout: Layout) -> None:
    """And by the next courier."""
    acks = open_acks(layout)
    assert acks.done == NOTHING
    acks.acknowledge(Position(1, 500, 5), 5)
    acks.acknowledge(Position(2, 100, 3), 3)
    assert acks.done == done(layout) == Acknowledged(Position(2, 100, 3), 8)
    acks.release("finished")
    successor = open_acks(layout)
    assert successor.done == Acknowledged(Position(2, 100, 3), 8)
    assert done(layout) == Acknowledged(Position(2, 100, 3), 8), "it is in the new session's first line"
    successor.release("finished")


def test_missing_rows_are_counted(layout: Layout) -> None:
    acks = open_acks(layout)
    acks.acknowledge(Position(1, 500, 7), 5, missing=2)
    acks.acknowledge(Position(1, 500, 7), 0, missing=1)
    assert acks.done == done(layout) == Acknowledged(Position(1, 500, 7), 5, 3)
    acks.release("finished")
    assert open_acks(layout).done == Acknowledged(Position(1, 500, 7), 5, 3)


def test_file_is_as_documented(layout: Layout) -> None:
    acks = open_acks(layout)
    acks.acknowledge(Position(1, 5120, 40), 40)
    row = Row(writer="trainer", session=1, seq=41, step=41, time=1.0)
    acks.set_aside([row], "too large")
    acks.acknowledge(Position(1, 5248, 41), 1)
    acks.explain("cannot reach it")
    acks.explain(None)
    acks.acknowledge(Position(1, 5320, 42), 1)
    acks.release("finished")
    session = courier(layout)
    header, *lines = [line.value for line in read_lines(session.path, seed=session.seed) if isinstance(line, Line)]
    assert header == {"rolecall": 2, "owner": asdict(this_process()), "session": 1, **ack(1, 0, 0, 0)}
    rejected = {"session": 1, "seq": 41, "step": 41, "reason": "too large"}
    assert lines == [
        ack(1, 5120, 40, 40),
        {**ack(1, 5120, 40, 40), "rejected": rejected},
        ack(1, 5248, 41, 41),
        {**ack(1, 5248, 41, 41), "why": "cannot reach it"},
        ack(1, 5248, 41, 41),
        ack(1, 5320, 42, 42),
        {**ack(1, 5320, 42, 42), "end": "finished"},
    ]
    assert rejections(layout, "mlflow", "trainer") == {(1, 41)}


def test_nothing_new_is_not_written(layout: Layout) -> None:
    acks = open_acks(layout)
    acks.acknowledge(Position(1, 500, 5), 5)
    size = courier(layout).path.stat().st_size
    acks.acknowledge(Position(1, 500, 5), 0)
    assert courier(layout).path.stat().st_size == size
    acks.release("finished")


def test_one_courier_at_a_time(layout: Layout) -> None:
    acks = open_acks(layout)
    assert is_carried(layout, "mlflow", "trainer")
    with pytest.raises(WriterConflict, match="the delivery of trainer to mlflow is held by process"):
        open_acks(layout)
    other = Acknowledgements(layout, "tensorboard", "trainer")
    other.release("finished")
    acks.release("finished")
    acks.release("finished")
    assert not is_carried(layout, "mlflow", "trainer")
    open_acks(layout).release("finished")


def test_dead_courier_is_succeeded(layout: Layout) -> None:
    plant_dead(layout, 1, ack(1, 700, 7, 7))
    acks = open_acks(layout)
    assert courier(layout).number == 2
    assert acks.done == Acknowledged(Position(1, 700, 7), 7)
    acks.release("finished")


@pytest.mark.parametrize("cut", [1, 10, 20, -1])
def test_torn_acknowledgement_costs_itself(layout: Layout, cut: int) -> None:
    torn = encode(ack(1, 900, 9, 9), seed(1))[:cut]
    plant_dead(layout, 1, ack(1, 700, 7, 7), torn)
    assert done(layout) == Acknowledged(Position(1, 700, 7), 7)
    acks = open_acks(layout)
    assert acks.done == Acknowledged(Position(1, 700, 7), 7)
    acks.release("finished")


def test_damaged_successor_hides_nothing(layout: Layout) -> None:
    plant_dead(layout, 1, ack(1, 700, 7, 7))
    plant_dead(layout, 2).write_bytes(b"damaged\n")
    plant_dead(layout, 3).write_bytes(b"")
    assert done(layout) == Acknowledged(Position(1, 700, 7), 7)


def test_predecessors_last_word_counts(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may acknowledge more between our look and its death."""
    path = plant_dead(layout, 1, ack(1, 700, 7, 7))
    link = os.link

    def late(source: Path, target: Path) -> None:
        link(source, target)
        path.write_bytes(path.read_bytes() + encode(ack(1, 900, 9, 9), seed(1)))

    monkeypatch.setattr(os, "link", late)
    acks = open_acks(layout)
    assert acks.done == Acknowledged(Position(1, 900, 9), 9)
    acks.acknowledge(Position(1, 1000, 10), 1)
    assert done(layout) == Acknowledged(Position(1, 1000, 10), 10)
    acks.release("finished")


@pytest.mark.parametrize(
    "crafted",
    [
        {},
        {"ack": None, "rows": 1},
        {"ack": [1, 2], "rows": 1},
        {"ack": [1, 2, 3, 4], "rows": 1},
        {"ack": ["1", 2, 3], "rows": 1},
        {"ack": [1.0, 2, 3], "rows": 1},
        {"ack": [1, -1, 1], "rows": 1},
        {"ack": [-1, 1, 1], "rows": 1},
        {"ack": [1, 2**63, 1], "rows": 1},
        {"ack": [10**30, 1, 1], "rows": 1},
        {"ack": {"1": 2}, "rows": 1},
        {"ack": "123", "rows": 1},
        {"ack": [1, 2, 3]},
        {"ack": [1, 2, 3], "rows": None},
        {"ack": [1, 2, 3], "rows": -1},
    ],
    ids=range(15),
)
def test_crafted_acknowledgement_is_none(layout: Layout, crafted: dict[str, Any]) -> None:
    session = write_rows(layout, 7)
    end = offsets(session)[-1]
    plant_dead(layout, 1, ack(1, end, 7, 7))
    path = plant_dead(layout, 2)
    path.write_bytes(encode({"rolecall": 2, **crafted}, seed(2)))
    assert done(layout) == Acknowledged(Position(1, end, 7), 7)
    assert left(layout) == 0


@pytest.mark.parametrize(
    "crafted",
    [None, 5, "x", [], {"session": [1], "seq": 1}, {"session": 1, "seq": {}}, {"session": "1", "seq": None}, {}],
    ids=range(8),
)
def test_crafted_rejection_is_none(layout: Layout, crafted: Any) -> None:
    row = {"session": 1, "seq": 2, "step": 2, "reason": "too large"}
    plant_dead(layout, 1, {**ack(1, 0, 0, 0), "rejected": crafted}, {**ack(1, 0, 0, 0), "rejected": row})
    assert rejections(layout, "mlflow", "trainer") == {(1, 2)}


# -------------------------------------------------------------- what is left


def test_undelivered_counts_each_row(layout: Layout) -> None:
    first = write_rows(layout, 10)
    second = write_rows(layout, 5)
    third = write_rows(layout, 2, end=False)
    assert left(layout) == 17
    acks = open_acks(layout)
    for seq, offset in enumerate(offsets(first), start=1):
        acks.acknowledge(Position(1, offset, seq), 1)
        assert left(layout) == 17 - seq
    acks.acknowledge(Position(2, 0, 0), 0)
    assert left(layout) == 7
    acks.acknowledge(Position(2, offsets(second)[-1], 5), 5)
    assert left(layout) == 2
    acks.acknowledge(Position(3, offsets(third)[0], 1), 1)
    assert left(layout) == 1
    assert undelivered(layout, "tensorboard", "trainer") == 17
    assert undelivered(layout, "mlflow", "explorer") == 0
    acks.release("finished")
    assert left(layout) == 1
    assert is_left(layout, "mlflow", "trainer")


def test_continued_rows_count_once(layout: Layout) -> None:
    """A session that continues an earlier one holds its rows again."""
    first = write_rows(layout, 3, end=False)
    second = succeed(first, {"config": {}})
    row = {"step": 1, "time": 1.0, "data": {}}
    with second.path.open("ab") as file:
        file.write(b"".join(encode({"seq": seq, **row}, second.seed) for seq in range(1, 6)))
    assert left(layout) == 5
    plant_dead(layout, 1, ack(1, offsets(first)[1], 2, 2))
    assert left(layout) == 3
    plant_dead(layout, 2, ack(2, 0, 3, 3))
    assert left(layout) == 2


@pytest.mark.parametrize("goes_on", [False, True])
def test_only_what_a_backend_gets_counts(layout: Layout, goes_on: bool) -> None:
    """From each place of a journal on, with changes and rows for some backends alone among 2,500 rows."""
    session = claim(layout.journal("trainer"), {"writer": "trainer", "config": {}}, "it")
    journal = JournalWriter(session, succeed=lambda old, fill: succeed(old, {"writer": "trainer"}, fill))
    for at in range(2500):
        only = [["mlflow"], ["mlflow", "wandb"], []][at % 3] if at % 7 == 0 else None
        if at % 400 == 0:
            journal.change(lambda _: {"config": {"lr": 0.1}})
        journal.append({"loss": 0.5}, more=None if only is None else {"backends": only})
        if goes_on and at == 1500:
            session.path.rename(session.path.with_suffix(".moved"))
    journal.end("finished")
    assert journal.session.number == 1 + goes_on
    found = read_lines(journal.session.path, 0, 1 << 30, journal.session.seed)
    lines = [each for each in found if isinstance(each, Line)]
    rows = [(each.value["seq"], each.value.get("backends")) for each in lines if "data" in each.value]
    assert len(rows) == logged(layout.journal("trainer")) == 2500
    for line in lines[1::97]:
        seq = line.value["seq"]
        place = Position(journal.session.number, line.end, seq)
        for backend in ("mlflow", "wandb"):
            left = [at for at, only in rows if at > seq and (only is None or backend in only)]
            assert logged(layout.journal("trainer"), place, backend) == len(left)
        assert logged(layout.journal("trainer"), place) == len([at for at, _ in rows if at > seq])


def test_end_line_is_no_row(layout: Layout) -> None:
    session = write_rows(layout, 3)
    plant_dead(layout, 1, ack(1, offsets(session)[-1], 3, 3))
    assert left(layout) == 0


def test_position_behind_a_cut(layout: Layout) -> None:
    """The rows before it were delivered; what came after the cut still counts."""
    session = write_rows(layout, 3, end=False)
    plant_dead(layout, 1, ack(1, 2**62, 3, 3))
    assert left(layout) == 0
    with session.path.open("ab") as file:
        file.write(encode({"seq": 5, "step": 5, "time": 1.0, "data": {}}, session.seed))
    assert left(layout) == 2


def test_damaged_rows_count_until_passed(layout: Layout) -> None:
    session = write_rows(layout, 3, end=False)
    with session.path.open("ab") as file:
        file.write(b"damaged\n\n" + encode({"event": "no row", "seq": 4}, session.seed))
        file.write(encode({"seq": 5, "step": 5, "time": 1.0, "data": {}}, session.seed)[:-1])
    assert left(layout) == 4


def test_counting_reads_the_end_alone(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(layout, 3000, end=False)
    read = 0
    size = layout.journal("trainer").joinpath("1.jsonl").stat().st_size

    def record(descriptor: int, start: int, stop: int) -> bytes:
        nonlocal read
        data = look(descriptor, start, stop)
        read += len(data)
        return data

    look = codec._read_data
    monkeypatch.setattr(codec, "_read_data", record)
    assert left(layout) == 3000
    assert read < size / 5


@pytest.mark.parametrize(
    ("ending", "is_unclosed"), [("finished", False), ("killed", False), (State.UNFINISHED, True), (None, True)]
)
def test_unclosed_run_is_left(layout: Layout, ending: str | None, is_unclosed: bool) -> None:
    plant_dead(layout, 1, *([{**ack(1, 0, 0, 0), "end": ending}] if ending else []))
    assert is_left(layout, "mlflow", "trainer") is is_unclosed


def test_release_without_status_is_unfinished(layout: Layout) -> None:
    open_acks(layout).release(None)
    assert courier(layout).status() == "unfinished"
    assert courier(layout).state() is State.UNFINISHED


# -------------------------------------------------------------- a full disk


@pytest.mark.parametrize("room", range(0, 80, 5))
def test_unwritten_acknowledgement_costs_itself(layout: Layout, room: int) -> None:
    acks = open_acks(layout)
    acks.acknowledge(Position(1, 500, 5), 5)
    size = courier(layout).path.stat().st_size
    said = done(layout)
    with no_file_longer_than(size + room):
        for seq in (6, 7):
            with suppress(OSError):
                acks.acknowledge(Position(1, seq * 100, seq), 1)
                said = acks.done
        acks.explain("the disk is full")
    assert done(layout) == said
    assert acks.done == Acknowledged(Position(1, 700, 7), 7), "the backend holds them all the same"
    acks.acknowledge(Position(1, 800, 8), 1)
    assert done(layout) == Acknowledged(Position(1, 800, 8), 8)
    acks.release("finished")
    assert not is_carried(layout, "mlflow", "trainer")


def test_unwritten_release_is_reported(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    """And raises nothing."""
    acks = open_acks(layout)
    with no_file_longer_than(courier(layout).path.stat().st_size + 5):
        acks.release("finished")
    assert "its end could not be written" in caplog.text
    with pytest.raises(OSError, match="Bad file"):
        acks.acknowledge(Position(1, 900, 9), 9)


# ------------------------------------------------------ the backend's own run


def test_reference_is_read_back(layout: Layout) -> None:
    assert read_reference(layout, "mlflow", "trainer") is None
    acks = open_acks(layout)
    acks.refer(RunReference("abc", "http://host/abc"))
    assert read_reference(layout, "mlflow", "trainer") == RunReference("abc", "http://host/abc")
    acks.refer(RunReference("abc", None))
    assert read_reference(layout, "mlflow", "trainer") == RunReference("abc", None)
    acks.release("finished")
    folder = layout.delivery("mlflow", "trainer")
    assert sorted(os.listdir(folder)) == ["1.jsonl", "run.json"], "no draft is left over"
    assert [session.number for session in sessions(folder)] == [1]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"{}", b'{"id": "x"}', b"\xff\xfe\xfd", b"null", b"[" * 200_000], ids=range(9)
)
def test_crafted_reference_is_none(layout: Layout, content: bytes) -> None:
    path = layout.run("mlflow", "trainer")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read_reference(layout, "mlflow", "trainer") is None


def test_reference_holds_strings(layout: Layout) -> None:
    path = layout.run("mlflow", "trainer")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"id": 5, "url": 7}))
    assert read_reference(layout, "mlflow", "trainer") == RunReference("5", "7")


def test_touch_shows_that_it_lives(layout: Layout) -> None:
    acks = open_acks(layout)
    os.utime(courier(layout).path, (1, 1))
    acks.touch()
    assert courier(layout).path.stat().st_mtime > 1
    courier(layout).path.unlink()
    acks.touch()
    acks.release("finished")
