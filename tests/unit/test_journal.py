"""One writer's rows: what was appended is read back, and nothing else is."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import shutil
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_journals import KINDS, make_journal

from rolecall.delivery.keys import Placement
from rolecall.rows import Row, TableData
from rolecall.store.codec import Damage, encode, encode_packed, whole_lines
from rolecall.store.journal import End, Entry, JournalReader, JournalWriter, read_journal
from rolecall.store.lease import Session, claim
from rolecall.store.packed import Forms
from rolecall.store.room import CHUNK
from rolecall.store.rowstore import CompiledStore

EXAMPLES = settings(deadline=None, max_examples=60)
HEADER = {"rolecall": 1, "owner": {}, "writer": "explorer"}
LARGE = TableData(name="samples", columns=("i", "text"), rows=tuple((at, "x" * 50) for at in range(1000)))
SMALL = TableData(name="samples", columns=("i", "text"), rows=((1, "a"), (None, "b")))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return claim(tmp_path / "explorer", {"writer": "explorer", "config": {"lr": 0.1}}, "it")


@pytest.fixture(params=KINDS)
def journal(session: Session, request: pytest.FixtureRequest) -> JournalWriter:
    return make_journal(session, request.param)


mapped = pytest.mark.parametrize("journal", KINDS[1:], indirect=True)
"""For what only concerns journals that are."""


def read_all(session: Session, limit: int = 1 << 20) -> list[Entry]:
    entries: list[Entry] = []
    offset = 0
    while found := list(read_journal("explorer", session, offset, limit)):
        entries += found
        offset = found[-1].offset
    return entries


def rows(session: Session) -> list[Row]:
    return [entry.value for entry in read_all(session) if isinstance(entry.value, Row)]


def damages(session: Session) -> list[Damage]:
    return [entry.value for entry in read_all(session) if isinstance(entry.value, Damage)]


def planted(path: Path, *frames: dict[str, Any] | bytes) -> Session:
    """A journal of these frames."""
    lines = [frame if isinstance(frame, bytes) else encode(frame) for frame in (HEADER, *frames)]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(lines))
    return Session(path, 1)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """A disk that is full: the kernel cuts the write short that would go beyond, and refuses the next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ------------------------------------------------------------------ what is written is read


def test_rows_are_read_as_they_were_logged(session: Session, journal: JournalWriter) -> None:
    began = time.time()
    journal.append(5, {"loss": 0.25, "tokens": 2**62})
    journal.append(-(2**63), {"x": -0.0}, commit=True)
    journal.append_table(7, SMALL)
    journal.end("failed")
    first, second, third, end = (entry.value for entry in read_all(session))
    assert isinstance(first, Row)
    assert (first.writer, first.session, first.seq, first.step) == ("explorer", 1, 1, 5)
    assert first.metrics == {"loss": 0.25, "tokens": 2**62}
    assert type(first.metrics["tokens"]) is int
    assert not first.commit
    assert began <= first.time <= time.time()
    assert isinstance(second, Row)
    assert (second.seq, second.step, second.commit) == (2, -(2**63), True)
    assert isinstance(third, Row)
    assert (third.seq, third.metrics, third.table) == (3, {}, SMALL)
    assert end == End("failed")
    assert journal.rows == 3


KEYS = st.text(min_size=1, max_size=20)
NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)


@EXAMPLES
@given(st.lists(st.dictionaries(KEYS, NUMBERS, max_size=5), max_size=5), st.integers(1, 100))
def test_any_rows_are_read_as_they_were_logged(
    tmp_path_factory: pytest.TempPathFactory, given: list[dict[str, float]], limit: int
) -> None:
    session = claim(tmp_path_factory.mktemp("journal"), {}, "it")
    journal = JournalWriter(session)
    for step, metrics in enumerate(given):
        journal.append(step, metrics)
    journal.end("finished")
    *found, end = (entry.value for entry in read_all(session, limit))
    assert end == End("finished")
    back = [(row.seq, row.step, row.metrics) for row in found if isinstance(row, Row)]
    # NaN is not equal to itself, but its JSON is.
    assert json.dumps(back) == json.dumps([(step + 1, step, row) for step, row in enumerate(given)])


def test_a_large_table_stands_in_a_file_of_its_own(session: Session, journal: JournalWriter) -> None:
    journal.append(1, {"loss": 1.0})
    journal.append_table(2, LARGE)
    journal.append_table(3, SMALL)
    journal.abandon()
    assert [row.table for row in rows(session)] == [None, LARGE, SMALL]
    folder = session.path.with_suffix(".tables")
    assert os.listdir(folder) == ["2.json"]
    assert len(whole_lines(session.path)) < 1000


def test_cells_of_every_kind_come_back(session: Session, journal: JournalWriter) -> None:
    cells = ("\u2603 \U0001f600 \x00", 1, -(2**63), 0.5, True, False, None, "")
    table = TableData(name="t", columns=tuple(map(str, range(len(cells)))), rows=(cells,))
    journal.append_table(1, table)
    journal.abandon()
    (row,) = rows(session)
    assert row.table == table
    assert row.table is not None
    assert [type(cell) for cell in row.table.rows[0]] == [type(cell) for cell in cells]


def test_a_header_longer_than_what_is_read_at_once_hides_no_row(tmp_path: Path) -> None:
    session = claim(tmp_path / "explorer", {"config": {"text": "x" * 3_000_000}}, "it")
    journal = JournalWriter(session)
    journal.append(1, {"loss": 0.5})
    journal.abandon()
    assert [row.step for row in rows(session)] == [1]
    assert session.header()["config"] == {"text": "x" * 3_000_000}


def test_a_row_longer_than_what_is_read_at_once(session: Session, journal: JournalWriter) -> None:
    metrics = {f"layer/{at}/gradient/norm": float(at) for at in range(100_000)}
    journal.append(1, metrics)
    journal.append(2, {"loss": 0.5})
    journal.abandon()
    assert session.path.stat().st_size > 3 << 20
    assert [row.metrics for row in rows(session)] == [metrics, {"loss": 0.5}]


def test_a_damaged_header_costs_no_row(session: Session, journal: JournalWriter) -> None:
    journal.append(1, {"loss": 0.5})
    journal.end("finished")
    data = bytearray(session.path.read_bytes())
    data[3] ^= 1
    session.path.write_bytes(data)
    damage, row, end = (entry.value for entry in read_all(session))
    assert isinstance(damage, Damage)
    assert isinstance(row, Row)
    assert end == End("finished")
    assert session.owner() is None


def test_a_reader_changes_nothing(session: Session, journal: JournalWriter) -> None:
    journal.append(1, {"loss": 0.5})
    journal.append_table(2, LARGE)
    journal.abandon()
    with session.path.open("ab") as file:
        file.write(b"damaged\ntorn")
    folder = session.path.parent
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        os.utime(path, (1, 1))
    before = [path.read_bytes() for path in files]
    assert len(rows(session)) == 2
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == before
    assert {path.stat().st_mtime for path in files} == {1}


def test_a_row_is_in_the_file_when_append_returns(session: Session, journal: JournalWriter) -> None:
    for step in range(50):
        journal.append(step, {"loss": 0.5})
        assert rows(session)[-1].step == step
    journal.abandon()


def test_reading_while_writing_sees_whole_rows_in_order(session: Session, journal: JournalWriter) -> None:

    def write() -> None:
        for step in range(1, 3001):
            journal.append(step, {"loss": step / 7})

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[Row] = []
    offset = 0
    deadline = time.monotonic() + 60
    while len(seen) < 3000:
        assert time.monotonic() < deadline
        for entry in read_journal("explorer", session, offset, limit=300):
            assert isinstance(entry.value, Row), entry.value
            seen.append(entry.value)
            offset = entry.offset
    writer.join()
    journal.abandon()
    assert [(row.seq, row.step, row.metrics["loss"]) for row in seen] == [
        (step, step, step / 7) for step in range(1, 3001)
    ]


# ------------------------------------------------------------------ damage and crafted files


def row_frame(seq: int, **settings: Any) -> dict[str, Any]:
    return {"n": seq, "s": seq, "t": 1764000000.0, "m": {"loss": 0.5}, **settings}


def packed_frame(metrics: dict[str, Any], seq: int, first: int, second: int) -> bytes:
    """A row like those that stand at two places."""
    forms = Forms()
    forms.learn(metrics, first)
    forms.learn(metrics, second)
    values = list(metrics.values())
    form = forms.find(tuple(metrics), [type(value) for value in values])
    assert form is not None
    return form.frame(seq, 1764000000.0, seq, values)


FIRST = [
    encode(HEADER),
    encode(row_frame(1, m={"loss": 0.5, 'a "quoted" {key}': math.inf})),
    encode(row_frame(2, c=True)),
    encode(row_frame(3, m={}, table={"name": "samples", "columns": ["i", "text"], "rows": [[1, "a"]]})),
    encode(row_frame(4, m={"loss": 0.125, "\u2603": 2**60})),
    encode(row_frame(5, m={"loss": 0.25, "\u2603": -1})),
]
FIFTH, SIXTH = (sum(map(len, FIRST[:count])) for count in (4, 5))
LINES = [
    *FIRST,
    packed_frame({"loss": -0.0, "\u2603": 2**63 - 1}, 6, FIFTH, SIXTH),
    encode(row_frame(7, m={"x": 1})),
    packed_frame({"loss": 1e300, "\u2603": -(2**63)}, 8, FIFTH, SIXTH),
]
SOUND = b"".join(LINES)
END = encode({"end": "finished", "t": 1764000001.0})
ENDS = [sum(map(len, LINES[: count + 1])) for count in range(len(LINES))]


def read_bytes(data: bytes) -> tuple[list[Row], list[Damage]]:
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder, "1.jsonl"), 1)
        session.path.write_bytes(data)
        return rows(session), damages(session)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, len(SOUND) - 1),
    st.sampled_from(b'\n\x00 {}"09af\xff') | st.integers(0, 255),
)
def test_one_changed_byte_costs_at_most_the_row_that_it_is_in(place: int, new: int) -> None:
    given, _ = read_bytes(SOUND + END)
    found, _ = read_bytes(SOUND[:place] + bytes([new]) + SOUND[place + 1 :] + END)
    hit = sum(place >= end for end in ENDS)
    expected = [row for line, row in enumerate(given, start=1) if line != hit]
    assert [row for row in found if row in expected] == expected
    assert all(row in given for row in found), "damage is never read as a row"


def test_a_null_byte_in_the_last_line_or_before_it_is_a_line_that_is_being_stored() -> None:
    """As nobody can tell them apart, it is not damage before another line stands behind it."""
    newline = ENDS[-2] - 1
    changed = SOUND[:newline] + b"\0" + SOUND[newline + 1 :]
    given, _ = read_bytes(SOUND)
    assert read_bytes(changed) == (given[:-2], [])
    assert read_bytes(changed + END) == (given, []), "and the newline alone costs nothing"


@EXAMPLES
@given(st.integers(0, len(SOUND)))
def test_a_journal_cut_anywhere_keeps_the_rows_before(cut: int) -> None:
    given, _ = read_bytes(SOUND)
    found, damaged = read_bytes(SOUND[:cut])
    assert found == [row for row, end in zip(given, ENDS[1:], strict=True) if end <= cut]
    assert not damaged


DEEP = json.loads("[" * 500 + "]" * 500)
CRAFTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no number": {"s": 1, "t": 1.0, "m": {}},
    "number is a text": row_frame(2, n="2"),
    "number is true": row_frame(2, n=True),
    "number is a float": row_frame(2, n=2.0),
    "step is null": row_frame(2, s=None),
    "step is huge": row_frame(2, s=2**63),
    "step is small": row_frame(2, s=-(2**63) - 1),
    "time is a text": row_frame(2, t="1764000000.0"),
    "time is huge": row_frame(2, t=10**400),
    "time is nan": row_frame(2, t=math.nan),
    "time is infinite": row_frame(2, t=math.inf),
    "time is true": row_frame(2, t=True),
    "metrics are a list": row_frame(2, m=[["loss", 0.5]]),
    "metrics are missing": {"n": 2, "s": 2, "t": 1.0},
    "metric is a text": row_frame(2, m={"loss": "0.5"}),
    "metric is null": row_frame(2, m={"loss": None}),
    "metric is true": row_frame(2, m={"loss": True}),
    "metric is huge": row_frame(2, m={"loss": 10**400}),
    "metric is beyond 64 bits": row_frame(2, m={"loss": 2**63}),
    "metric is nested": row_frame(2, m={"loss": {"a": 1}}),
    "end is unknown": {"end": "exploded"},
    "end is a list": {"end": ["finished"]},
    "header in the middle is no row": {"rolecall": 1},
    "table is null": row_frame(2, table=None),
    "table is a text": row_frame(2, table="file"),
    "table is a list": row_frame(2, table=["file"]),
    "table has no name": row_frame(2, table={"columns": ["a"], "rows": []}),
    "table has a strange name": row_frame(2, table={"name": 1, "columns": ["a"], "rows": []}),
    "table has no rows": row_frame(2, table={"name": "t", "columns": ["a"]}),
    "rows are a number": row_frame(2, table={"name": "t", "columns": ["a"], "rows": 5}),
    "rows are texts": row_frame(2, table={"name": "t", "columns": ["a"], "rows": ["x"]}),
    "rows are mappings": row_frame(2, table={"name": "t", "columns": ["a"], "rows": [{"a": 1}]}),
    "columns are numbers": row_frame(2, table={"name": "t", "columns": [1], "rows": []}),
    "rows are ragged": row_frame(2, table={"name": "t", "columns": ["a", "b"], "rows": [[1, 2], [1]]}),
    "cell is a mapping": row_frame(2, table={"name": "t", "columns": ["a"], "rows": [[{}]]}),
    "cell is nested": row_frame(2, table={"name": "t", "columns": ["a"], "rows": [[DEEP]]}),
    "cell is huge": row_frame(2, table={"name": "t", "columns": ["a"], "rows": [[10**400]]}),
    "file is a number": row_frame(2, table={"name": "t", "file": 5}),
    "file is null": row_frame(2, table={"name": "t", "file": None}),
    "file is missing": row_frame(2, table={"name": "t", "file": "1.tables/5.json"}),
    "file is the folder": row_frame(2, table={"name": "t", "file": "1.tables/."}),
    "file is the folder above": row_frame(2, table={"name": "t", "file": "1.tables/.."}),
    "file has a null character": row_frame(2, table={"name": "t", "file": "1.tables/\x00"}),
    "file has a long name": row_frame(2, table={"name": "t", "file": "1.tables/" + "x" * 5000}),
}


@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_sound_line_that_is_no_row_is_damage_and_costs_itself_alone(
    tmp_path: Path, crafted: dict[str, Any]
) -> None:
    session = planted(tmp_path / "w" / "1.jsonl", row_frame(1), crafted, row_frame(3))
    assert [row.seq for row in rows(session)] == [1, 3]
    (damage,) = damages(session)
    assert damage.offset == len(encode(HEADER) + encode(row_frame(1)))


SECRET = '{"columns":["a"],"rows":[["secret"]]}'


@pytest.mark.parametrize(
    "name",
    ["../secret.json", "1.tables/../../secret.json", "{root}/secret.json", "./1.tables/../../secret.json"],
    ids=["up", "down and up", "absolute", "dotted"],
)
def test_a_table_is_read_from_its_journals_folder_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text(SECRET)
    place = {"name": "t", "file": name.format(root=tmp_path)}
    session = planted(tmp_path / "w" / "1.jsonl", row_frame(1), row_frame(2, table=place))
    (tmp_path / "w" / "1.tables").mkdir()
    assert [row.seq for row in rows(session)] == [1]
    assert "secret" not in str(damages(session)[0]).replace("secret.json", "")


@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "nested", "no json", "not utf-8"])
def test_a_table_file_that_someone_put_there_is_damage(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.json").write_text(SECRET)
    place = {"name": "t", "file": "1.tables/2.json"}
    session = planted(tmp_path / "w" / "1.jsonl", row_frame(1), row_frame(2, table=place), row_frame(3))
    folder = tmp_path / "w" / "1.tables"
    if kind == "linked folder":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
    if kind == "link":
        (folder / "2.json").symlink_to(tmp_path / "elsewhere" / "2.json")
    elif kind == "pipe":
        os.mkfifo(folder / "2.json")
    elif kind != "linked folder":
        content = {"nested": b"[" * 200_000, "no json": b"columns", "not utf-8": b"\xff\xfe\xfd"}
        (folder / "2.json").write_bytes(content[kind])
    assert [row.seq for row in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


def test_a_table_is_not_written_into_what_someone_put_in_its_place(
    session: Session, tmp_path: Path, journal: JournalWriter
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = session.path.with_suffix(".tables")
    folder.mkdir()
    (folder / "1.json").symlink_to(precious)
    journal.append_table(1, LARGE)
    journal.abandon()
    assert precious.read_text() == "mine"
    assert [row.table for row in rows(session)] == [LARGE]


def test_a_journal_is_not_opened_through_a_symlink(session: Session, tmp_path: Path) -> None:
    session.path.rename(tmp_path / "precious")
    session.path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        JournalWriter(session)


# ------------------------------------------------------------------ a disk that is full


@mapped
@pytest.mark.parametrize("room", range(0, 1200, 7))
def test_room_that_did_not_fit_costs_the_rows_that_it_was_for(
    session: Session, journal: JournalWriter, room: int
) -> None:
    """What the disk has left is used up to the last row that fits."""
    before = session.path.stat().st_size
    returned = []
    with no_file_longer_than(before + room):
        for step in range(1, 9):
            try:
                journal.append(step, {"loss": 0.5})
            except OSError:
                continue
            returned.append(step)
        assert room - 200 < len(whole_lines(session.path)) - before <= room or len(returned) == 8
    assert journal.rows == len(returned)
    journal.append(9, {"loss": 0.25})
    journal.end("finished")
    assert [(row.seq, row.step) for row in rows(session)] == [*enumerate([*returned, 9], start=1)]
    assert session.status() == "finished"


@pytest.mark.parametrize("room", range(70))
def test_a_row_that_did_not_fit_costs_itself_alone_wherever_it_was_cut(session: Session, room: int) -> None:
    journal = JournalWriter(session)
    journal.append(1, {"loss": 0.5})
    size = session.path.stat().st_size
    # All times are as long as one another, so all these rows are, but for the digits of `t`.
    with no_file_longer_than(size + room):
        returned = []
        for step in (2, 3, 4):
            try:
                journal.append(step, {"loss": 0.5})
            except OSError:
                continue
            returned.append(step)
    assert journal.rows == 1 + len(returned)
    journal.append(5, {"loss": 0.5})
    journal.append(6, {"loss": 0.5})
    journal.end("finished")
    found = rows(session)
    assert [row.step for row in found] == [1, *returned, 5, 6]
    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    assert session.status() == "finished"


def test_an_end_that_did_not_fit_is_told_and_the_file_closed(session: Session) -> None:
    journal = JournalWriter(session)
    journal.append(1, {"loss": 0.5})
    with no_file_longer_than(session.path.stat().st_size + 10), pytest.raises(OSError, match=r"No space"):
        journal.end("finished")
    journal.end("finished")
    assert session.status() is None
    assert [row.step for row in rows(session)] == [1]
    with pytest.raises(OSError, match="Bad file"):
        journal.append(2, {"loss": 0.5})


def test_a_table_that_did_not_fit_leaves_nothing_over(session: Session, journal: JournalWriter) -> None:
    with no_file_longer_than(10_000), pytest.raises(OSError, match="large"):
        journal.append_table(1, LARGE)
    assert journal.rows == 0
    assert os.listdir(session.path.with_suffix(".tables")) == []
    journal.append_table(1, LARGE)
    journal.abandon()
    assert [(row.seq, row.table) for row in rows(session)] == [(1, LARGE)]


def test_a_table_whose_row_did_not_fit_is_not_taken_for_the_next(session: Session) -> None:
    other = TableData(
        name="other", columns=("x",), rows=LARGE.rows and tuple(("y" * 50,) for _ in range(1000))
    )
    journal = JournalWriter(session)
    for step in range(2000):
        journal.append(step, {"loss": 0.5})
    room = session.path.stat().st_size + 20
    with no_file_longer_than(room), pytest.raises(OSError, match="No space"):
        journal.append_table(1, LARGE)
    journal.append_table(2, other)
    journal.abandon()
    assert [row.table for row in rows(session)][2000:] == [other]


# ------------------------------------------------------------------ threads, signals, forks


def test_threads_keep_lines_whole_and_each_ones_order(session: Session, journal: JournalWriter) -> None:
    barrier = threading.Barrier(8)

    def log(thread: int) -> None:
        barrier.wait()
        for step in range(300):
            journal.append(step, {f"thread/{thread}": step})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.end("finished")
    found = rows(session)
    assert not damages(session)
    assert [row.seq for row in found] == list(range(1, 2401))
    for number in range(8):
        steps = [row.step for row in found if f"thread/{number}" in row.metrics]
        assert steps == list(range(300))


def test_a_signal_handler_that_logs_neither_hangs_nor_takes_a_number_twice(
    session: Session, journal: JournalWriter
) -> None:
    interrupted = 0

    def handle(*_: object) -> None:
        nonlocal interrupted
        interrupted += 1
        mine = interrupted
        journal.append(mine, {"handler": mine})

    before = signal.signal(signal.SIGALRM, handle)
    steps = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.00013)
        while interrupted < 1000:
            steps += 1
            journal.append(steps, {"main": steps})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    journal.end("finished")
    found = rows(session)
    assert not damages(session)
    assert [row.seq for row in found] == list(range(1, steps + interrupted + 1))
    assert [row.step for row in found if "main" in row.metrics] == list(range(1, steps + 1))
    # A handler may be interrupted itself.
    handled = [row.step for row in found if "handler" in row.metrics]
    assert sorted(handled) == list(range(1, interrupted + 1))


def test_an_interrupt_in_the_middle_of_a_row_gives_its_number_to_no_other(
    session: Session, journal: JournalWriter
) -> None:

    def handle(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handle)
    interrupted = 0
    returned: list[int] = []
    step = 0
    try:
        while interrupted < 300:
            step += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00001 + (interrupted % 30) * 0.000002)
                while True:  # or the signal could come when nobody waits for it any more
                    step += 1
                    journal.append(step, {"main": step})
                    returned.append(step)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    journal.end("finished")
    found = rows(session)
    assert not damages(session)
    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    assert set(returned) <= {row.step for row in found}


def test_a_closed_journal_takes_no_row_and_says_so(session: Session, journal: JournalWriter) -> None:
    journal.end("finished")
    journal.end("failed")
    with pytest.raises(OSError, match="Bad file"):
        journal.append(1, {"loss": 0.5})
    assert journal.rows == 0
    assert session.status() == "finished"
    assert rows(session) == []


def test_abandoning_a_journal_leaves_no_word(session: Session, journal: JournalWriter) -> None:
    journal.append(1, {"loss": 0.5})
    journal.abandon()
    journal.abandon()
    journal.end("finished")
    assert session.status() is None
    assert session.is_live()


# ------------------------------------------------------------- a removed file


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that looks at its file before every row."""
    monkeypatch.setattr("rolecall.store.journal.LOOK", 0.0)


@pytest.mark.usefixtures("looking")
def test_a_journal_that_was_removed_is_put_back_whole(
    session: Session, caplog: pytest.LogCaptureFixture, journal: JournalWriter
) -> None:
    journal.append(1, {"loss": 1.0})
    before = whole_lines(session.path)
    shutil.rmtree(session.path.parent)
    journal.append(2, {"loss": 0.5})
    journal.append(3, {"loss": 0.25})
    journal.end("finished")
    assert session.path.read_bytes().startswith(before)
    assert [(row.seq, row.step) for row in rows(session)] == [(1, 1), (2, 2), (3, 3)]
    assert session.status() == "finished"
    assert caplog.text.count("was removed while it was written") == 1


@pytest.mark.usefixtures("looking")
def test_what_stands_in_the_place_of_a_removed_journal_is_left_alone(
    session: Session, journal: JournalWriter
) -> None:
    journal.append(1, {"loss": 1.0})
    session.path.unlink()
    session.path.write_bytes(b"another's")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            journal.append(2, {"loss": 0.5})
    assert session.path.read_bytes() == b"another's"
    session.path.unlink()
    journal.append(2, {"loss": 0.25})
    assert [(row.seq, row.metrics["loss"]) for row in rows(session)] == [(1, 1.0), (2, 0.25)]
    assert [path.name for path in session.path.parent.iterdir()] == [session.path.name]


def test_a_removed_journal_is_looked_for_about_once_a_second(
    session: Session, journal: JournalWriter
) -> None:
    journal.append(1, {"loss": 1.0})
    session.path.unlink()
    deadline = time.monotonic() + 30.0
    step = 1
    while not session.path.exists():
        step += 1
        journal.append(step, {"loss": 1.0})
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [row.seq for row in rows(session)] == list(range(1, step + 1))


# ------------------------------------------------------- room that is mapped


@mapped
def test_room_is_made_in_chunks_and_what_was_not_used_is_given_back(
    session: Session, journal: JournalWriter
) -> None:
    sizes = set()
    for step in range(1, 2001):
        journal.append(step, {"loss": step / 7})
        sizes.add(session.path.stat().st_size)
    assert 2 <= len(sizes) <= 8
    assert all(size % CHUNK == min(sizes) % CHUNK for size in sizes)
    journal.append(2001, {f"layer/{at}/norm": 0.5 for at in range(CHUNK // 10)})
    journal.end("finished")
    assert session.path.stat().st_size == len(whole_lines(session.path, limit=1 << 30))
    assert [row.step for row in rows(session)] == list(range(1, 2002))


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("left", [0, 10, 400, 5000])
def test_a_journal_that_was_cut_short_while_it_was_written_goes_on(
    session: Session, journal: JournalWriter, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    for step in range(1, 1001):
        journal.append(step, {"loss": 0.5})
    os.truncate(session.path, left)
    kept = len(rows(session))
    for step in range(1001, 1101):
        journal.append(step, {"loss": 0.5})
    journal.end("finished")
    assert [row.step for row in rows(session)][kept:] == list(range(1001, 1101))
    assert caplog.text.count("was cut short") == 1


def test_a_journal_that_was_cut_before_its_first_row_begins_behind_what_is_left(
    session: Session, journal: JournalWriter, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(session.path, 10)
    for step in range(1, 5):
        journal.append(step, {"loss": 0.5})
    journal.end("finished")
    assert [row.step for row in rows(session)] == [1, 2, 3, 4]
    assert caplog.text.count("was cut short") == 1


@pytest.mark.usefixtures("looking")
def test_a_cut_that_a_full_disk_hid_is_seen_when_there_is_room(
    session: Session, journal: JournalWriter
) -> None:
    for step in range(1, 4):
        journal.append(step, {"loss": 0.5})
    os.truncate(session.path, 200)
    kept = len(rows(session))
    with no_file_longer_than(200), pytest.raises(OSError, match="too large"):
        journal.append(4, {"loss": 0.5})
    for step in range(5, 9):
        journal.append(step, {"loss": 0.5})
    journal.end("finished")
    assert [row.step for row in rows(session)][kept:] == [5, 6, 7, 8]


@mapped
@pytest.mark.usefixtures("looking")
def test_room_that_a_handler_makes_during_a_look_is_no_cut(
    session: Session,
    journal: JournalWriter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler may log between the look at the file and what is concluded from it."""
    fstat, looks = os.fstat, 0

    def interrupted(descriptor: int) -> os.stat_result:
        nonlocal looks
        found = fstat(descriptor)
        looks += 1
        if looks == 1:
            journal.append(0, {f"layer/{at}/norm": 0.5 for at in range(CHUNK // 10)})
        return found

    journal.append(1, {"loss": 0.5})
    monkeypatch.setattr(os, "fstat", interrupted)
    journal.append(2, {"loss": 0.5})
    monkeypatch.undo()
    journal.end("finished")
    assert [row.step for row in rows(session)] == [1, 0, 2]
    assert not damages(session)
    assert "cut short" not in caplog.text


@mapped
def test_where_no_more_can_be_mapped_rows_are_written(
    session: Session, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "too many maps")

    for step in range(1, 3001):
        if step == 500:
            monkeypatch.setattr("rolecall.store.room.mmap.mmap", refuse)
        journal.append(step, {"loss": 0.5})
    monkeypatch.undo()
    assert session.path.stat().st_size == len(whole_lines(session.path))
    journal.end("finished")
    assert [(row.seq, row.step) for row in rows(session)] == [(step, step) for step in range(1, 3001)]


@mapped
def test_another_host_sees_that_a_role_lives_by_what_it_logs(
    session: Session, journal: JournalWriter
) -> None:
    journal.append(1, {"loss": 0.5})
    os.utime(session.path, (1, 1))
    deadline = time.monotonic() + 30
    while session.silence() > 60:
        journal.append(2, {"loss": 0.5})
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ----------------------------------------------------------- rows like others


def test_rows_like_two_before_are_packed(session: Session, journal: JournalWriter) -> None:
    metrics = {f"group/metric_{at}": at / 7 for at in range(10)}
    sizes = []
    for step in range(1, 6):
        before = len(whole_lines(session.path))
        journal.append(step, metrics)
        sizes.append(len(whole_lines(session.path)) - before)
    assert max(sizes[2:]) < 200
    assert min(sizes[:2]) > 300
    assert [(row.step, row.metrics) for row in rows(session)] == [(step, metrics) for step in range(1, 6)]


def test_rows_that_others_displaced_are_recorded_unseen_again(
    session: Session, journal: JournalWriter
) -> None:
    for step in range(60):
        journal.append(step, {"loss": 0.5})
        for kind in range(20):
            journal.append(step, {f"{kind}/accuracy": 0.5})
    journal.append(60, {"loss": 0.5})
    assert journal.repeat(61, {"loss": 0.25})
    is_quick = type(journal._store) is CompiledStore and journal._mapped
    assert journal.repeat_at_once(62, {"loss": 0.25}) is is_quick
    assert [row.step for row in rows(session) if "loss" in row.metrics] == list(range(62 + is_quick))


class Claims(str):
    """A text that claims to be another."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("loss")


class NoHash(type):
    """Classes of it have no hash."""

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("step", "metrics"),
    [
        (1, {"loss": 1}),
        (1, {"loss": True}),
        (1, {"loss": "0.5"}),
        (1, {"loss": NoHash("Odd", (), {})()}),
        (1, {"loss": 0.5, "reward": 0.5}),
        (1, {"reward": 0.5}),
        (1, {7: 0.5}),
        (1, {}),
        (1.0, {"loss": 0.5}),
        (True, {"loss": 0.5}),
        (2**63, {"loss": 0.5}),
        ("1", {"loss": 0.5}),
    ],
)
def test_only_rows_like_others_are_recorded_unseen(
    session: Session, journal: JournalWriter, step: object, metrics: dict[Any, Any]
) -> None:
    for _ in range(2):
        journal.append(0, {"loss": 0.5})
    assert not journal.repeat(step, metrics)
    assert journal.repeat(-(2**63), {"loss": math.inf})
    assert [(row.step, row.metrics) for row in rows(session)][2:] == [(-(2**63), {"loss": math.inf})]


class Told(StrEnum):
    """Texts that are others in JSON than in Python."""

    LOSS = "loss", "how far off it is"

    def __new__(cls, value: str, told: str) -> Self:
        made = str.__new__(cls, told)
        made._value_ = value
        return made


def test_rows_are_packed_by_the_keys_that_a_reader_finds(session: Session, journal: JournalWriter) -> None:
    for step in range(5):
        journal.append(step, {Told.LOSS: 0.5})
    assert [row.metrics for row in rows(session)] == [{"loss": 0.5}] * 5


def test_an_error_of_reading_is_no_damage(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = JournalWriter(session)
    for step in range(5):
        journal.append(step, {"loss": 0.5})
    whole = read_journal("explorer", session, 0)
    found = [next(whole), next(whole)]

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("rolecall.store.codec.open_regular", refuse)
    with pytest.raises(OSError, match="too many"):
        next(whole)
    monkeypatch.undo()
    assert [entry.value for entry in read_all(session)][:2] == [entry.value for entry in found]


def test_a_key_that_claims_to_be_another_brings_no_name(session: Session, journal: JournalWriter) -> None:
    for _ in range(2):
        journal.append(0, {"loss": 0.5})
    journal.append(1, {Claims("\n"): 0.25})
    (*_, row) = rows(session)
    assert row.metrics == {"loss": 0.25}
    assert [type(key) for key in row.metrics] == [str]


def test_a_row_whose_two_are_both_damaged_is_told_as_damaged(
    session: Session, journal: JournalWriter
) -> None:
    for step in range(1, 5):
        journal.append(step, {"loss": 0.5})
    journal.append(5, {"reward": 0.5})
    journal.end("finished")
    data = session.path.read_bytes().splitlines(keepends=True)
    data[1], data[2] = data[1].replace(b"loss", b"l0ss"), data[2].replace(b"loss", b"l0ss")
    session.path.write_bytes(b"".join(data))
    assert [row.step for row in rows(session)] == [5]
    assert ["rows that it names" in damage.reason for damage in damages(session)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_row_gives_its_values_no_other_names(tmp_path: Path) -> None:
    """A file was put together of two, and where the two rows were others stand, of as many metrics."""
    mine, others = ([encode(row_frame(seq, m={key: 0.5})) for seq in (1, 2)] for key in ("loss", "gain"))
    places = (len(encode(HEADER)), len(encode(HEADER)) + len(mine[0]))
    packed = packed_frame({"loss": 0.25}, 3, *places)
    sound = planted(tmp_path / "sound" / "1.jsonl", *mine, packed)
    mixed = planted(tmp_path / "mixed" / "1.jsonl", *others, packed)
    assert [row.metrics for row in rows(sound)] == [{"loss": 0.5}, {"loss": 0.5}, {"loss": 0.25}]
    assert [row.metrics for row in rows(mixed)] == [{"gain": 0.5}, {"gain": 0.5}]
    assert len(damages(mixed)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short",
        b"\0" * 44,
        b"\xff" * 44,
        b"\0" * 52,
        struct.pack("<qqdqqId", 1, 1, math.nan, 1, 1, 0, 0.5),
    ],
)
def test_a_packed_line_that_says_nothing_is_damage(tmp_path: Path, body: bytes) -> None:
    session = planted(tmp_path / "w" / "1.jsonl", row_frame(1), encode_packed(body), row_frame(3))
    assert [row.seq for row in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


def test_a_packed_row_may_not_name_itself_or_another_packed_one(session: Session) -> None:
    journal = JournalWriter(session)
    for step in (1, 2, 3):
        journal.append(step, {"loss": 0.5})
    journal.abandon()
    at = session.path.stat().st_size
    with session.path.open("ab") as file:
        file.write(packed_frame({"loss": 0.5}, 4, at, at - 50))
    assert [row.seq for row in rows(session)] == [1, 2, 3]
    assert len(damages(session)) == 1


def test_no_more_forms_are_remembered_than_there_is_room_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rolecall.store.packed._MOST", 40)
    journal = JournalWriter(session)
    for step in range(200):
        journal.append(step, {f"{(step // 3) % 9}/{at}": 0.5 for at in range(10)})
    journal.append(200, {f"{at}": 0.5 for at in range(50)})
    journal.end("finished")
    assert [row.step for row in rows(session)] == list(range(201))


# ------------------------------------------------------------------ one reader


@pytest.mark.parametrize("declares_axes", [False, True])
def test_rows_are_placed_as_they_are_read(
    session: Session, journal: JournalWriter, declares_axes: bool
) -> None:
    for step in range(1, 5):
        journal.append(step, {"loss": step / 7, "n": step, "step": -1})
        journal.append(step, {f"{step}": 0.5}, commit=True)
    journal.append_table(5, SMALL)
    journal.end("finished")
    placement = Placement.shared("explorer", declares_axes)
    found = [entry.value for entry in JournalReader("explorer", session, placement).read()]
    assert found == [*map(placement.place, rows(session)), End("finished")]
    assert b"=" in whole_lines(session.path), "some were packed"


def test_a_reader_reads_the_rows_that_others_name_once(session: Session, journal: JournalWriter) -> None:
    for step in range(1, 4):
        journal.append(step, {"loss": step / 7})
    reader = JournalReader("explorer", session)
    first = list(reader.read())
    journal.append(4, {"loss": 4 / 7})
    journal.abandon()
    with session.path.open("r+b") as file:
        content = file.read().replace(b'"loss"', b'"moss"')
        file.seek(0)
        file.write(content)
    (later,) = reader.read(first[-1].offset)
    assert isinstance(later.value, Row)
    assert (later.value.step, later.value.metrics) == (4, {"loss": 4 / 7})
    (late,) = read_journal("explorer", session, first[-1].offset)
    assert isinstance(late.value, Damage)


def test_a_reader_remembers_no_more_than_there_is_room_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalWriter(session)
    for step in range(60):
        journal.append(step, {f"{step // 3}/{at}": 0.5 for at in range(10)})
    journal.end("finished")
    monkeypatch.setattr("rolecall.store.packed._MOST", 40)
    reader = JournalReader("explorer", session)
    most = 0
    for step, entry in enumerate(reader.read()):
        assert isinstance(entry.value, End if step == 60 else Row)
        most = max(most, len(reader._unpacker._forms))
    assert most == 4
