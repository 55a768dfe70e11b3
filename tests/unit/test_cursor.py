"""A cursor reads one writer on, session after session, until the writer has ended, and acknowledges what is held."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rolecall.delivery.cursor import Batch, Cursor
from rolecall.states import Status
from rolecall.store import lease
from rolecall.store.acks import Acknowledgements, Position, undelivered
from rolecall.store.codec import encode
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import FORMAT, Owner, Session, claim, end, succeed, this_process
from rolecall.store.reader import read_rows

WRITER = "explorer"
HEADER = {"writer": WRITER, "config": {}}

Wait = Callable[..., None]
OpenCursor = Callable[..., Cursor]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def open_cursor(layout: Layout) -> Iterator[OpenCursor]:
    """A cursor for a backend that holds the rows up to a position; each has a backend of its own."""
    opened: list[Cursor] = []
    names = (f"backend-{number}" for number in itertools.count())

    def make(position: Position | None = None, rows: int = 0) -> Cursor:
        acks = Acknowledgements(layout, next(names), WRITER)
        if position is not None:
            acks.acknowledge(position, rows)
        opened.append(Cursor(layout, WRITER, acks))
        return opened[-1]

    yield make
    for cursor in opened:
        cursor.acks.release(None)


def open_journal(layout: Layout, owner: Owner | None = None) -> JournalWriter:
    """A session of this process, or of what is said to be another; it goes on elsewhere if its file is changed."""
    folder = layout.journal(WRITER)
    if owner is None:
        session = claim(folder, HEADER, "it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.jsonl"))) + 1
        session = Session(folder / f"{number}.jsonl", number)
        header = {"rolecall": FORMAT, "owner": asdict(owner), "session": number, **HEADER}
        session.path.write_bytes(encode(header, session.seed))
    return JournalWriter(session, succeed=lambda before, fill: succeed(before, HEADER, fill))


def a_dead_process() -> Owner:
    return replace(this_process(), start="0")


def elsewhere() -> Owner:
    return Owner(host="elsewhere", pid=os.getpid(), start="1", space="")


def log(journal: JournalWriter, *steps: int) -> None:
    for step in steps:
        journal.append({"loss": 0.5}, step)


def notice(journal: JournalWriter) -> None:
    """Let the writer look at its file now, and not within a second."""
    journal._look_at = 0.0


def take(cursor: Cursor) -> Batch:
    """Read once, and hand it over."""
    batch = cursor.read()
    cursor.mark(batch, batch.rows[-1] if batch.rows else None)
    return batch


def steps(cursor: Cursor, looks: int = 1) -> list[tuple[int, int]]:
    """Session and step of the rows that some looks find."""
    return [(row.session, row.step) for _ in range(looks) for row in take(cursor).rows]


def seqs(cursor: Cursor) -> list[int]:
    """The numbers of all rows until the writer has ended."""
    found: list[int] = []
    while status_of(cursor) is None:
        found += [row.seq for row in take(cursor).rows]
    return found


def status_of(cursor: Cursor) -> Status | None:
    """The status of a cursor; a function, as a type checker would narrow the attribute."""
    return cursor.status


def size(session: Session) -> int:
    return session.path.stat().st_size


# ------------------------------------------------------------------ one session


def test_rows_come_as_logged(layout: Layout, open_cursor: OpenCursor) -> None:
    """The end comes last."""
    journal = open_journal(layout)
    cursor = open_cursor()
    assert take(cursor) == Batch((), ())
    for step in (1, 2, 3):
        log(journal, step, step * 10)
        assert steps(cursor) == [(1, step), (1, step * 10)]
        assert take(cursor) == Batch((), ())
        assert status_of(cursor) is None
        assert not cursor.is_over()
    journal.end("finished")
    assert cursor.is_over()
    assert take(cursor) == Batch([], [])
    assert cursor.status == "finished"
    assert take(cursor).rows == ()
    cursor.acknowledge()
    assert cursor.acks.done.position == Position(1, size(journal.session), 6)
    assert (cursor.acks.done.rows, cursor.acks.done.missing) == (6, 0)


@pytest.mark.parametrize("status", ["finished", "failed", "killed"])
def test_status_comes_with_last_rows(layout: Layout, open_cursor: OpenCursor, status: Status) -> None:
    journal = open_journal(layout)
    log(journal, 1)
    journal.end(status)
    cursor = open_cursor()
    assert steps(cursor) == [(1, 1)]
    assert cursor.status == status


def test_reading_begins_behind_the_acknowledgement(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout)
    log(journal, 1, 2)
    first = open_cursor()
    take(first)
    first.acknowledge()
    log(journal, 3)
    assert steps(open_cursor(first.acks.done.position, 2)) == [(1, 3)]
    journal.abandon()


def test_dead_writers_rows_are_read(layout: Layout, open_cursor: OpenCursor) -> None:
    """All of them, before it is said to be killed."""
    journal = open_journal(layout, a_dead_process())
    log(journal, 1, 2)
    with journal.session.path.open("ab") as file:
        file.write(encode({"seq": 3}, journal.session.seed)[:-5])
    cursor = open_cursor()
    assert cursor.is_over()
    assert steps(cursor) == [(1, 1), (1, 2)]
    assert status_of(cursor) is None
    assert steps(cursor) == []
    assert cursor.status == "killed"
    journal.abandon()


def test_rows_between_two_looks_count(layout: Layout, open_cursor: OpenCursor) -> None:
    """Those that came after the look at the owner and before the look at the file."""
    journal = open_journal(layout, a_dead_process())
    cursor = open_cursor()
    for step in range(1, 6):
        log(journal, step)
        assert steps(cursor) == [(1, step)]
        assert status_of(cursor) is None
    journal.abandon()


@pytest.mark.parametrize("ahead", [-1000, 0, 1000])
def test_silence_kills_a_remote_writer(
    layout: Layout, open_cursor: OpenCursor, monkeypatch: pytest.MonkeyPatch, wait_until: Wait, ahead: float
) -> None:
    """However far the clock of its machine is ahead of ours: it is the courier's own that tells."""
    journal = open_journal(layout, elsewhere())
    log(journal, 1)
    os.utime(journal.session.path, (time.time() + ahead,) * 2)
    cursor = open_cursor()
    assert steps(cursor, looks=3) == [(1, 1)]
    assert status_of(cursor) is None
    os.utime(journal.session.path, (time.time() + ahead + 5,) * 2)
    assert steps(cursor) == []
    assert status_of(cursor) is None
    monkeypatch.setattr(lease, "STALE", 0.5)
    began = time.monotonic()
    wait_until(lambda: steps(cursor) == [] and cursor.status == "killed")
    assert time.monotonic() - began >= 0.4
    journal.abandon()


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_position_behind_the_end(layout: Layout, open_cursor: OpenCursor, status: Status) -> None:
    """It still reports how the writer ended."""
    journal = open_journal(layout)
    log(journal, 1)
    journal.end(status)
    cursor = open_cursor(Position(1, size(journal.session), 1), 1)
    assert cursor.is_over()
    assert take(cursor).rows == ()
    assert cursor.status == status


def test_end_is_seen_unread(layout: Layout, open_cursor: OpenCursor) -> None:
    """While the writer's process lives, and before the rows are read."""
    journal = open_journal(layout)
    log(journal, 1)
    cursor = open_cursor()
    take(cursor)
    cursor.rewind()
    assert not cursor.is_over()
    journal.end("finished")
    assert cursor.is_over()
    assert status_of(cursor) is None


def test_no_session_is_a_death(layout: Layout, open_cursor: OpenCursor) -> None:
    cursor = open_cursor()
    assert cursor.is_gone()
    assert steps(cursor) == []
    assert cursor.status == "killed"


def test_deleted_journal_is_gone(layout: Layout, open_cursor: OpenCursor) -> None:
    """But not while its writer lives."""
    for owner, is_gone in ((this_process(), False), (a_dead_process(), True)):
        journal = open_journal(layout, owner)
        cursor = open_cursor()
        take(cursor)
        assert not cursor.is_gone()
        journal.session.path.unlink()
        assert cursor.is_gone() is is_gone
        journal.abandon()


def test_launchers_journal_may_come_back(layout: Layout) -> None:
    """Its end makes it anew below a directory that was deleted; without the job's record nothing is left to do."""
    end(claim(layout.journal(LAUNCH), {}, "it"), "finished")
    acks = Acknowledgements(layout, "backend", LAUNCH)
    cursor = Cursor(layout, LAUNCH, acks)
    assert cursor.is_gone()
    layout.record.touch()
    assert not cursor.is_gone()
    acks.release(None)


def test_many_rows_come_in_pieces(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout)
    data = {f"layer/{at}": 0.5 for at in range(1000)}
    for step in range(1, 201):
        journal.append(data, step)
    journal.end("finished")
    cursor = open_cursor()
    pieces = []
    while cursor.status is None:
        pieces.append(steps(cursor))
    assert len(pieces) > 2
    assert [step for piece in pieces for _, step in piece] == list(range(1, 201))


def test_header_longer_than_a_piece(layout: Layout, open_cursor: OpenCursor) -> None:
    """Of a role with a large config."""
    session = claim(layout.journal(WRITER), {**HEADER, "config": {"prompt": "x" * 2_000_000}}, "it")
    journal = JournalWriter(session)
    log(journal, 1)
    journal.end("finished")
    assert seqs(open_cursor()) == [1]
    assert len(list(read_rows(layout, WRITER))) == 1


def test_refresh_comes_before_each_look(layout: Layout) -> None:
    """So what is spooled on the node is copied first."""
    journal = open_journal(layout)
    acks = Acknowledgements(layout, "backend", WRITER)
    looks = itertools.count(1)
    cursor = Cursor(layout, WRITER, acks, lambda: log(journal, next(looks)))
    assert steps(cursor, looks=3) == [(1, 1), (1, 2), (1, 3)]
    journal.abandon()
    acks.release(None)


# ------------------------------------------------------------------ several sessions


def test_sessions_are_read_in_order(layout: Layout, open_cursor: OpenCursor) -> None:
    endings: tuple[Status, Status] = ("finished", "failed")
    for number, status in enumerate(endings, start=1):
        journal = open_journal(layout)
        log(journal, number, number * 10)
        journal.end(status)
    journal = open_journal(layout)
    log(journal, 3, 30)
    cursor = open_cursor()
    assert steps(cursor, looks=9) == [(1, 1), (1, 10), (2, 2), (2, 20), (3, 3), (3, 30)]
    assert status_of(cursor) is None, "an earlier session's end is not the writer's"
    journal.end("killed")
    take(cursor)
    assert cursor.status == "killed"
    cursor.acknowledge()
    assert cursor.acks.done.position == Position(3, size(journal.session), 2)


def test_followed_session_is_over(layout: Layout, open_cursor: OpenCursor) -> None:
    """Whether it has ended or not."""
    first = open_journal(layout, elsewhere())
    log(first, 1)
    cursor = open_cursor()
    assert steps(cursor, looks=2) == [(1, 1)]
    assert not cursor.is_over()
    second = open_journal(layout, elsewhere())
    log(second, 2)
    assert cursor.is_over()
    assert steps(cursor, looks=3) == []
    assert cursor.status == "killed"
    cursor.acknowledge()
    assert steps(open_cursor(cursor.acks.done.position), looks=3) == [(2, 2)]
    first.abandon()
    second.abandon()


def test_later_sessions_are_another_cursors(layout: Layout, open_cursor: OpenCursor) -> None:
    """Also those that the same process opens, before or after the end was reported."""
    first = open_journal(layout)
    log(first, 1)
    cursor, other = open_cursor(), open_cursor()
    assert steps(cursor) == steps(other) == [(1, 1)]
    first.end("finished")
    take(other)
    assert status_of(other) == "finished"
    second = open_journal(layout)
    log(second, 2)
    for each in (cursor, other):
        assert steps(each, looks=3) == []
        assert status_of(each) == "finished"
    cursor.acknowledge()
    successor = open_cursor(cursor.acks.done.position)
    assert steps(successor, looks=3) == [(2, 2)]
    assert status_of(successor) is None
    second.end("failed")
    take(successor)
    assert successor.status == "failed"


def test_missing_sessions_are_passed_over(layout: Layout, open_cursor: OpenCursor) -> None:
    for number in (1, 2, 3, 4):
        journal = open_journal(layout)
        log(journal, number)
        journal.end("finished")
    for number in (1, 3):
        (layout.journal(WRITER) / f"{number}.jsonl").unlink()
    cursor = open_cursor()
    assert steps(cursor, looks=6) == [(2, 2), (4, 4)]
    assert cursor.status == "finished"


def test_rewound_cursor_reads_again(layout: Layout, open_cursor: OpenCursor) -> None:
    """From the acknowledgement on, and reports the end again."""
    first = open_journal(layout)
    log(first, 1, 2)
    first.end("finished")
    second = open_journal(layout)
    log(second, 3)
    second.end("failed")
    cursor = open_cursor()
    everything = [(1, 1), (1, 2), (2, 3)]
    for _ in range(3):
        assert steps(cursor, looks=4) == everything
        assert status_of(cursor) == "failed"
        cursor.rewind()
        assert status_of(cursor) is None
    assert steps(cursor) == everything[:2]
    cursor.acknowledge()
    assert steps(cursor, looks=3) == everything[2:]
    cursor.rewind()
    assert steps(cursor, looks=3) == everything[2:]


def test_rewound_cursor_keeps_its_sessions(layout: Layout, open_cursor: OpenCursor) -> None:
    first = open_journal(layout)
    log(first, 1)
    first.end("finished")
    cursor = open_cursor()
    take(cursor)
    second = open_journal(layout)
    log(second, 2)
    cursor.rewind()
    assert steps(cursor, looks=4) == [(1, 1)]
    assert cursor.status == "finished"
    second.abandon()


# ------------------------------------------------------------------ damage and gaps


def test_damage_that_costs_a_row(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout)
    log(journal, 1)
    offset = size(journal.session)
    log(journal, 2)
    width = size(journal.session) - offset
    log(journal, 3)
    journal.abandon()
    with journal.session.path.open("r+b") as file:
        file.seek(offset + 5)
        file.write(b"!!!")
    batch = take(open_cursor())
    assert [row.seq for row in batch.rows] == [1, 3]
    (damage,) = batch.damages
    assert f"{width} bytes at offset {offset} are damaged" in damage
    assert "row 2 is lost" in damage


def test_damage_that_costs_nothing(layout: Layout, open_cursor: OpenCursor) -> None:
    """A line that was torn and written again, or that somebody else wrote, is nothing to worry about."""
    journal = open_journal(layout)
    log(journal, 1)
    with journal.session.path.open("ab") as file:
        file.write(b"nonsense\n")
    log(journal, 2)
    batch = take(open_cursor())
    assert [row.seq for row in batch.rows] == [1, 2]
    assert batch.damages == []
    journal.abandon()


def test_damaged_end_is_a_death(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout, a_dead_process())
    log(journal, 1)
    journal.end("finished")
    data = journal.session.path.read_bytes()
    journal.session.path.write_bytes(data[:-3] + b"!" + data[-2:])
    cursor = open_cursor()
    assert steps(cursor, looks=2) == [(1, 1)]
    assert cursor.status == "killed"


def damage_row(session: Session, seq: int) -> None:
    lines = session.path.read_bytes().splitlines(keepends=True)
    lines[seq] = lines[seq][:-4] + b"!" + lines[seq][-3:]
    session.path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(("damaged", "sound"), [([3], [1, 2, 4, 5]), ([1, 2], [3, 4, 5]), ([4, 5], [1, 2, 3])])
def test_gaps_count_as_missing(layout: Layout, open_cursor: OpenCursor, damaged: list[int], sound: list[int]) -> None:
    """In the middle, at the start and at the end."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3, 4, 5)
    journal.end("finished")
    for seq in damaged:
        damage_row(journal.session, seq)
    cursor = open_cursor()
    assert seqs(cursor) == sound
    cursor.acknowledge()
    assert (cursor.acks.done.rows, cursor.acks.done.missing) == (len(sound), len(damaged))
    assert cursor.status == "finished"


@pytest.mark.parametrize("ends_full", [False, True])
def test_unwritten_rows_count_as_missing(
    layout: Layout, open_cursor: OpenCursor, monkeypatch: pytest.MonkeyPatch, ends_full: bool
) -> None:
    journal = open_journal(layout)
    log(journal, 1, 2)
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda _descriptor, _data: 0)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                log(journal, 3)
    if not ends_full:
        log(journal, 6)
    journal.end("finished")
    cursor = open_cursor()
    assert seqs(cursor) == ([1, 2] if ends_full else [1, 2, 6])
    cursor.acknowledge()
    assert cursor.acks.done.missing == journal.lost == 3


def test_gap_counts_once_after_rewind(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout)
    log(journal, 1, 2, 3)
    journal.end("finished")
    damage_row(journal.session, 2)
    cursor = open_cursor()
    for _ in range(3):
        assert seqs(cursor) == [1, 3]
        cursor.rewind()
    assert seqs(cursor) == [1, 3]
    cursor.acknowledge()
    assert cursor.acks.done.missing == 1


# ------------------------------------------------------------------ a file that was changed from outside


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_cut_file_that_grows_again(layout: Layout, open_cursor: OpenCursor, kept: int) -> None:
    """By a writer that does not look: what comes after the cut is read, and what was read before is not."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3, 4, 5)
    cursor = open_cursor()
    assert steps(cursor) == [(1, step) for step in range(1, 6)]
    lines = journal.session.path.read_bytes().splitlines(keepends=True)
    os.truncate(journal.session.path, len(b"".join(lines[: kept + 1])) if kept else 0)
    assert steps(cursor, looks=2) == []
    log(journal, 6)
    assert steps(cursor) == [(1, 6)]
    journal.abandon()


def test_cut_file_longer_than_before(layout: Layout, open_cursor: OpenCursor) -> None:
    """By the next look it is longer than it was; no line begins at the cursor."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3)
    cursor = open_cursor()
    assert steps(cursor) == [(1, 1), (1, 2), (1, 3)]
    os.truncate(journal.session.path, 0)
    log(journal, *range(4, 60))
    assert steps(cursor) == [(1, step) for step in range(4, 60)]
    cursor.acknowledge()
    assert (cursor.acks.done.rows, cursor.acks.done.missing) == (59, 0)
    journal.abandon()


def test_cut_before_it_was_read(layout: Layout, open_cursor: OpenCursor) -> None:
    """What nobody had read is missing, and counted."""
    journal = open_journal(layout)
    log(journal, 1, 2)
    cursor = open_cursor()
    assert steps(cursor) == [(1, 1), (1, 2)]
    log(journal, 3, 4)
    os.truncate(journal.session.path, 0)
    log(journal, *range(5, 60))
    assert steps(cursor) == [(1, step) for step in range(5, 60)]
    cursor.acknowledge()
    assert (cursor.acks.done.rows, cursor.acks.done.missing) == (57, 2)
    journal.abandon()


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut to nothing": lambda path: os.truncate(path, 0),
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "renamed": lambda path: path.rename(path.with_name("rotated")),
    "removed": lambda path: path.unlink(),
    "replaced": lambda path: path.with_name("new").rename(path) if path.with_name("new").write_bytes(b"") == 0 else 0,
}


@pytest.mark.parametrize("change", CHANGES)
def test_writer_goes_on_elsewhere(layout: Layout, open_cursor: OpenCursor, change: str) -> None:
    """In a session that continues: rows are neither lost nor delivered twice."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3, 4, 5)
    cursor, late = open_cursor(), open_cursor()
    found = [row.seq for row in take(cursor).rows]
    CHANGES[change](journal.session.path)
    found += [row.seq for row in take(cursor).rows]
    notice(journal)
    log(journal, 6, 7, 8)
    assert journal.session.number == 2
    journal.end("finished")
    found += seqs(cursor)
    assert found == [1, 2, 3, 4, 5, 6, 7, 8]
    assert cursor.status == "finished"
    cursor.acknowledge()
    assert (cursor.acks.done.rows, cursor.acks.done.missing) == (8, 0)
    assert late.acknowledged() == 0
    read = seqs(late)
    late.acknowledge()
    # What the writer could not rescue is counted.
    assert len(read) + late.acks.done.missing == 8
    assert len(read) == 8 - journal.lost
    assert read[-3:] == [6, 7, 8]


def test_removed_files_rows_do_not_wait(layout: Layout, open_cursor: OpenCursor) -> None:
    """The session that continues holds them again; those that were acknowledged are done."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3, 4, 5)
    cursor = open_cursor()
    take(cursor)
    cursor.acknowledge()
    journal.session.path.unlink()
    notice(journal)
    log(journal, 6, 7, 8)
    assert undelivered(layout, "backend-0", WRITER) == 3
    journal.end("finished")


def test_session_goes_on_twice(layout: Layout, open_cursor: OpenCursor) -> None:
    journal = open_journal(layout)
    cursor = open_cursor()
    found = []
    for step in (1, 4, 7):
        log(journal, step, step + 1, step + 2)
        found += steps(cursor, looks=3)
        journal.session.path.unlink()
        notice(journal)
    log(journal, 10)
    journal.end("finished")
    found += steps(cursor, looks=3)
    assert [step for _, step in found] == list(range(1, 11))
    assert cursor.status == "finished"
    assert cursor.acknowledged() == 0
    cursor.acknowledge()
    assert cursor.acknowledged() == 10


def test_rewind_into_a_continuing_session(layout: Layout, open_cursor: OpenCursor) -> None:
    """Its copies of rows that the backend holds are not delivered again."""
    journal = open_journal(layout)
    log(journal, 1, 2, 3, 4, 5)
    cursor = open_cursor()
    take(cursor)
    journal.session.path.unlink()
    notice(journal)
    log(journal, 6, 7)
    assert steps(cursor) == []
    cursor.acknowledge()
    assert cursor.acks.done.position == Position(2, 0, 5)
    for _ in range(3):
        assert steps(cursor) == [(2, 6), (2, 7)]
        cursor.rewind()
    journal.end("finished")
    assert seqs(cursor) == [6, 7]


def test_new_cursor_in_copied_rows(layout: Layout, open_cursor: OpenCursor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier dies among the copies of rows that the backend holds; the next one delivers none of them."""
    monkeypatch.setattr("rolecall.timings.READ_BYTES", 200)
    journal = open_journal(layout)
    log(journal, *range(1, 21))
    cursor = open_cursor()
    while [row.seq for row in take(cursor).rows] != [] or cursor.pending < 20:
        pass
    journal.session.path.unlink()
    notice(journal)
    log(journal, 21)
    journal.end("finished")
    positions = []
    while status_of(cursor) is None:
        take(cursor)
        cursor.acknowledge()
        positions.append(cursor.acks.done.position)
    copied = [position for position in positions if position.session == 2 and position.seq == 20]
    assert len(copied) > 5, "there are pieces of copies alone"
    for position in copied:
        assert seqs(open_cursor(position, 20)) == [21]


def test_successor_that_is_not_there(layout: Layout, open_cursor: OpenCursor) -> None:
    """The file says that it goes on, and the file where it does was removed."""
    journal = open_journal(layout, a_dead_process())
    log(journal, 1)
    journal.abandon()
    with journal.session.path.open("ab") as file:
        file.write(encode({"end": "continued", "seq": 5, "time": 1.0}, journal.session.seed))
    cursor = open_cursor()
    assert steps(cursor) == [(1, 1)]
    batch = take(cursor)
    assert "it goes on in a file that is not here" in str(batch.damages)
    assert cursor.status == "killed"
    cursor.acknowledge()
    assert cursor.acks.done.missing > 0


# ------------------------------------------------------------------ what is under way


class Confirms:
    """A run that confirms what a test says."""

    def __init__(self, session: int, seq: int) -> None:
        self._confirmed = (session, seq)

    def confirmed(self, writer: str, session: int) -> int:
        latest, seq = self._confirmed
        return seq if session == latest else (1 << 62) * (session < latest)

    def tend(self) -> None:
        """Nothing is to do."""


@pytest.fixture
def cursor(layout: Layout, open_cursor: OpenCursor) -> Cursor:
    """Of a writer with three sessions, of 1, 2 and 3 rows."""
    for count in (1, 2, 3):
        journal = open_journal(layout)
        for step in range(1, count + 1):
            journal.append({"loss": step / 7, "x" * 100 * count: 0.5}, step)
        journal.end("finished")
    return open_cursor()


def sizes(layout: Layout) -> list[int]:
    return [path.stat().st_size for path in sorted(layout.journal(WRITER).glob("*.jsonl"))]


def test_what_was_read_is_pending(layout: Layout, cursor: Cursor) -> None:
    seqs(cursor)
    assert (cursor.pending, cursor.size) == (6, sum(sizes(layout)))


def test_confirmed_rows_are_not_pending(layout: Layout, cursor: Cursor) -> None:
    seqs(cursor)
    cursor.acknowledge(Confirms(2, 1))
    assert (cursor.pending, cursor.size) == (5, sum(sizes(layout)[1:]))
    cursor.acknowledge(Confirms(2, 2))
    assert (cursor.pending, cursor.size) == (3, sizes(layout)[2])
    cursor.acknowledge(Confirms(3, 3))
    assert (cursor.pending, cursor.size) == (0, 0)
    assert cursor.acks.done.position == Position(3, sizes(layout)[2], 3)


def test_rows_read_again_count_once(layout: Layout, cursor: Cursor) -> None:
    seqs(cursor)
    cursor.acknowledge(Confirms(1, 1))
    cursor.rewind()
    assert (cursor.pending, cursor.size) == (0, 0)
    seqs(cursor)
    assert (cursor.pending, cursor.size) == (5, sum(sizes(layout)[1:]))


def test_rows_of_earlier_sessions_wait(layout: Layout, cursor: Cursor) -> None:
    """They are subtracted from the number of the last acknowledged row."""
    held = [cursor.acknowledged()]
    while status_of(cursor) is None:
        take(cursor)
        cursor.acknowledge()
        held.append(cursor.acknowledged())
    assert held[:2] == [-3, -2]
    assert 0 in held
    assert held[-1] == 3
    assert undelivered(layout, "backend-0", WRITER) == 0
