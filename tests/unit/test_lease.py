"""One live owner for a name, without a lock and with nothing to release after a SIGKILL."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rolecall.config.plain import scrub
from rolecall.errors import WriterConflict
from rolecall.states import State
from rolecall.store import lease
from rolecall.store.codec import append_line, encode, open_own
from rolecall.store.lease import Owner, Session, claim, end, held_now, newest, sessions, succeed, this_process

Wait = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "writer"


def plant(folder: Path, number: int, owner: Any, *more: dict[str, Any]) -> Session:
    """A session as some other process may have left it."""
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder / f"{number}.jsonl", number)
    lines = ({"rolecall": 2, "owner": owner}, *more)
    session.path.write_bytes(b"".join(encode(line, session.seed) for line in lines))
    return session


def say(session: Session, value: dict[str, Any]) -> None:
    """Append a line, as its owner may."""
    descriptor = open_own(session.path)
    append_line(descriptor, value, session.seed)
    os.close(descriptor)


def ended_process() -> Owner:
    """A process that was, and is no more."""
    code = "from rolecall.store.lease import this_process as me; print(me().pid, me().start)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pid, start = done.stdout.split()
    return replace(this_process(), pid=int(pid), start=start)


def test_claim_names_its_owner(folder: Path) -> None:
    session = claim(folder, {"writer": "explorer", "config": {"lr": 0.1}}, "it")
    assert session.number == 1
    assert session.header() == {
        "rolecall": 2,
        "owner": asdict(this_process()),
        "session": 1,
        "writer": "explorer",
        "config": {"lr": 0.1},
    }
    assert session.owner() == this_process()
    assert session.is_live()
    assert session.status() is None
    assert newest(folder) == session
    assert sorted(os.listdir(folder)) == ["1.header.json", "1.jsonl"]


SPACE = {"space": this_process().space}


def test_live_claim_is_kept(folder: Path) -> None:
    session = claim(folder, {}, "writer 'explorer'")
    with pytest.raises(WriterConflict) as caught:
        claim(folder, {}, "writer 'explorer'")
    assert str(caught.value) == (
        f"writer 'explorer' is held by process {os.getpid()} on {this_process().host} ({session.path}). "
        f"Stop that process, or use another monitor_dir (or another role or rank) for this one."
    )
    assert os.listdir(folder) == ["1.jsonl"]


def test_ended_claim_is_free(folder: Path) -> None:
    for number in range(1, 12):
        session = claim(folder, {}, "it")
        assert session.number == number
        end(session, "finished")
        assert session.status() == "finished"
        assert not session.is_live()
    assert [session.number for session in sessions(folder)] == list(range(1, 12)), "10 comes behind 9"


def test_dead_process_holds_nothing(folder: Path) -> None:
    dead = plant(folder, 1, asdict(ended_process()), {"seq": 1})
    assert not dead.is_live()
    assert claim(folder, {}, "it").number == 2


def test_reused_process_number_is_noticed(folder: Path) -> None:
    me = this_process()
    reused = plant(folder, 1, asdict(replace(me, start=str(int(me.start) - 1))))
    assert not reused.is_live()
    assert plant(folder, 1, asdict(me)).is_live()


def test_zombie_holds_nothing(folder: Path, wait_until: Wait) -> None:
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    start = lease._start_of(child.pid)
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


def test_process_name_may_be_bytes(tmp_path: Path) -> None:
    # A name in UTF-8 is cut after 15 bytes, wherever that is.
    code = (
        "import pathlib; pathlib.Path('/proc/self/comm').write_bytes(b') \\xc3 Z 1');"
        "from rolecall.store.lease import this_process as me; assert me().start; assert me().is_running()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_container_is_another_host(folder: Path) -> None:
    """Even if it has the host's name: its process numbers mean nothing here, and a live one must not look dead."""
    script = (
        "import pathlib, sys; from rolecall.store.lease import claim; claim(pathlib.Path(sys.argv[1]), {}, 'it')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None
    if holder.stdout.readline() != b"held\n":
        pytest.skip(f"no namespace can be made here: {holder.communicate()[1]!r}")
    try:
        (session,) = sessions(folder)
        assert session.is_live()
        with touched(session), pytest.raises(WriterConflict, match="it is held by process"):
            claim(folder, {}, "it")
    finally:
        holder.communicate()


@contextmanager
def touched(session: Session) -> Iterator[None]:
    """As a courier does that is alive; its clock is an hour behind."""
    over = threading.Event()

    def touch() -> None:
        at = time.time() - 3600
        while not over.wait(0.05):
            at += 0.05
            os.utime(session.path, (at, at))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_remote_claim_lives_while_touched(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = plant(folder, 1, asdict(replace(this_process(), host="elsewhere", space="another boot", start="1")))
    assert session.is_live()
    with touched(session), pytest.raises(WriterConflict, match="on elsewhere"):
        claim(folder, {}, "it")
    assert "it was held by process" in caplog.text
    assert "waiting for up to 60 s to see whether it is alive" in caplog.text


@pytest.mark.parametrize("ahead", [-1000, 0, 1000])
def test_remote_claim_is_free_after_silence(folder: Path, monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """However far the clock of its machine is ahead of ours."""
    session = plant(folder, 1, asdict(replace(this_process(), host="elsewhere", space="another boot", start="1")))
    os.utime(session.path, (time.time() + ahead,) * 2)
    monkeypatch.setattr(lease, "STALE", 0.5)
    began = time.monotonic()
    assert claim(folder, {}, "it").number == 2
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("ahead", [-1000, 0, 1000])
def test_one_look_does_not_kill(folder: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Wait, ahead: float) -> None:
    """Nor does it show that the owner lives: a later one does, if the file has changed."""
    session = plant(folder, 1, asdict(replace(this_process(), host="elsewhere", space="another boot", start="1")))
    os.utime(session.path, (time.time() + ahead,) * 2)
    assert session.is_live()
    assert not session.is_shown_live()
    os.utime(session.path, (time.time() + ahead + 5,) * 2)
    assert session.is_shown_live()
    monkeypatch.setattr(lease, "STALE", 0.3)
    wait_until(lambda: not session.is_live())
    assert not session.is_shown_live()


def test_many_silent_owners_take_one_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE", 0.5)
    owner = asdict(replace(this_process(), host="elsewhere", space="another boot", start="1"))
    silent = [folder / str(number) for number in range(8)]
    for path in silent:
        plant(path, 1, owner)
    claim(folder / "mine", {}, "it")
    leases = {path: path.name for path in (*silent, folder / "mine", folder / "nobody")}
    began = time.monotonic()
    assert held_now(leases) == {folder / "mine": "mine"}
    assert 0.5 <= time.monotonic() - began < 8 * 0.5


def test_remote_claim_that_ended_is_free_at_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    owner = asdict(replace(this_process(), host="elsewhere", space="another boot", start="1"))
    plant(folder, 1, owner, {"end": "finished"})
    assert claim(folder, {}, "it").number == 2
    assert caplog.text == ""


def test_renamed_host_is_the_same_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = plant(folder, 1, asdict(ended_process()))
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    assert not session.is_live()
    assert claim(folder, {}, "it").number == 2


def test_future_file_is_not_silent(folder: Path) -> None:
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
        {"host": this_process().host, "pid": "self", "start": this_process().start, "space": this_process().space},
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
def test_crafted_owner_holds_nothing(folder: Path, owner: Any) -> None:
    assert not plant(folder, 1, owner).is_live()
    assert claim(folder, {}, "it").number == 2


@pytest.mark.parametrize("kind", ["pipe", "loop", "directory", "empty", "damaged"])
def test_other_than_session_holds_nothing(folder: Path, kind: str) -> None:
    """But it takes the number."""
    folder.mkdir()
    path = folder / "1.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"" if kind == "empty" else b"0" + encode({"rolecall": 2, "owner": asdict(this_process())}))
    assert claim(folder, {}, "it").number == 2


def test_other_names_are_skipped(folder: Path) -> None:
    folder.mkdir()
    for name in (
        "0.jsonl",
        "01.jsonl",
        "-1.jsonl",
        "\u0661.jsonl",
        "x.jsonl",
        ".jsonl",
        "2.jsonl.bak",
        "2.header.json",
        "9" * 30 + ".jsonl",
    ):
        (folder / name).touch()
    (folder / "1.files").mkdir()
    assert sessions(folder) == []
    assert newest(folder) is None
    assert claim(folder, {}, "it").number == 1


def test_missing_folder_has_no_sessions(folder: Path) -> None:
    assert sessions(folder) == []
    assert newest(folder) is None


def test_one_of_many_threads_wins(folder: Path) -> None:
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


def test_quicker_process_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_repeated_link_is_still_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert claim(folder, {}, "it").number == 1
    assert os.listdir(folder) == ["1.jsonl"]


def test_end_after_torn_line_counts(folder: Path) -> None:
    session = claim(folder, {}, "it")
    with session.path.open("ab") as file:
        file.write(encode({"seq": 1})[:-5])
    end(session, "failed")
    assert session.status() == "failed"


def test_end_follows_no_symlink(folder: Path, tmp_path: Path) -> None:
    session = claim(folder, {}, "it")
    precious = tmp_path / "precious"
    session.path.rename(precious)
    session.path.symlink_to(precious)
    before = precious.read_bytes()
    with pytest.raises(OSError, match="symbolic"):
        end(session, "finished")
    assert precious.read_bytes() == before


# ------------------------------------------------------------------ the header


@pytest.mark.parametrize("damage", [b"", b"\0" * 512, b"\n" * 512, b"x\n" * 256, os.urandom(512)], ids=range(5))
def test_damaged_header_is_read_from_copy(folder: Path, damage: bytes) -> None:
    """Owner and config are beside the journal, too."""
    session = claim(folder, {"writer": "explorer", "config": {"lr": 0.1}, "steps": {"": 7}}, "it")
    header = session.header()
    say(session, {"seq": 1})
    data = session.path.read_bytes()
    session.path.write_bytes(damage + data[len(damage) :] if damage else b"")
    assert session.header() == header
    assert session.owner() == this_process()
    assert session.is_live()
    with pytest.raises(WriterConflict, match=f"process {os.getpid()}"):
        claim(folder, {}, "it")
    end(session, "finished")
    assert not session.is_live()


@pytest.mark.parametrize("kind", ["missing", "pipe", "directory", "damaged", "list", "nested", "encoding"])
def test_damaged_copy_is_no_header(folder: Path, kind: str) -> None:
    session = claim(folder, {"config": {}}, "it")
    session.path.write_bytes(b"damaged\n")
    copy = folder / "1.header.json"
    content = {
        "damaged": copy.read_bytes().replace(b"owner", b"0wner"),
        "list": b"[]",
        "nested": b"[" * 200_000,
        "encoding": b"\xff\xfe\xfd",
    }
    copy.unlink()
    if kind == "pipe":
        os.mkfifo(copy)
    elif kind == "directory":
        copy.mkdir()
    elif kind != "missing":
        copy.write_bytes(content[kind])
    assert session.header() == {}
    assert session.owner() is None
    assert not session.is_live()


def test_lease_without_config_has_no_copy(folder: Path) -> None:
    """It holds no rows, and is as many files as needed."""
    claim(folder, {}, "it")
    assert os.listdir(folder) == ["1.jsonl"]


@pytest.mark.parametrize(
    "config",
    [{"text": ["half \ud83d"]}, {"half \ud83d": 1}, {"seed": 2**70}, {"seed": 10**5000}, {"x": float("nan")}],
    ids=["surrogate", "key", "seed", "huge", "nan"],
)
def test_any_config_can_be_read(folder: Path, config: dict[str, Any]) -> None:
    """Or nobody could see whose the session is."""
    session = claim(folder, {"config": scrub(config)}, "it")
    assert session.owner() == this_process()
    header = json.loads(session.path.read_bytes())
    assert len(header["config"]) == 1
    assert len(pd.read_json(io.BytesIO(session.path.read_bytes()), lines=True)) == 1


def test_large_seed_stays_exact(folder: Path) -> None:
    session = claim(folder, {"config": scrub({"seed": 2**127 + 1, "small": -(2**63), "flag": True})}, "it")
    assert session.header()["config"] == {"seed": str(2**127 + 1), "small": -(2**63), "flag": True}


# ---------------------------------------------------------------- the next one


def test_successor_continues_its_session(folder: Path) -> None:
    first = claim(folder, {"writer": "explorer"}, "it")
    second = succeed(first, {"writer": "explorer"})
    assert second.number == 2
    assert second.header()["continues"] == 1
    assert second.owner() == this_process()
    third = succeed(first, {})
    assert (third.number, third.header()["continues"]) == (3, 1)


def test_successor_of_removed_folder(folder: Path) -> None:
    first = claim(folder, {"config": {}}, "it")
    second = succeed(first, {})
    shutil.rmtree(folder)
    assert succeed(second, {}).number == 3
    assert os.listdir(folder) == ["3.jsonl"]


@pytest.mark.parametrize(
    ("status", "state"),
    [(None, "running"), ("finished", "finished"), ("failed", "failed"), ("new", "killed"), ("killed", "killed")],
)
def test_state_of_a_session(folder: Path, status: str | None, state: str) -> None:
    session = claim(folder, {}, "it")
    if status is not None:
        end(session, status)
    assert session.state() is State(state)
    dead = plant(folder, 2, asdict(ended_process()))
    assert dead.state() is State.KILLED
