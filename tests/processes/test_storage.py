"""Journals, claims, acknowledgements and bindings among real processes, that are really killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rolecall import MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.spec import HandOver, JobSpec
from rolecall.delivery.cursor import Cursor
from rolecall.rows import Row, TableData
from rolecall.store.acks import Acknowledgements, Position, acknowledged, undelivered
from rolecall.store.axes import AxisBook, axis_key
from rolecall.store.codec import Damage
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, end, newest, sessions
from rolecall.store.reader import read_to_end
from rolecall.store.spool import Mirror, open_spool

pytestmark = pytest.mark.processes

Wait = Callable[..., None]
Start = Callable[..., subprocess.Popen[str]]

PREAMBLE = """
import os, sys, time
from contextlib import suppress
from pathlib import Path
from rolecall import MonitorConfig
from rolecall.store.axes import AxisBook, axis_key
from rolecall.rows import TableData
from rolecall.store.lease import Session, claim
from rolecall.store.acks import Acknowledgements, Position
from rolecall.errors import WriterConflict
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.spool import Mirror
folder = Path(sys.argv[1])
def say(*words):
    print(*words, flush=True)
def wait_for(path):
    while not path.exists():
        time.sleep(0.0005)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process with this code; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str, *args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that a process says."""
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(count)]
    assert all(said), "it ended too early"
    return said


def kill(process: subprocess.Popen[str]) -> list[str]:
    """SIGKILL, and what the process had said by then."""
    process.kill()
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait()
    # The last line may be torn: it was not said.
    return said.split("\n")[:-1]


def values(session: Session) -> list[object]:
    return [entry.value for entry in read_to_end("explorer", session)]


def rows(session: Session) -> list[Row]:
    return [value for value in values(session) if isinstance(value, Row)]


# ------------------------------------------------------------------ journals

LOG_FOR_EVER = """
journal = JournalWriter(claim(folder, {"writer": "explorer"}, "it"))
table = TableData(name="samples", columns=("text",), rows=tuple(("x" * 100,) for _ in range(500)))
step = 0
while True:
    step += 1
    if step % 50:
        journal.append({"loss": step / 7, "tokens": step}, step)
    else:
        journal.append({}, step, values=[table])
    say(journal.seq)
"""


@pytest.mark.parametrize("said", [1, 2, 49, 333, 1001])
def test_killed_writer_loses_no_row(tmp_path: Path, start: Start, said: int) -> None:
    writer = start(LOG_FOR_EVER, tmp_path)
    returned = [*lines(writer, said), *kill(writer)]
    (session,) = sessions(tmp_path)
    found = rows(session)
    assert not [value for value in values(session) if isinstance(value, Damage)]
    assert [row.seq for row in found] == [row.step for row in found] == list(range(1, len(found) + 1))
    assert set(map(int, returned)) <= {row.seq for row in found}
    assert len(found) <= len(returned) + 1
    assert all((row.table is not None) == (row.step % 50 == 0) for row in found)
    assert all(row.metrics == {"loss": row.step / 7, "tokens": row.step} for row in found if not row.table)


def test_writer_killed_again_and_again(tmp_path: Path, start: Start) -> None:
    layout = Layout(tmp_path)
    folder = layout.journal("explorer")
    said = 0
    for count in (20, 1, 60):
        writer = start(LOG_FOR_EVER, folder)
        said += len([*lines(writer, count), *kill(writer)])
    assert [session.number for session in sessions(folder)] == [1, 2, 3]
    cursor = Cursor(layout, "explorer", Acknowledgements(layout, "mlflow", "explorer"))
    found = [row for _ in range(100) for row in cursor.read().rows]
    cursor.acks.release(None)
    assert cursor.status == "killed"
    names = [(row.session, row.seq) for row in found]
    assert len(names) >= said
    assert names == sorted(set(names))
    assert {session for session, _ in names} == {1, 2, 3}


def test_reading_beside_the_writer(tmp_path: Path, start: Start, wait_until: Wait) -> None:
    code = """
journal = JournalWriter(claim(folder, {"writer": "explorer"}, "it"))
say("opened")
for step in range(1, 5001):
    journal.append({"loss": step / 7}, step)
journal.end("finished")
"""
    layout = Layout(tmp_path)
    writer = start(code, layout.journal("explorer"))
    lines(writer, 1)
    cursor = Cursor(layout, "explorer", Acknowledgements(layout, "mlflow", "explorer"))
    found: list[Row] = []

    def ended() -> bool:
        batch = cursor.read()
        assert not batch.damages
        found.extend(batch.rows)
        return cursor.status is not None

    wait_until(ended)
    cursor.acks.release(None)
    assert cursor.status == "finished"
    assert [(row.seq, row.metrics["loss"]) for row in found] == [(step, step / 7) for step in range(1, 5001)]


FORK = """
import threading
journal = JournalWriter(claim(folder, {"writer": "explorer"}, "it"))
stop = threading.Event()
def log(thread):
    step = 0
    while not stop.is_set():
        step += 1
        journal.append({f"thread/{thread}": step}, step)
threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        # Whatever thread held whatever lock when this process was made.
        journal.abandon()
        with suppress(OSError):
            os.write(journal._descriptor, b"mine")
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stop.set()
for thread in threads:
    thread.join()
journal.end("finished")
say(journal.seq)
"""


def test_forked_child_abandons_the_journal(tmp_path: Path, start: Start) -> None:
    parent = start(FORK, tmp_path)
    (count,) = lines(parent, 1)
    (session,) = sessions(tmp_path)
    found = rows(session)
    assert [row.seq for row in found] == list(range(1, int(count) + 1))
    assert len(values(session)) == int(count) + 1
    assert session.status() == "finished"
    for thread in range(3):
        steps = [row.step for row in found if f"thread/{thread}" in row.metrics]
        assert steps == list(range(1, len(steps) + 1))
        assert steps


CUT = """
journal = JournalWriter(claim(folder, {"writer": "explorer"}, "it"))
for step in range(1, 101):
    journal.append({"loss": step / 7}, step)
os.truncate(journal.session.path, 0)
journal.append({"loss": 0.5}, 101)
say("alive")
"""


def test_cut_file_ends_no_writer(tmp_path: Path, start: Start) -> None:
    writer = start(CUT, tmp_path)
    assert writer.wait(30) == 0


# ------------------------------------------------------------------ claims

CLAIM_EACH_ROUND = """
say("ready")
for line in sys.stdin:
    place = folder / line.strip()
    # All begin with this file, however late each was woken.
    wait_for(folder / (line.strip() + ".go"))
    try:
        say("won", claim(place, {"writer": "explorer"}, "it").number)
    except WriterConflict:
        say("lost")
"""


def test_single_process_gets_a_name(tmp_path: Path, start: Start) -> None:
    rivals = [start(CLAIM_EACH_ROUND, tmp_path) for _ in range(8)]
    for rival in rivals:
        lines(rival, 1)
    for number in range(25):
        name = f"writer-{number}"
        if number % 2:
            # Half of the names were held before, by a process that is gone.
            end(claim(tmp_path / name, {}, "it"), "finished")
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write(name + "\n")
            rival.stdin.flush()
        (tmp_path / f"{name}.go").touch()
        said = sorted(lines(rival, 1)[0] for rival in rivals)
        assert said == ["lost"] * 7 + [f"won {number % 2 + 1}"]
        assert sorted(os.listdir(tmp_path / name)) == [f"{at + 1}.jsonl" for at in range(number % 2 + 1)]


def test_zombie_holds_nothing(tmp_path: Path, start: Start, wait_until: Wait) -> None:
    code = 'claim(folder, {}, "it"); say("claimed"); time.sleep(600)'
    for number in (1, 2, 3):
        holder = start(code, tmp_path)
        lines(holder, 1)
        session = newest(tmp_path)
        assert session is not None
        assert session.is_live()
        assert session.owner() is not None
        holder.kill()
        # It is a zombie from here on.
        wait_until(lambda held=session: not held.is_live())
        assert Path(f"/proc/{holder.pid}").exists()
        assert session.number == number
    assert claim(tmp_path, {}, "it").number == 4


# ------------------------------------------------------------------ a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 512 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield path
    # Lazily: a test that failed may hold a file open.
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def test_logging_resumes_after_full_disk(small_disk: Path) -> None:
    journal = JournalWriter(claim(small_disk / "explorer", {"writer": "explorer"}, "it"))
    returned: list[int] = []
    failed: list[int] = []

    def log(*steps: int) -> None:
        for step in steps:
            try:
                journal.append({"loss": step / 7}, step)
            except OSError:
                failed.append(step)
            else:
                returned.append(step)

    log(1, 2, 3)
    for begin in (1000, 2000, 3000):
        filler = fill(small_disk)
        log(*range(begin, begin + 100))
        with pytest.raises(OSError, match="space"):
            journal.append({}, 1, values=[TableData(name="t", columns=("a",), rows=(("x" * 40_000,),))])
        filler.unlink()
        log(begin + 950)
    journal.end("finished")
    assert failed, "the disk was full"
    found = rows(journal.session)
    assert [row.step for row in found] == returned
    assert len(found) == journal.seq - journal.lost
    assert {1, 2, 3, 1950, 2950, 3950} <= set(returned)
    assert journal.session.status() == "finished"
    damages = [value for value in values(journal.session) if isinstance(value, Damage)]
    # A line is torn where the disk ended; closing it off is reported once for each time that the disk was full.
    assert len(damages) <= 3


def test_claim_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "explorer").mkdir()
    filler = fill(small_disk)
    with pytest.raises(OSError, match="space"):
        claim(small_disk / "explorer", {"config": "x" * 5000}, "it")
    assert os.listdir(small_disk / "explorer") == []
    filler.unlink()
    assert claim(small_disk / "explorer", {"config": "x" * 5000}, "it").number == 1


def test_bindings_and_acknowledgements_after_full_disk(small_disk: Path) -> None:
    layout = Layout(small_disk)
    book = AxisBook(layout, "explorer")
    acks = Acknowledgements(layout, "mlflow", "explorer")
    book.publish(dict.fromkeys(["explorer/first"], axis_key("explorer/")))
    filler = fill(small_disk)
    many = [f"explorer/key/{at}" for at in range(500)]
    with pytest.raises(OSError, match="space"):
        book.publish(dict.fromkeys(many, axis_key("explorer/")))
    for at in range(1, 500):
        try:
            acks.acknowledge(Position(1, at, at), 1)
        except OSError:
            break
    else:
        pytest.fail("the disk was not full")
    filler.unlink()
    book.publish(dict.fromkeys(many, axis_key("explorer/")))
    acks.acknowledge(Position(1, 1000, 1000), 1)
    assert list(AxisBook(layout, "trainer").bindings()) == ["explorer/first", *many]
    assert acknowledged(layout, "mlflow", "explorer") == acks.done
    acks.release("finished")


# ------------------------------------------------------------------ mirrors, acknowledgements, bindings

MIRROR_FOR_EVER = """
mirror = Mirror(MonitorConfig.from_env().spec(), "explorer")
while True:
    mirror.copy()
    say("copied")
"""


def test_killed_mirror_is_taken_up(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MonitorConfig(
        project="p", name="n", monitor_dir=tmp_path / "monitor", spool_dir=tmp_path / "spool"
    ).handed(HandOver(run_id="r", nonce="n0", plan=Plan()))
    for name, value in config.to_env().items():
        monkeypatch.setenv(name, value)
    spec: JobSpec = config.spec()
    header = {"writer": "explorer", "spool": "n0", "config": {}}
    session = claim(Layout(spec.monitor_dir).journal("explorer"), header, "it")
    spool = open_spool(spec, "explorer", session)
    journal = JournalWriter(spool)
    table = TableData(name="samples", columns=("text",), rows=tuple(("x" * 5000,) for _ in range(1000)))
    for step in range(1, 5):
        mirror = start(MIRROR_FOR_EVER, session.path)
        lines(mirror, 1)
        for at in range(1000):
            journal.append({"loss": 0.5}, step * 1000 + at)
        journal.append({}, step, values=[table])
        kill(mirror)
    journal.end("finished")
    written = spool.path.read_bytes()
    Mirror(spec, "explorer").copy()  # which removes what is on the node
    assert session.path.read_bytes() == written
    found = rows(session)
    assert len(found) == 4004
    assert [row.table for row in found if row.table] == [table] * 4
    drafts = [name for name in os.listdir(session.path.with_suffix(".files")) if not name.endswith(".json")]
    assert len(drafts) <= 4, "a draft at most for each that was killed"


ACKNOWLEDGE_FOR_EVER = """
acks = Acknowledgements(Layout(folder), "mlflow", "explorer")
say(acks.done.rows)
while True:
    position = acks.done.position
    acks.acknowledge(Position(1, position.offset + 10, position.seq + 1), 1)
    say(acks.done.rows)
"""


def test_killed_courier_loses_no_acknowledgement(tmp_path: Path, start: Start) -> None:
    layout = Layout(tmp_path)
    before = 0
    for count in (1, 5, 200):
        courier = start(ACKNOWLEDGE_FOR_EVER, tmp_path)
        first, *said = [*lines(courier, count), *kill(courier)]
        done = acknowledged(layout, "mlflow", "explorer")
        assert int(first) == before, "the next goes on where the last one was"
        assert int([first, *said][-1]) <= done.rows <= int([first, *said][-1]) + 1
        assert done.position == Position(1, done.rows * 10, done.rows)
        before = done.rows
    assert undelivered(layout, "mlflow", "explorer") == 0
    Acknowledgements(layout, "mlflow", "explorer").release("finished")


EXCHANGE = """
name, others = sys.argv[2], sys.argv[3].split()
book = AxisBook(Layout(folder), name)
say("ready")
wait_for(folder / "go")
for at in range(100):
    book.publish(dict.fromkeys([f"{name}/key/{at}", f"{name}/step"], axis_key(f"{name}/")))
    if at % 10 == 0:
        book.refresh()
while len(book.bindings()) < 300:
    book.refresh()
for other in others:
    book.publish(dict.fromkeys([f"{other}/key/{at}" for at in range(100)], axis_key(f"{other}/")))
expected = {f"{other}/key/{at}": f"{other}/step" for other in others for at in range(100)}
say(book.bindings() == expected)
"""


def test_three_processes_exchange_bindings(tmp_path: Path, start: Start) -> None:
    names = ["explorer/0", "explorer/1", "trainer"]
    writers = [start(EXCHANGE, tmp_path, name, " ".join(names)) for name in names]
    for writer in writers:
        lines(writer, 1)
    (tmp_path / "go").touch()
    assert [lines(writer, 1) for writer in writers] == [["True"]] * 3
    data = b"".join(path.read_bytes() for path in Layout(tmp_path).axes.iterdir())
    assert data.count(b"/key/") == 300, "known keys are not written again"
