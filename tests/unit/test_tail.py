"""A tail reads one writer on, session after session, until the writer has ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from made_journals import KINDS, make_journal

from rolecall.delivery.cursor import Mirror, Tail, damages
from rolecall.rows import Row, TableData
from rolecall.states import Status
from rolecall.store.codec import Damage, encode, whole_lines
from rolecall.store.journal import End, JournalWriter, Place
from rolecall.store.lease import STALE, Owner, Session, claim, this_process

Wait = Callable[..., None]

START = Place(1, 0)
LARGE = TableData(name="samples", columns=("text",), rows=tuple(("x" * 50,) for _ in range(1000)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "explorer"


def open_journal(folder: Path, owner: Owner | None = None) -> JournalWriter:
    """A session of this process, or of what is said to be another."""
    if owner is None:
        return JournalWriter(claim(folder, {"writer": "explorer"}, "it"))
    folder.mkdir(exist_ok=True)
    number = len(list(folder.glob("*.jsonl"))) + 1
    path = folder / f"{number}.jsonl"
    path.write_bytes(encode({"rolecall": 1, "owner": asdict(owner), "writer": "explorer"}))
    return JournalWriter(Session(path, number))


def a_dead_process() -> Owner:
    return replace(this_process(), start="0")


def elsewhere() -> Owner:
    return Owner(host="elsewhere", pid=os.getpid(), start="1", space="")


def log(journal: JournalWriter, *steps: int) -> None:
    for step in steps:
        journal.append(step, {"loss": 0.5})


def steps(tail: Tail, looks: int = 1) -> list[tuple[int, int]]:
    """Session and step of the rows that some looks find."""
    values = [entry.value for _ in range(looks) for entry in tail.read()]
    return [(value.session, value.step) for value in values if isinstance(value, Row)]


def told(tail: Tail) -> Status | None:
    """Its status; a call, as a type checker takes an attribute for what it was."""
    return tail.status


def test_rows_come_as_they_are_logged_and_the_end_last(folder: Path) -> None:
    journal = open_journal(folder)
    tail = Tail("explorer", folder, START)
    assert tail.read() == []
    for step in (1, 2, 3):
        log(journal, step, step * 10)
        assert steps(tail) == [(1, step), (1, step * 10)]
        assert tail.read() == []
        assert told(tail) is None
        assert not tail.over()
    journal.end("finished")
    assert tail.over()
    assert [entry.value for entry in tail.read()] == [End("finished")]
    assert tail.status == "finished"
    assert tail.read() == []
    assert tail.place == Place(1, journal.session.path.stat().st_size)


@pytest.mark.parametrize("status", ["finished", "failed", "killed"])
def test_the_writers_status_is_told_with_its_last_entries(folder: Path, status: Status) -> None:
    journal = open_journal(folder)
    log(journal, 1)
    journal.end(status)
    tail = Tail("explorer", folder, START)
    assert steps(tail) == [(1, 1)]
    assert tail.status == status


def test_reading_begins_at_the_place_that_was_acknowledged(folder: Path) -> None:
    journal = open_journal(folder)
    log(journal, 1, 2)
    first = Tail("explorer", folder, START)
    first.read()
    log(journal, 3)
    assert steps(Tail("explorer", folder, first.place)) == [(1, 3)]
    journal.abandon()


def test_a_dead_writers_rows_are_all_read_before_it_is_said_to_be_killed(folder: Path) -> None:
    journal = open_journal(folder, a_dead_process())
    log(journal, 1, 2)
    with journal.session.path.open("ab") as file:
        file.write(encode({"n": 3})[:-5])
    tail = Tail("explorer", folder, START)
    assert tail.over()
    assert steps(tail) == [(1, 1), (1, 2)]
    assert told(tail) is None
    assert steps(tail) == []
    assert tail.status == "killed"
    journal.abandon()


def test_rows_that_came_in_between_the_looks_at_owner_and_file_are_read(folder: Path) -> None:
    journal = open_journal(folder, a_dead_process())
    tail = Tail("explorer", folder, START)
    for step in range(1, 6):
        log(journal, step)
        assert steps(tail) == [(1, step)]
        assert told(tail) is None
    journal.abandon()


def test_a_writer_on_another_host_is_killed_when_it_has_been_silent(folder: Path) -> None:
    journal = open_journal(folder, elsewhere())
    log(journal, 1)
    tail = Tail("explorer", folder, START)
    assert steps(tail, looks=3) == [(1, 1)]
    assert told(tail) is None
    silent = time.time() - STALE - 1
    os.utime(journal.session.path, (silent, silent))
    assert steps(tail) == []
    assert tail.status == "killed"
    journal.abandon()


def test_several_sessions_are_read_one_after_another(folder: Path) -> None:
    endings: tuple[Status, Status] = ("finished", "failed")
    for number, status in enumerate(endings, start=1):
        journal = open_journal(folder)
        log(journal, number, number * 10)
        journal.end(status)
    journal = open_journal(folder)
    log(journal, 3, 30)
    tail = Tail("explorer", folder, START)
    assert steps(tail, looks=9) == [(1, 1), (1, 10), (2, 2), (2, 20), (3, 3), (3, 30)]
    assert told(tail) is None, "an earlier session's end is not the writer's"
    assert tail.place.session == 3
    journal.end("killed")
    tail.read()
    assert tail.status == "killed"


def test_a_session_that_was_followed_by_another_is_over_whether_ended_or_not(folder: Path) -> None:
    first = open_journal(folder, elsewhere())
    log(first, 1)
    tail = Tail("explorer", folder, START)
    assert steps(tail, looks=2) == [(1, 1)]
    assert not tail.over()
    second = open_journal(folder, elsewhere())
    log(second, 2)
    assert tail.over()
    assert steps(tail, looks=3) == []
    assert tail.status == "killed"
    assert steps(Tail("explorer", folder, tail.place), looks=3) == [(2, 2)]
    first.abandon()
    second.abandon()


def test_a_session_opened_again_by_the_same_process_is_the_next_tails(folder: Path) -> None:
    first = open_journal(folder)
    log(first, 1)
    tail = Tail("explorer", folder, START)
    assert steps(tail) == [(1, 1)]
    first.end("finished")
    second = open_journal(folder)
    log(second, 2)
    assert steps(tail, looks=3) == []
    assert tail.status == "finished"
    successor = Tail("explorer", folder, tail.place)
    assert steps(successor, looks=3) == [(2, 2)]
    assert successor.status is None
    second.end("failed")
    successor.read()
    assert successor.status == "failed"


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_a_place_behind_the_end_still_tells_how_it_ended(folder: Path, status: Status) -> None:
    journal = open_journal(folder)
    log(journal, 1)
    journal.end(status)
    tail = Tail("explorer", folder, Place(1, journal.session.path.stat().st_size))
    assert tail.over()
    assert tail.read() == []
    assert tail.status == status


def test_that_a_writer_ended_is_seen_before_it_is_read_and_while_its_process_lives(folder: Path) -> None:
    journal = open_journal(folder)
    log(journal, 1)
    tail = Tail("explorer", folder, START)
    tail.read()
    tail.rewind(START)
    assert not tail.over()
    journal.end("finished")
    assert tail.over()
    assert told(tail) is None


def test_sessions_that_are_missing_are_passed_over(folder: Path) -> None:
    for number in (1, 2, 3, 4):
        journal = open_journal(folder)
        log(journal, number)
        journal.end("finished")
    (folder / "1.jsonl").unlink()
    (folder / "3.jsonl").unlink()
    tail = Tail("explorer", folder, START)
    assert steps(tail, looks=6) == [(2, 2), (4, 4)]
    assert tail.status == "finished"


def test_a_session_that_is_opened_after_the_end_was_told_is_the_next_tails(folder: Path) -> None:
    first = open_journal(folder)
    log(first, 1)
    first.end("finished")
    tail = Tail("explorer", folder, START)
    tail.read()
    assert tail.status == "finished"
    second = open_journal(folder)
    log(second, 2)
    assert steps(tail, looks=3) == []
    assert tail.status == "finished"
    successor = Tail("explorer", folder, tail.place)
    assert steps(successor, looks=3) == [(2, 2)]
    second.abandon()


def test_a_rewound_tail_reads_again_and_tells_the_end_again(folder: Path) -> None:
    first = open_journal(folder)
    log(first, 1, 2)
    first.end("finished")
    second = open_journal(folder)
    log(second, 3)
    second.end("failed")
    tail = Tail("explorer", folder, START)
    everything = [(1, 1), (1, 2), (2, 3)]
    assert steps(tail, looks=4) == everything
    for _ in range(3):
        tail.rewind(START)
        assert told(tail) is None
        assert steps(tail, looks=4) == everything
        assert tail.status == "failed"
    tail.rewind(Place(2, 0))
    assert steps(tail, looks=2) == [(2, 3)]


def test_a_rewound_tail_keeps_to_its_sessions(folder: Path) -> None:
    first = open_journal(folder)
    log(first, 1)
    first.end("finished")
    tail = Tail("explorer", folder, START)
    tail.read()
    second = open_journal(folder)
    log(second, 2)
    tail.rewind(START)
    assert steps(tail, looks=4) == [(1, 1)]
    assert tail.status == "finished"
    second.abandon()


def test_damage_is_told_with_where_it_stands(folder: Path) -> None:
    journal = open_journal(folder)
    log(journal, 1)
    offset = journal.session.path.stat().st_size
    with journal.session.path.open("ab") as file:
        file.write(b"nonsense\n")
    log(journal, 2)
    tail = Tail("explorer", folder, START)
    entries = tail.read()
    assert [type(entry.value) for entry in entries] == [Row, Damage, Row]
    assert [(damage.offset, damage.end) for damage in damages(entries)] == [(offset, offset + 9)]
    journal.abandon()


def test_an_end_that_is_damaged_is_the_death_of_its_process(folder: Path) -> None:
    journal = open_journal(folder, a_dead_process())
    log(journal, 1)
    journal.end("finished")
    data = journal.session.path.read_bytes()
    journal.session.path.write_bytes(data[:-3] + b"!" + data[-2:])
    tail = Tail("explorer", folder, START)
    assert steps(tail, looks=2) == [(1, 1)]
    assert tail.status == "killed"


def test_many_rows_come_in_pieces(folder: Path) -> None:
    journal = open_journal(folder)
    metrics = {f"layer/{at}": 0.5 for at in range(1000)}
    for step in range(1, 201):
        journal.append(step, metrics)
    journal.end("finished")
    tail = Tail("explorer", folder, START)
    pieces = []
    while tail.status is None:
        pieces.append(steps(tail))
    assert len(pieces) > 2
    assert [step for piece in pieces for _, step in piece] == list(range(1, 201))


# ------------------------------------------------------------------ a journal that is spooled on the node


@pytest.fixture(params=KINDS)
def spooled(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[JournalWriter, Mirror, Session]:
    """A journal on the node, its mirror, and the session in `monitor_dir`."""
    session = claim(folder, {"writer": "explorer"}, "it")
    spool = tmp_path / "node" / "1.jsonl"
    spool.parent.mkdir()
    spool.write_bytes(session.path.read_bytes())
    journal = make_journal(Session(spool, 1), request.param)
    return journal, Mirror(spool, session.path), session


Spooled = tuple[JournalWriter, Mirror, Session]


def same(spooled: Spooled) -> bool:
    journal, _, session = spooled
    return whole_lines(journal.session.path) == session.path.read_bytes()


def test_a_mirror_copies_rows_and_tables_as_they_are(spooled: Spooled, folder: Path) -> None:
    journal, mirror, session = spooled
    tail = Tail("explorer", folder, START, mirror)
    assert tail.read() == []
    for step in (1, 2, 3):
        log(journal, step)
        journal.append_table(step, LARGE)
        rows = [entry.value for entry in tail.read()]
        assert [row.table for row in rows if isinstance(row, Row)] == [None, LARGE]
        assert same(spooled)
    journal.end("finished")
    tail.read()
    assert tail.status == "finished"
    assert same(spooled)
    assert sorted(os.listdir(session.path.with_suffix(".tables"))) == ["2.json", "4.json", "6.json"]


def test_a_mirror_that_was_cut_short_goes_on_where_it_was(spooled: Spooled) -> None:
    journal, mirror, session = spooled
    log(journal, 1, 2, 3)
    mirror.copy()
    with session.path.open("r+b") as file:
        file.truncate(session.path.stat().st_size - 7)
    log(journal, 4)
    mirror.copy()
    assert same(spooled)
    journal.abandon()


def test_a_line_that_is_being_written_is_copied_when_it_is_whole(spooled: Spooled, folder: Path) -> None:
    journal, mirror, _ = spooled
    line = encode({"n": 1, "s": 1, "t": 1.0, "m": {"loss": 0.5}})
    tail = Tail("explorer", folder, START, mirror)
    with journal.session.path.open("ab", buffering=0) as file:
        file.write(line[:20])
        assert tail.read() == []
        file.write(line[20:])
    assert steps(tail) == [(1, 1)]
    assert same(spooled)
    journal.abandon()


def test_a_table_that_is_being_written_is_not_copied_before_it_is_whole(spooled: Spooled) -> None:
    journal, mirror, session = spooled
    folder = journal.session.path.with_suffix(".tables")
    folder.mkdir()
    (folder / ".draft").write_text('{"columns":')
    log(journal, 1)
    mirror.copy()
    assert not session.path.with_suffix(".tables").exists()
    (folder / ".draft").unlink()
    journal.append_table(2, LARGE)
    mirror.copy()
    assert os.listdir(session.path.with_suffix(".tables")) == ["2.json"]
    journal.abandon()


def test_two_mirrors_of_one_journal_write_no_byte_twice(spooled: Spooled) -> None:
    journal, mirror, session = spooled
    mirrors = [mirror, *(Mirror(journal.session.path, session.path) for _ in range(3))]
    over = threading.Event()

    def copy(one: Mirror) -> None:
        while not over.is_set():
            one.copy()

    threads = [threading.Thread(target=copy, args=(one,)) for one in mirrors]
    for thread in threads:
        thread.start()
    log(journal, *range(1, 1001))
    journal.append_table(1001, LARGE)
    journal.end("finished")
    over.set()
    for thread in threads:
        thread.join()
    mirror.copy()
    assert same(spooled)


def test_a_mirror_does_not_write_through_a_symlink(spooled: Spooled, tmp_path: Path) -> None:
    journal, mirror, session = spooled
    precious = tmp_path / "precious"
    precious.write_text("")
    session.path.unlink()
    session.path.symlink_to(precious)
    log(journal, 1)
    with pytest.raises(OSError, match="symbolic"):
        mirror.copy()
    assert precious.read_text() == ""
    journal.abandon()
