"""One writer's rows: each is whole in the file when `append` returns, or counted as lost."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_files import damages, no_file_longer_than, read_all, rows
from pydantic_core import to_json

from rolecall.errors import DirectoryError
from rolecall.job.normalize import Normalizer
from rolecall.rows import Details, Row, TableData
from rolecall.states import State
from rolecall.store.codec import encode, lines_from_end
from rolecall.store.details import last_steps
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Fill, Session, claim, sessions, succeed
from rolecall.store.reader import End, read_rows

EXAMPLES = settings(deadline=None, max_examples=60)
SMALL = TableData(name="samples", columns=("i", "text"), rows=((1, "a"), (None, "b")))
LARGE = TableData(name="samples", columns=("text",), rows=tuple((f"{at}" * 500,) for at in range(5000)))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return claim(Layout(tmp_path).journal("explorer"), {"writer": "explorer", "config": {"lr": 0.1}}, "it")


@pytest.fixture
def journal(session: Session) -> Iterator[JournalWriter]:
    writer = JournalWriter(session)
    yield writer
    writer.abandon()


def lines(session: Session) -> list[dict[str, Any]]:
    """What the standard library reads in each line."""
    return [json.loads(line) for line in session.path.read_bytes().splitlines()]


# ---------------------------------------------------------- what is written


def test_rows_are_as_documented(session: Session, journal: JournalWriter) -> None:
    began = time.time()
    journal.append({"loss": 0.25, "tokens": 2**62}, 5)
    journal.append({"x": math.nan}, -(2**63), more={"commit": True})
    journal.append({}, 7, values=[SMALL])
    journal.end("failed")
    _, *found, ending = lines(session)
    assert began <= found[0]["time"] <= time.time()
    for line in (*found, ending):
        del line["time"], line["sum"]
    assert found == [
        {"seq": 1, "step": 5, "data": {"loss": 0.25, "tokens": 2**62}},
        {"seq": 2, "step": -(2**63), "commit": True, "data": {"x": "NaN"}},
        {
            "seq": 3,
            "step": 7,
            "values": [{"table": {"name": "samples", "columns": ["i", "text"], "rows": [[1, "a"], [None, "b"]]}}],
        },
    ]
    assert ending == {"end": "failed", "seq": 3, "steps": {"": 7}}
    assert (journal.seq, journal.lost) == (3, 0)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)


@EXAMPLES
@given(st.lists(st.dictionaries(TEXT, NUMBERS, max_size=5), max_size=5), st.integers(1, 100))
def test_rows_are_read_as_logged(
    tmp_path_factory: pytest.TempPathFactory, given: list[dict[str, float]], limit: int
) -> None:
    session = claim(tmp_path_factory.mktemp("journal"), {}, "it")
    journal = JournalWriter(session)
    for step, metrics in enumerate(given):
        journal.append(metrics, step)
    journal.end("finished")
    *found, end = (entry.value for entry in read_all(session, limit))
    assert end == End(State.FINISHED, len(given))
    back = [(row.seq, row.step, row.metrics) for row in found if isinstance(row, Row)]
    # NaN is not equal to itself, but its JSON is.
    assert json.dumps(back) == json.dumps([(step + 1, step, row) for step, row in enumerate(given)])


def test_cells_of_every_kind(session: Session, journal: JournalWriter) -> None:
    cells = ("\u2603 \U0001f600 \x00", 1, -(2**63), 0.5, True, False, None, "", "nan", math.inf)
    table = TableData(name="t", columns=tuple(map(str, range(len(cells)))), rows=(cells,), append=True)
    journal.append({}, 1, values=[table])
    (row,) = rows(session)
    assert row.table == table
    assert row.table is not None
    assert [type(cell) for cell in row.table.rows[0]] == [type(cell) for cell in cells]


def test_rows_are_written_at_once(session: Session, journal: JournalWriter) -> None:
    for step in range(50):
        journal.append({"loss": 0.5}, step)
        assert rows(session)[-1].step == step


def test_each_row_is_one_write(session: Session, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def record(descriptor: int, data: bytes) -> int:
        written.append(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", record)
    for step in range(5):
        journal.append({"loss": 0.5}, step)
    journal.end("finished")
    assert session.path.read_bytes().splitlines(keepends=True)[1:] == written


def test_symlinked_journal_is_not_opened(session: Session, tmp_path: Path) -> None:
    session.path.rename(tmp_path / "precious")
    session.path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        JournalWriter(session)


def test_closed_journal_takes_no_row(session: Session, journal: JournalWriter) -> None:
    journal.end("finished")
    journal.end("failed")
    with pytest.raises(OSError, match="Bad file"):
        journal.append({"loss": 0.5}, 1)
    assert journal.lost == 1
    assert session.status() == "finished"
    assert rows(session) == []


def test_abandoned_journal_has_no_end(session: Session, journal: JournalWriter) -> None:
    journal.append({"loss": 0.5}, 1)
    journal.abandon()
    journal.abandon()
    journal.end("finished")
    assert session.status() is None
    assert session.is_live()


def test_row_logged_amid_a_look(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler logs: the file is longer than the look found, and was not cut short."""
    moved: list[Session] = []

    def go_on(before: Session, _: Fill) -> Session:
        moved.append(before)
        raise OSError

    journal, stat = JournalWriter(session, succeed=go_on), os.stat

    def look_and_log(path: Any, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        monkeypatch.undo()
        journal.append({"loss": 0.5}, 2)
        return found

    journal.append({"loss": 0.5}, 1)
    monkeypatch.setattr(os, "stat", look_and_log)
    journal._look(time.time())
    journal.end("finished")
    assert moved == []
    assert [line["step"] for line in lines(session)[1:-1]] == [1, 2]


# ------------------------------------------------------- values of any type


class Lying(str):
    """A string that claims to be another."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("loss")

    def __str__(self) -> str:
        return '","sum":"\n'

    __repr__ = __str__


class Labelled(StrEnum):
    """Strings that differ from their values."""

    LOSS = "loss", "how far off it is"

    def __new__(cls, value: str, label: str) -> Self:
        made = str.__new__(cls, label)
        made._value_ = value
        return made


class LyingFloat(float):
    """A float that claims to be another."""

    def __float__(self) -> float:
        return 7.0

    def __repr__(self) -> str:
        return '"\n'

    __str__ = __repr__


class LyingInt(int):
    """An int that claims to be another."""

    def __int__(self) -> int:
        return 10**5000

    def __index__(self) -> int:
        return 10**5000

    def __repr__(self) -> str:
        return '"\n'

    __str__ = __repr__


ODD: list[dict[Any, Any]] = [
    {Lying("reward"): 0.5},
    {"loss": Lying("word")},
    {Labelled.LOSS: 0.5},
    {"loss": Labelled.LOSS},
    {"loss": LyingFloat(0.5)},
    {"loss": LyingInt(5)},
    {"loss": np.float64(0.5), "n": np.int64(3)},
    {"loss": 10**5000},
    {"loss": 10**400},
    {"loss": 2**63},
    {"loss": -(2**64)},
    {"loss": "half \ud83d"},
    {"half \ud83d": 0.5},
    {"loss": "\ud83d", "reward": 1.0},
    {"loss": {"\ud83d": 1.0, "a": "\ud83d", "b": 10**5000}},
    {"loss": b"\xff"},
    {"loss": [0.5]},
    {"loss": object()},
    {"loss": None},
    {"loss": math.nan, "reward": "NaN"},
    {7: 0.5},
    {None: 0.5},
    {"loss\n": 0.5},
]


@pytest.mark.parametrize("known", [False, True])
def test_odd_values_break_no_line(session: Session, journal: JournalWriter, known: bool) -> None:
    """Neither under new keys nor under keys that were logged before, which are looked at less."""
    normalizer = Normalizer("explorer")
    logged = 0
    for odd in ODD:
        for data in [dict.fromkeys(odd, 0.5)] * known + [odd]:
            plain = data if normalizer.is_ready(data) else normalizer.row(data)[0]
            try:
                journal.append(plain)
            except ValueError:
                journal.append(normalizer.careful(plain)[0])
            logged += 1
    journal.end("finished")
    for line in session.path.read_bytes().splitlines():
        json.loads(line)
    assert not damages(session)
    found = rows(session)
    assert [row.seq for row in found] == list(range(1, logged + 1))
    for row in found:
        assert {type(key) for key in row.metrics} <= {str}
        assert {type(value) for value in row.metrics.values()} <= {int, float}
        assert all(-(2**63) <= value < 2**63 for value in row.metrics.values() if type(value) is int)
    assert journal.lost == 0


def test_unfit_row_changes_nothing(session: Session, journal: JournalWriter) -> None:
    journal.append({"loss": 0.5})
    before = session.path.read_bytes()
    with pytest.raises(ValueError, match="serializ"):
        journal.append({"loss": "\ud83d"})
    assert session.path.read_bytes() == before
    assert (journal.seq, journal.lost) == (1, 0)
    journal.append({"loss": 0.25})
    assert [(row.seq, row.step) for row in rows(session)] == [(1, 1), (2, 2)]


# -------------------------------------------------------------- attachments


def test_large_row_is_attached(session: Session, journal: JournalWriter) -> None:
    wide = {f"layer/{at}/gradient/norm": at / 7 for at in range(120_000)}
    journal.append({"loss": 1.0})
    journal.append(wide, 7, more={"commit": True})
    journal.append({}, values=[LARGE])
    journal.append({"loss": 0.5})
    found = rows(session)
    assert [(row.seq, row.step, row.commit) for row in found] == [
        (1, 1, False),
        (2, 7, True),
        (3, 8, False),
        (4, 9, False),
    ]
    assert found[1].metrics == wide
    assert found[2].table == LARGE
    assert sorted(os.listdir(session.attachments)) == ["2.json", "3.json"]
    assert session.path.stat().st_size < 5000
    assert not damages(session)


def test_large_line_is_not_attached(session: Session, journal: JournalWriter) -> None:
    """Up to 4 MiB."""
    journal.append({"note": "x" * ((4 << 20) - 1000)})
    journal.append({"note": "x" * (4 << 20)})
    assert os.listdir(session.attachments) == ["2.json"]
    assert [len(row.text["note"]) for row in rows(session)] == [(4 << 20) - 1000, 4 << 20]


def test_attachment_replaces_a_symlink(session: Session, journal: JournalWriter, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    session.attachments.mkdir()
    (session.attachments / "1.json").symlink_to(precious)
    journal.append({}, 1, values=[LARGE])
    assert precious.read_text() == "mine"
    assert [row.table for row in rows(session)] == [LARGE]


def test_unwritten_attachment_leaves_nothing(session: Session, journal: JournalWriter) -> None:
    with no_file_longer_than(10_000), pytest.raises(OSError, match="large"):
        journal.append({}, values=[LARGE])
    assert os.listdir(session.attachments) == []
    assert journal.lost == 1
    journal.append({}, values=[LARGE])
    assert [row.table for row in rows(session)] == [LARGE]
    assert journal.lost == 1


# -------------------------------------------------------------- a full disk


@pytest.mark.parametrize("room", range(0, 200, 3))
def test_short_write_costs_itself_alone(session: Session, room: int) -> None:
    """At whatever byte it was cut."""
    journal = JournalWriter(session)
    journal.append({"loss": 0.5})
    with no_file_longer_than(session.path.stat().st_size + room):
        returned = []
        for step in (2, 3, 4):
            try:
                journal.append({"loss": 0.5}, step)
            except OSError:
                continue
            returned.append(step)
    assert journal.lost == 3 - len(returned)
    journal.append({"loss": 0.5}, 5)
    journal.append({"loss": 0.5}, 6)
    journal.end("finished")
    assert [row.step for row in rows(session)] == [1, *returned, 5, 6]
    assert [row.seq for row in rows(session)] == [1, *returned, 5, 6]
    assert session.status() == "finished"
    assert len(damages(session)) <= 1


@pytest.mark.parametrize("written", [0, 1, 50, -2, -1])
def test_short_write_is_closed(
    session: Session, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The next line begins with a newline; a line that lacks only its newline is not lost."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:written] or b""))
    if written == -1:
        journal.append({"loss": 0.5})
    else:
        with pytest.raises(OSError, match="No space"):
            journal.append({"loss": 0.5})
    monkeypatch.undo()
    assert journal.lost == (written != -1)
    journal.append({"loss": 0.25})
    assert [row.metrics["loss"] for row in rows(session)] == [0.5] * (written == -1) + [0.25]
    assert session.path.read_bytes().splitlines()[-1].startswith(b'{"seq":2,')


def test_unwritten_end_is_raised(session: Session, journal: JournalWriter) -> None:
    journal.append({"loss": 0.5}, 1)
    with no_file_longer_than(session.path.stat().st_size + 10), pytest.raises(OSError, match="No space"):
        journal.end("finished")
    journal.end("finished")
    assert session.status() is None
    assert [row.step for row in rows(session)] == [1]
    with pytest.raises(OSError, match="Bad file"):
        journal.append({"loss": 0.5}, 2)


# ------------------------------------------------------ threads and signals


def test_threads_keep_lines_whole(session: Session, journal: JournalWriter) -> None:
    """And each thread's rows in order."""
    barrier = threading.Barrier(8)

    def log(thread: int) -> None:
        barrier.wait()
        for step in range(300):
            journal.append({f"thread/{thread}": step}, step)

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


Act = Callable[[JournalWriter], None]


def append(journal: JournalWriter) -> None:
    journal.append({"appended": 0.5})


def change(journal: JournalWriter) -> None:
    journal.change(lambda _: {"config": {"changed": 0.5}})


def end(journal: JournalWriter) -> None:
    journal.end("finished")


def kind_of(line: dict[str, Any]) -> Act:
    return end if "end" in line else change if "config" in line else append


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a thread waits for the one that made the writer."""
    sleep, found = time.sleep, threading.Event()

    def wait(seconds: float) -> None:
        found.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wait)
    return found


@pytest.mark.parametrize("other", [append, change, end])
@pytest.mark.parametrize("handler", [append, change])
def test_second_thread_waits(
    session: Session,
    journal: JournalWriter,
    monkeypatch: pytest.MonkeyPatch,
    waits: threading.Event,
    other: Act,
    handler: Act,
) -> None:
    """It comes amid a row of the first thread, which takes no lock until then; and so does a signal handler."""
    thread = threading.Thread(target=other, args=[journal])

    def encode_late(*args: Any, **options: Any) -> bytes:
        monkeypatch.setattr("rolecall.store.journal.to_json", to_json)
        thread.start()
        assert waits.wait(10)
        handler(journal)
        assert thread.is_alive()
        return to_json(*args, **options)

    monkeypatch.setattr("rolecall.store.journal.to_json", encode_late)
    journal.append({"interrupted": 0.5})
    thread.join(10)
    assert not thread.is_alive()
    journal.end("finished")
    assert not damages(session)
    first, second, *others = lines(session)[1:]
    assert kind_of(first) is handler
    assert second["data"] == {"interrupted": 0.5}
    assert [kind_of(line) for line in others] == ([end] if other is end else [other, end])
    assert [line["seq"] for line in (first, second, *others)] == ([1, 2, 2] if other is end else [1, 2, 3, 3])


def test_first_thread_waits_for_others(
    session: Session, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once another one has come."""
    main, write = threading.get_ident(), os.write
    other_writes, main_writes = threading.Event(), threading.Event()
    was_overtaken: list[bool] = []

    def write_late(descriptor: int, data: bytes) -> int:
        if threading.get_ident() == main:
            main_writes.set()
        else:
            other_writes.set()
            was_overtaken.append(main_writes.wait(1))
        return write(descriptor, data)

    journal.append({"loss": 0.5})
    monkeypatch.setattr(os, "write", write_late)
    thread = threading.Thread(target=append, args=[journal])
    thread.start()
    assert other_writes.wait(10)
    journal.append({"loss": 0.5})
    thread.join(10)
    assert was_overtaken == [False]
    assert [row.seq for row in rows(session)] == [1, 2, 3]


def test_changes_of_two_threads_are_both_kept(journal: JournalWriter, waits: threading.Event) -> None:
    thread = threading.Thread(target=journal.change, args=[lambda _: {"summary": {"theirs": 1}}])

    def mine(_: Details) -> dict[str, Any]:
        thread.start()
        assert waits.wait(10)
        return {"summary": {"mine": 2}}

    journal.change(mine)
    thread.join(10)
    assert journal.details.summary == {"mine": 2, "theirs": 1}


def append_often(journal: JournalWriter, after: int) -> None:
    while journal.seq < after:  # which grows before the line is written, so this comes amid a row
        pass
    for _ in range(100):
        journal.append({"other": 1})


def test_second_thread_comes_at_any_time(tmp_path: Path, waits: threading.Event) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(100):
            session = claim(tmp_path / str(number), {"config": {}}, "it")
            journal = JournalWriter(session)
            thread = threading.Thread(target=append_often, args=[journal, number])
            thread.start()
            for _ in range(200):
                journal.append({"main": 1})
            thread.join()
            journal.end("finished")
            assert [row.seq for row in rows(session)] == list(range(1, 301))
            assert not damages(session)
    finally:
        sys.setswitchinterval(interval)
    assert waits.is_set()  # at least one came amid a row


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets a handler of SIGALRM for this test.

    Garbage is not collected meanwhile: Python swallows what is raised in a callback of a collection, and warns.
    """
    gc.disable()
    before = signal.getsignal(signal.SIGALRM)

    def handle(call: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: call())

    yield handle
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


Alarm = Callable[[Callable[[], None]], None]


def test_signal_handlers_may_log(session: Session, journal: JournalWriter, alarm: Alarm) -> None:
    """It neither hangs nor takes a number twice, and numbers grow in the file."""
    interrupted = 0

    def handle() -> None:
        nonlocal interrupted
        interrupted += 1
        journal.append({"handler": interrupted}, interrupted)

    alarm(handle)
    steps = 0
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.00013)
    while interrupted < 2000:
        steps += 1
        journal.append({"main": steps}, steps)
    signal.setitimer(signal.ITIMER_REAL, 0)
    journal.end("finished")
    found = rows(session)
    assert not damages(session)
    assert [row.seq for row in found] == list(range(1, steps + interrupted + 1))
    assert [row.step for row in found if "main" in row.metrics] == list(range(1, steps + 1))
    # A handler may be interrupted itself.
    handled = [row.step for row in found if "handler" in row.metrics]
    assert sorted(handled) == list(range(1, interrupted + 1))


def test_signals_between_threads(session: Session, journal: JournalWriter, alarm: Alarm) -> None:
    """The main thread logs in a handler while another logs."""
    over = threading.Event()
    count = itertools.count()

    def log() -> None:
        while not over.is_set():
            journal.append({"thread": next(count)})

    alarm(lambda: journal.append({"handler": next(count)}))
    thread = threading.Thread(target=log)
    thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0005)
    for _ in range(2000):
        journal.append({"main": next(count)})
    signal.setitimer(signal.ITIMER_REAL, 0)
    over.set()
    thread.join()
    assert not damages(session)
    found = rows(session)
    assert [row.seq for row in found] == list(range(1, next(count) + 1))
    assert [row.step for row in found] == [row.seq for row in found]


def interrupt() -> None:
    raise KeyboardInterrupt


def until_interrupted(act: Callable[[], None], after: float) -> KeyboardInterrupt:
    """Do it again and again, until the alarm's handler, set to `interrupt`, ends it."""
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, after)
            # Not for ever: what is raised in a finalizer is lost, and so is the alarm.
            for _ in range(1000):
                act()
    except KeyboardInterrupt as error:
        return error


def test_interrupted_rows_are_not_mixed(session: Session, journal: JournalWriter, alarm: Alarm) -> None:
    """Ctrl-C in the middle of a row: its number goes to no other, and rows before it stay."""
    alarm(interrupt)
    returned: list[int] = []
    step = 0

    def append_next() -> None:
        nonlocal step
        step += 1
        journal.append({"main": step}, step)
        returned.append(step)

    for number in range(300):
        until_interrupted(append_next, 0.00001 + (number % 30) * 0.000002)
    journal.end("finished")
    found = rows(session)
    assert not damages(session)
    numbers = [row.seq for row in found]
    assert numbers == sorted(set(numbers))
    assert set(returned) <= {row.step for row in found}
    assert read_all(session)[-1].value == End(State.FINISHED, journal.seq)


@pytest.mark.parametrize("act", [append, change, end])
def test_interrupted_writer_keeps_no_thread_out(tmp_path: Path, alarm: Alarm, act: Act) -> None:
    """Ctrl-C in the first one, before and after a second one has come, though the exception keeps the frames alive."""
    alarm(interrupt)
    kept = []  # as a traceback that somebody holds
    for number in range(100):
        session = claim(tmp_path / str(number), {"config": {}}, "it")
        journal = JournalWriter(session)
        for _ in ("before", "after"):
            kept.append(until_interrupted(partial(act, journal), 0.00001 + (number % 50) * 0.000002))
            thread = threading.Thread(target=act, args=[journal], daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
        journal.end("finished")
        assert not damages(session)
        numbers = [row.seq for row in rows(session)]
        assert numbers == sorted(set(numbers))


# --------------------------------------------------------------------- steps


def test_steps_are_counted(session: Session) -> None:
    journal = JournalWriter(session, {"": 40})
    journal.append({"loss": 0.5})
    journal.append({"loss": 0.5}, 7)
    journal.append({"loss": 0.5})
    journal.append({}, values=[SMALL])
    journal.end("finished")
    assert [row.step for row in rows(session)] == [41, 7, 8, 9]
    assert last_steps(session) == {"": 9}


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("ended", [True, False])
def test_last_steps_of_a_session(tmp_path: Path, count: int, ended: bool) -> None:
    session = claim(tmp_path / "w", {"steps": {"": 3, "eval": 8}, "config": {}}, "it")
    journal = JournalWriter(session, {"": 3, "eval": 8})
    for _ in range(count):
        journal.append({"loss": 0.5})
    if ended:
        journal.end("finished")
    else:
        journal.abandon()
    assert last_steps(session) == {"": 3 + count, "eval": 8}


def test_last_steps_read_few_rows(session: Session, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 1,000, however long the journal is."""
    for _ in range(5999):
        journal.append({"loss": 0.5})
    read = 0

    def count(path: Path, seed: int = 0) -> Iterator[dict[str, Any]]:
        nonlocal read
        for line in lines_from_end(path, seed):
            read += 1
            yield line

    monkeypatch.setattr("rolecall.store.details.lines_from_end", count)
    assert last_steps(session) == {"": 5999}
    assert read == 1000


def test_last_steps_of_damaged_sessions(session: Session, journal: JournalWriter) -> None:
    assert last_steps(session) == {}
    journal.append({"loss": 0.5}, 7)
    journal.append({"loss": 0.5}, 9)
    with session.path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"xx")
    assert last_steps(session) == {"": 7}
    assert last_steps(Session(session.path.with_name("5.jsonl"), 5)) == {}


# --------------------------------------------- a file that is changed outside


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that looks at its file before every row."""
    monkeypatch.setattr("rolecall.store.journal.FILE_CHECK_INTERVAL", 0.0)


def truncate_all(path: Path) -> None:
    os.truncate(path, 0)


def truncate_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def copy_and_truncate(path: Path) -> None:
    shutil.copyfile(path, path.with_name("rotated"))
    os.truncate(path, 0)


def rename(path: Path) -> None:
    path.rename(path.with_name("rotated"))


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """As `sed -i` and editors do."""
    draft = path.with_name("draft")
    draft.write_bytes(path.read_bytes())
    draft.replace(path)


def replace_with_other(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another's")


def back_up_and_remove(path: Path) -> None:
    os.link(path, path.with_name("backup"))
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def link_elsewhere(path: Path) -> None:
    path.rename(path.parent.with_name("elsewhere"))
    path.symlink_to(path.parent.with_name("elsewhere"))


WHOLE = [rename, remove, replace, replace_with_other, back_up_and_remove, remove_folder, rename_folder, link_elsewhere]
CUT = [truncate_all, truncate_half, copy_and_truncate]


def go_on(session: Session, fill: Fill) -> Session:
    return succeed(session, {"writer": "explorer", "config": {"lr": 0.1}}, fill)


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("change", [*WHOLE, *CUT])
def test_changed_file_is_continued(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """In a new session with what can be had; the rest is in `lost`, with one warning."""
    journal = JournalWriter(session, succeed=go_on)
    for step in range(1, 101):
        journal.append({"loss": step / 7}, step)
    change(session.path)
    for step in range(101, 201):
        journal.append({"loss": step / 7}, step)
    journal.end("finished")
    assert journal.session.number == 2
    assert sessions(session.path.parent)[-1].status() == "finished"
    header = journal.session.header()
    assert (header["continues"], header["config"]) == (1, {"lr": 0.1})
    found = [row for row in read_rows(Layout(tmp_path), "explorer") if isinstance(row, Row)]
    assert [row.seq for row in found] == [row.step for row in found]
    assert [row.step for row in found][-100:] == list(range(101, 201))
    assert len(found) == 200 - journal.lost
    if change in WHOLE:
        assert journal.lost == 0
        assert [row.step for row in rows(journal.session)] == list(range(1, 201))
    elif change is truncate_half:
        assert 40 <= journal.lost <= 60
    else:
        assert journal.lost == 100
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(journal.session.path) in record.getMessage()
    lost = f"{journal.lost} rows are gone" if journal.lost else "with all of its rows"
    assert lost in record.getMessage()


@pytest.mark.usefixtures("looking")
def test_changed_file_says_where_it_continues(session: Session) -> None:
    journal = JournalWriter(session, succeed=go_on)
    journal.append({"loss": 0.5})
    session.path.rename(session.path.with_name("rotated"))
    journal.append({"loss": 0.25})
    journal.abandon()
    rotated = [json.loads(line) for line in session.path.with_name("rotated").read_bytes().splitlines() if line]
    assert (rotated[-1]["end"], rotated[-1]["seq"]) == ("continued", 1)


@pytest.mark.usefixtures("looking")
def test_every_change_is_continued(session: Session, tmp_path: Path) -> None:
    journal = JournalWriter(session, succeed=go_on)
    for step in range(1, 11):
        journal.append({"loss": 0.5}, step)
        journal.session.path.unlink()
    journal.append({"loss": 0.5}, 11)
    journal.end("finished")
    assert journal.session.number == 11
    assert journal.lost == 0
    found = [row.step for row in read_rows(Layout(tmp_path), "explorer") if isinstance(row, Row)]
    assert found == list(range(1, 12))


@pytest.mark.usefixtures("looking")
def test_attachments_move_along(session: Session) -> None:
    journal = JournalWriter(session, succeed=go_on)
    journal.append({}, values=[LARGE])
    session.path.unlink()
    journal.append({"loss": 0.5})
    journal.append({}, values=[LARGE])
    assert [row.table for row in rows(journal.session)] == [LARGE, None, LARGE]
    assert not damages(journal.session)
    journal.abandon()


@pytest.mark.parametrize("change", [truncate_half, rename, remove_folder])
def test_changes_are_noticed_within_seconds(session: Session, change: Callable[[Path], None]) -> None:
    """Without a look at every row: rows that were written meanwhile are kept, too."""
    journal = JournalWriter(session, succeed=go_on)
    for _ in range(100):
        journal.append({"loss": 0.5})
    change(session.path)
    deadline = time.monotonic() + 30.0
    while journal.session is session:
        journal.append({"loss": 0.5})
        assert time.monotonic() < deadline
        time.sleep(0.01)
    journal.abandon()
    found = rows(journal.session)
    assert found[-1].seq == journal.seq
    assert len(found) == journal.seq - journal.lost
    if change is not truncate_half:
        assert journal.lost == 0


@pytest.mark.usefixtures("looking")
def test_a_look_at_the_end(session: Session) -> None:
    """A change after the last row is noticed by `end`."""
    journal = JournalWriter(session, succeed=go_on)
    journal.append({"loss": 0.5})
    session.path.unlink()
    journal.end("finished")
    assert [row.seq for row in rows(journal.session)] == [1]
    assert journal.session.status() == "finished"


@pytest.mark.usefixtures("looking")
def test_successor_is_seen_with_its_rows(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier that moves on to it need not wait for them."""
    journal = JournalWriter(session, succeed=go_on)
    for _ in range(5):
        journal.append({"loss": 0.5})
    session.path.rename(session.path.with_name("rotated"))
    link, seen = os.link, []

    def look(source: Path, target: Path) -> None:
        seen.append([row.seq for found in sessions(session.path.parent) for row in rows(found)])
        link(source, target)
        seen.append([row.seq for found in sessions(session.path.parent) for row in rows(found)])

    monkeypatch.setattr(os, "link", look)
    journal.append({"loss": 0.5})
    journal.abandon()
    assert seen == [[], [1, 2, 3, 4, 5]]


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), DirectoryError("spool_dir: No space")])
def test_full_disk_is_tried_again(session: Session, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """The old file is written on until there is room for a new one."""
    room = False

    def make(before: Session, fill: Fill) -> Session:
        if not room:
            raise error
        return go_on(before, fill)

    journal = JournalWriter(session, succeed=make)
    journal.append({"loss": 0.5})
    session.path.rename(session.path.with_name("rotated"))
    journal.append({"loss": 0.5})
    assert journal.session is session
    assert not caplog.records
    room = True
    journal.append({"loss": 0.5})
    assert [row.seq for row in rows(journal.session)] == [1, 2, 3]
    assert journal.lost == 0
    assert len(caplog.records) == 1
    journal.abandon()


@pytest.mark.usefixtures("looking")
def test_half_copied_session_is_removed(session: Session) -> None:
    journal = JournalWriter(session, succeed=go_on)
    for _ in range(100):
        journal.append({"loss": 0.5})
    size = session.path.stat().st_size
    rotated = session.path.with_name("rotated")
    session.path.rename(rotated)
    with no_file_longer_than(size // 2), pytest.raises(OSError, match="large"):
        journal.append({"loss": 0.5})
    assert not sessions(session.path.parent)
    journal.append({"loss": 0.5})
    assert [row.seq for row in rows(journal.session)] == [*range(1, 101), 102]
    assert journal.lost == 1
    journal.abandon()


@pytest.mark.usefixtures("looking")
def test_writer_without_successor_goes_on(session: Session) -> None:
    journal = JournalWriter(session)
    journal.append({"loss": 0.5})
    rotated = session.path.with_name("rotated")
    session.path.rename(rotated)
    journal.append({"loss": 0.25})
    journal.abandon()
    assert [json.loads(line).get("seq") for line in rotated.read_bytes().splitlines()] == [None, 1, 2]


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("change", [truncate_half, rename])
def test_handlers_log_during_the_rescue(
    session: Session, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """Their rows are kept or counted."""
    journal = JournalWriter(session, succeed=go_on)
    for step in range(1, 11):
        journal.append({"loss": 0.5}, step)
    change(session.path)
    pread = os.pread

    def interrupted(descriptor: int, size: int, offset: int) -> bytes:
        monkeypatch.setattr(os, "pread", pread)
        journal.append({"handler": 0.5}, -1)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", interrupted)
    journal.append({"loss": 0.5}, 11)
    journal.end("finished")
    found = rows(journal.session)
    assert len(found) == 12 - journal.lost
    assert found[-1].step == 11
    assert [row.seq for row in found] == sorted(row.seq for row in found)


def test_external_lines_are_no_change(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """What was appended by somebody else is damage, and costs nothing."""
    journal = JournalWriter(session, succeed=go_on)
    journal.append({"loss": 0.5})
    with session.path.open("ab") as file:
        file.write(b"a note\n")
    journal._look(time.time())
    journal.append({"loss": 0.5})
    journal.end("finished")
    assert journal.session is session
    assert [row.seq for row in rows(session)] == [1, 2]
    assert not caplog.records


KILLED = """
import pathlib, sys
from rolecall.store.journal import JournalWriter
from rolecall.store.lease import claim
journal = JournalWriter(claim(pathlib.Path(sys.argv[1]), {"config": {}}, "it"))
for step in range(1, 1_000_000):
    journal.append({"loss": step / 7}, step)
    print(step, flush=True)
"""


def test_rows_survive_sigkill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "explorer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as role:
        assert role.stdout is not None
        for _ in range(500):
            role.stdout.readline()
        role.kill()
        returned = 500 + role.stdout.read().count(b"\n")
    (session,) = sessions(tmp_path / "explorer")
    assert len(rows(session)) >= returned
    assert session.state() is State.KILLED


def test_seeds_tell_journals_apart(session: Session, journal: JournalWriter) -> None:
    """A line of another journal, copied here, is damage."""
    journal.append({"loss": 0.5})
    other = claim(session.path.parent.with_name("trainer"), {}, "it")
    with session.path.open("ab") as file:
        file.write(encode({"seq": 2, "step": 2, "time": 1.0, "data": {}}, other.seed))
    journal.append({"loss": 0.5}, 3)
    assert [row.step for row in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


# ---------------------------------------------------------------- disk space


class Disk:
    """What `fstatvfs` says of a disk of 1,000 blocks."""

    def __init__(self, free: int) -> None:
        self.f_blocks, self.f_bfree, self.f_bavail = 1000, free, free


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(("free", "warnings"), [(101, 0), (100, 1), (0, 1), (1000, 0)])
def test_almost_full_disk_is_warned_of(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, warnings: int
) -> None:
    """Once, and before a row is lost."""
    monkeypatch.setattr(os, "fstatvfs", lambda _: Disk(free))
    journal = JournalWriter(session)
    for step in range(1, 4):
        journal.append({"loss": 0.5}, step)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warnings
    assert f"the disk of {session.path.parent} is" in caplog.text or not warnings
    assert journal.lost == 0
    journal.abandon()


@pytest.mark.usefixtures("looking")
def test_limit_of_a_journal(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """A warning at 90 %, then rows are lost and counted, until there is room again."""
    earlier = session.path.with_name("0.earlier")
    earlier.write_bytes(b"x" * 100_000)
    limit = 200_000
    journal = JournalWriter(session, limit=limit)
    lost = 0
    for step in range(1, 2000):
        if "spool_limit is" in caplog.text and not lost:
            assert session.path.stat().st_size + 100_000 >= 0.89 * limit
        try:
            journal.append({"loss": 0.5}, step)
        except OSError as error:
            assert "spool_limit of 200000 bytes is reached" in str(error)  # noqa: PT017 - the last rows alone
            lost += 1
    assert lost == journal.lost > 0
    assert len(caplog.records) == 1
    assert 199_000 < session.path.stat().st_size + 100_000 <= limit
    with pytest.raises(OSError, match="spool_limit"):
        journal.append({"text": "x" * 5_000_000})
    assert not session.attachments.exists()
    earlier.unlink()
    JournalWriter(session, limit=limit).append({"loss": 0.5})
    journal.end("finished")
    assert rows(session)[-1].metrics == {"loss": 0.5}
