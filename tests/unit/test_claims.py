"""One live owner for a name, without a lock and with nothing to release after a SIGKILL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rolecall.errors import WriterConflict
from rolecall.store import lease as claims
from rolecall.store.codec import encode
from rolecall.store.lease import STALE, Owner, Session, claim, end, newest, sessions, this_process

Wait = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "writer"


def plant(folder: Path, number: int, owner: Any, *more: dict[str, Any]) -> Session:
    """A session as some other process may have left it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.jsonl"
    path.write_bytes(b"".join(encode(frame) for frame in ({"rolecall": 1, "owner": owner}, *more)))
    return Session(path, number)


def ended_process() -> Owner:
    """A process that was, and is no more."""
    code = "from rolecall.store.lease import this_process as me; print(me().pid, me().start)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pid, start = done.stdout.split()
    return replace(this_process(), pid=int(pid), start=start)


def test_a_claim_is_a_session_that_names_its_owner(folder: Path) -> None:
    session = claim(folder, {"writer": "explorer", "config": {"lr": 0.1}}, "it")
    assert session.number == 1
    assert session.header() == {
        "rolecall": 1,
        "owner": asdict(this_process()),
        "writer": "explorer",
        "config": {"lr": 0.1},
    }
    assert session.owner() == this_process()
    assert session.is_live()
    assert session.status() is None
    assert newest(folder) == session
    assert os.listdir(folder) == ["1.jsonl"]


SPACE = {"space": this_process().space}


def test_a_live_claim_is_not_given_away_and_says_whose_it_is(folder: Path) -> None:
    session = claim(folder, {}, "writer 'explorer'")
    with pytest.raises(WriterConflict) as caught:
        claim(folder, {}, "writer 'explorer'")
    assert str(caught.value) == (
        f"writer 'explorer' is held by process {os.getpid()} on {this_process().host} ({session.path}). "
        f"Stop that process, or use another monitor_dir (or another role or rank) for this one."
    )
    assert os.listdir(folder) == ["1.jsonl"]


def test_an_ended_claim_is_free_and_keeps_its_number(folder: Path) -> None:
    for number in range(1, 12):
        session = claim(folder, {}, "it")
        assert session.number == number
        end(session, "finished")
        assert session.status() == "finished"
        assert not session.is_live()
    assert [session.number for session in sessions(folder)] == list(range(1, 12)), "10 comes behind 9"


def test_the_claim_of_a_dead_process_is_free(folder: Path) -> None:
    dead = plant(folder, 1, asdict(ended_process()), {"n": 1})
    assert not dead.is_live()
    assert claim(folder, {}, "it").number == 2


def test_a_process_that_took_a_dead_ones_number_is_told_from_it(folder: Path) -> None:
    me = this_process()
    reused = plant(folder, 1, asdict(replace(me, start=str(int(me.start) - 1))))
    assert not reused.is_live()
    assert plant(folder, 1, asdict(me)).is_live()


def test_a_zombie_holds_nothing(folder: Path, wait_until: Wait) -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    start = claims._start_of(child.pid)
    session = plant(folder, 1, asdict(replace(this_process(), pid=child.pid, start=start or "")))
    assert session.is_live()
    child.kill()
    # Until it is waited for, its number and its start time stand.
    stat = Path(f"/proc/{child.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(") ")[2].startswith("Z"))
    assert not session.is_live()
    assert claim(folder, {}, "it").number == 2
    assert stat.exists()
    child.communicate()


def test_a_process_whose_name_is_no_text_is_seen(tmp_path: Path) -> None:
    # A name in UTF-8 is cut after 15 bytes, wherever that is.
    code = (
        "import pathlib; pathlib.Path('/proc/self/comm').write_bytes(b') \\xc3 Z 1');"
        "from rolecall.store.lease import this_process as me; assert me().start; assert me().is_running()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_container_that_shares_the_hosts_name_is_another_host(folder: Path) -> None:
    """Its process numbers mean nothing here: a live one of it must not look dead."""
    script = (
        "import pathlib, sys, time; from rolecall.store.lease import claim; claim(pathlib.Path(sys.argv[1]), {}, 'it')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None
    if holder.stdout.readline() != b"held\n":
        pytest.skip(f"no namespace can be made here: {holder.communicate()[1]!r}")
    try:
        with pytest.raises(WriterConflict, match="after 60 s of silence"):
            claim(folder, {}, "it")
    finally:
        holder.communicate()


def test_on_another_host_a_claim_lives_while_it_is_touched(folder: Path) -> None:
    session = plant(folder, 1, asdict(replace(this_process(), host="elsewhere", start="1")))
    assert session.is_live()
    with pytest.raises(WriterConflict, match="on elsewhere"):
        claim(folder, {}, "it")
    silent = time.time() - STALE - 1
    os.utime(session.path, (silent, silent))
    assert session.silence() > STALE
    assert claim(folder, {}, "it").number == 2


def test_a_clock_that_goes_after_does_not_make_a_file_of_the_future_strange(folder: Path) -> None:
    session = plant(folder, 1, asdict(replace(this_process(), host="elsewhere", pid=1, start="1")))
    os.utime(session.path, (time.time() + 1000,) * 2)
    assert session.silence() == 0
    session.path.unlink()
    assert session.silence() == float("inf")


@pytest.mark.parametrize(
    "owner",
    [
        None,
        [],
        "me",
        {},
        {"host": this_process().host, "pid": os.getpid()},
        {"host": this_process().host, "pid": 2**22 + 1, "start": None, **SPACE},
        {
            "host": this_process().host,
            "pid": "self",
            "start": this_process().start,
            "space": this_process().space,
        },
        {
            "host": this_process().host,
            "pid": f"../proc/{os.getpid()}",
            "start": this_process().start,
            "space": this_process().space,
        },
        {"host": 5, "pid": os.getpid(), "start": this_process().start, **SPACE},
        {"host": this_process().host, "pid": -1, "start": "", **SPACE},
        {"host": this_process().host, "pid": 10**30, "start": "", **SPACE},
    ],
    ids=["none", "list", "text", "empty", "no start", "null", "self", "path", "host", "negative", "huge"],
)
def test_an_owner_that_is_none_holds_nothing(folder: Path, owner: Any) -> None:
    assert not plant(folder, 1, owner).is_live()
    assert claim(folder, {}, "it").number == 2


@pytest.mark.parametrize("kind", ["pipe", "loop", "directory", "empty", "damaged"])
def test_something_else_under_a_sessions_name_takes_its_number_and_holds_nothing(
    folder: Path, kind: str
) -> None:
    folder.mkdir()
    path = folder / "1.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"" if kind == "empty" else b"0" + encode({"owner": asdict(this_process())}))
    assert claim(folder, {}, "it").number == 2


def test_names_that_are_no_session_are_passed_over(folder: Path) -> None:
    folder.mkdir()
    for name in (
        "0.jsonl",
        "01.jsonl",
        "-1.jsonl",
        "\u0661.jsonl",
        "x.jsonl",
        ".jsonl",
        "2.jsonl.bak",
        "9" * 30 + ".jsonl",
    ):
        (folder / name).touch()
    (folder / "1.tables").mkdir()
    assert sessions(folder) == []
    assert newest(folder) is None
    assert claim(folder, {}, "it").number == 1


def test_a_claim_that_was_never_held_has_no_sessions(folder: Path) -> None:
    assert sessions(folder) == []
    assert newest(folder) is None


def test_of_many_threads_one_gets_it(folder: Path) -> None:
    barrier = threading.Barrier(16)
    won: list[Session] = []
    lost: list[WriterConflict] = []

    def compete() -> None:
        barrier.wait()
        try:
            won.append(claim(folder, {}, "it"))
        except WriterConflict as conflict:
            lost.append(conflict)

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 15
    assert os.listdir(folder) == ["1.jsonl"]


def test_who_comes_second_between_look_and_claim_sees_the_conflict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def quicker(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        claim(folder, {"who": "the quicker one"}, "it")
        link(source, target)

    monkeypatch.setattr(os, "link", quicker)
    with pytest.raises(WriterConflict):
        claim(folder, {}, "it")
    assert [session.header()["who"] for session in sessions(folder)] == ["the quicker one"]
    assert os.listdir(folder) == ["1.jsonl"]


def test_a_link_whose_answer_is_lost_is_still_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert claim(folder, {}, "it").number == 1
    assert os.listdir(folder) == ["1.jsonl"]


def test_an_end_behind_a_torn_line_counts(folder: Path) -> None:
    session = claim(folder, {}, "it")
    with session.path.open("ab") as file:
        file.write(encode({"n": 1})[:-5])
    end(session, "failed")
    assert session.status() == "failed"


def test_an_end_is_not_written_through_a_symlink(folder: Path, tmp_path: Path) -> None:
    session = claim(folder, {}, "it")
    precious = tmp_path / "precious"
    session.path.rename(precious)
    session.path.symlink_to(precious)
    before = precious.read_bytes()
    with pytest.raises(OSError, match="symbolic"):
        end(session, "finished")
    assert precious.read_bytes() == before
