"""Where a journal is written, when `monitor_dir` may freeze."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journal_files import damages, rows

from rolecall import DirectoryError, MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.spec import HandOver, JobSpec
from rolecall.rows import TableData
from rolecall.store import spool
from rolecall.store.codec import encode, whole_lines
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, sessions, succeed
from rolecall.store.spool import Mirror, is_on_network, is_spooled, open_spool

MakeSpec = Callable[..., JobSpec]
LARGE = TableData(name="samples", columns=("text",), rows=tuple((f"{at}" * 500,) for at in range(5000)))

MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
auto.misc /auto autofs rw 0 0
server:/auto /auto nfs rw 0 0
share /mnt/my\040share cifs rw 0 0
sshfs /mnt/über\040uns fuse.sshfs rw 0 0
back /mnt/a\134b lustre rw 0 0
/dev/sdc1 /homes ext4 rw 0 0
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mounts"
    path.write_text(MOUNTS.lstrip(), encoding="utf-8")
    monkeypatch.setattr(spool, "_MOUNTS", path)
    return path


@pytest.fixture
def make_spec(make_config: Callable[..., MonitorConfig]) -> MakeSpec:
    """The spec of a launched job; keyword arguments differ from it."""

    def make(**settings: Any) -> JobSpec:
        launched = HandOver(run_id="r1", nonce="n1", plan=Plan())
        return replace(make_config().handed(launched).spec(), **settings)

    return make


@pytest.fixture
def session(make_spec: MakeSpec) -> Session:
    layout = Layout(make_spec().monitor_dir)
    return claim(layout.journal("explorer/0"), {"writer": "explorer/0"}, "it")


@pytest.fixture
def on_network(mounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`monitor_dir` is on a network filesystem; what is given is the node's temporary directory."""
    with mounts.open("a", encoding="utf-8") as file:
        file.write(f"server:/x {tmp_path / 'monitor'} nfs rw 0 0\n")
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/", False),
        ("/data/run", False),
        ("/home", True),
        ("/home/me/run", True),
        ("/home/local/run", False),
        ("/homes/me", False),
        ("/auto/run", True),
        ("/mnt/my share/run", True),
        ("/mnt/über uns/run", True),
        ("/mnt/a\\b/run", True),
        ("/mnt", False),
    ],
)
def test_filesystem_of_a_path(mounts: Path, path: str, network: bool) -> None:
    assert is_on_network(Path(path)) is network


def test_link_onto_the_network(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert is_on_network(tmp_path / "link" / "run")


def test_unknown_without_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MOUNTS", tmp_path / "nowhere")
    assert not is_on_network(Path("/home/me"))


def test_local_directory_needs_no_spool(make_spec: MakeSpec, mounts: Path) -> None:
    assert not is_spooled(make_spec())


def test_network_directory_is_spooled(make_spec: MakeSpec, on_network: Path) -> None:
    assert is_spooled(make_spec())


def test_spool_begins_like_its_session(make_spec: MakeSpec, session: Session, tmp_path: Path) -> None:
    spec = make_spec(spool_dir=tmp_path / "node")
    assert is_spooled(spec)
    made = open_spool(spec, "explorer/0", session)
    assert made.path == tmp_path / "node" / "n1" / "explorer@0" / "1.jsonl"
    assert made.path.read_bytes() == session.path.read_bytes()
    assert (made.number, made.seed) == (session.number, session.seed)


def test_default_spool_is_private(make_spec: MakeSpec, session: Session, on_network: Path) -> None:
    spec = make_spec()
    made = open_spool(spec, "explorer/0", session)
    root = on_network / f"rolecall-{os.getuid()}"
    assert made.path == root / "n1" / "explorer@0" / "1.jsonl"
    assert root.stat().st_mode & 0o777 == 0o700
    assert open_spool(spec, "explorer/0", session) == made, "a second role finds it there"


@pytest.mark.parametrize("kind", ["link", "open to others", "another's", "file"])
def test_others_spool_is_refused(make_spec: MakeSpec, session: Session, on_network: Path, kind: str) -> None:
    root = on_network / f"rolecall-{os.getuid()}"
    if kind == "link":
        (on_network / "elsewhere").mkdir()
        root.symlink_to(on_network / "elsewhere")
    elif kind == "file":
        root.touch()
    else:
        root.mkdir()
        root.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "another's":
        if os.getuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(root, 12345, 12345)
    with pytest.raises(DirectoryError, match=r"^spool_dir .*rolecall-"):
        open_spool(make_spec(), "explorer/0", session)


def test_unwritable_spool_is_reported(make_spec: MakeSpec, session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryError, match=r"spool_dir .*file: cannot be written: Not a directory"):
        open_spool(make_spec(spool_dir=tmp_path / "file"), "explorer/0", session)


def test_unfilled_spool_leaves_nothing(make_spec: MakeSpec, session: Session, tmp_path: Path) -> None:
    def fill(path: Path, made: Session) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DirectoryError, match="cannot be written: No space"):
        open_spool(make_spec(spool_dir=tmp_path / "node"), "explorer/0", session, fill)
    assert os.listdir(tmp_path / "node" / "n1" / "explorer@0") == []


# ------------------------------------------------------------------ the mirror


Spooled = tuple[JournalWriter, Mirror, Session]


@pytest.fixture
def spooled(make_spec: MakeSpec, tmp_path: Path) -> Iterator[Spooled]:
    """A journal on the node, its mirror, and the session in `monitor_dir`."""
    spec = make_spec(spool_dir=tmp_path / "node")
    target = claim(Layout(spec.monitor_dir).journal("trainer"), {"writer": "trainer", "spool": "n1"}, "it")
    journal = JournalWriter(open_spool(spec, "trainer", target))
    yield journal, Mirror(spec, "trainer"), target
    journal.abandon()


def is_same(spooled: Spooled) -> bool:
    journal, _, target = spooled
    return whole_lines(journal.session.path) == target.path.read_bytes()


def test_mirror_copies_rows_and_attachments(spooled: Spooled) -> None:
    journal, mirror, target = spooled
    for step in (1, 2, 3):
        journal.append({"loss": 0.5}, step)
        journal.append({}, step, values=[LARGE])
        mirror.copy()
        assert is_same(spooled)
        assert [row.table for row in rows(target)] == [None, LARGE] * step
    journal.end("finished")
    mirror.copy()
    assert target.status() == "finished"
    assert sorted(os.listdir(target.attachments)) == ["2.json", "4.json", "6.json"]
    assert not damages(target)


def test_shortened_copy_is_completed(spooled: Spooled) -> None:
    journal, mirror, target = spooled
    for _ in range(3):
        journal.append({"loss": 0.5})
    mirror.copy()
    os.truncate(target.path, target.path.stat().st_size - 7)
    journal.append({"loss": 0.5})
    mirror.copy()
    assert is_same(spooled)


def test_unfinished_line_is_not_copied(spooled: Spooled) -> None:
    journal, mirror, target = spooled
    line = encode({"seq": 1, "step": 1, "time": 1.0, "data": {"loss": 0.5}}, target.seed)
    with journal.session.path.open("ab", buffering=0) as file:
        file.write(line[:20])
        mirror.copy()
        assert rows(target) == []
        assert is_same(spooled)
        file.write(line[20:])
    mirror.copy()
    assert [row.seq for row in rows(target)] == [1]


def test_draft_attachment_is_not_copied(spooled: Spooled) -> None:
    journal, mirror, target = spooled
    folder = journal.session.attachments
    folder.mkdir()
    (folder / ".draft").write_text("x")
    journal.append({"loss": 0.5})
    mirror.copy()
    assert not target.attachments.exists()
    journal.append({}, values=[LARGE])
    mirror.copy()
    assert os.listdir(target.attachments) == ["2.json"]


def test_mirrors_write_the_same_bytes(spooled: Spooled, make_spec: MakeSpec, tmp_path: Path) -> None:
    """Several processes may copy at once."""
    journal, mirror, _ = spooled
    spec = make_spec(spool_dir=tmp_path / "node")
    copies = [mirror, *(Mirror(spec, "trainer") for _ in range(3))]
    over = threading.Event()

    def copy(each: Mirror) -> None:
        while not over.is_set():
            each.copy(newest_only=True)

    threads = [threading.Thread(target=copy, args=(each,)) for each in copies]
    for thread in threads:
        thread.start()
    for step in range(1, 1001):
        journal.append({"loss": 0.5}, step)
    journal.append({}, values=[LARGE])
    journal.end("finished")
    over.set()
    for thread in threads:
        thread.join()
    mirror.copy(newest_only=True)
    assert is_same(spooled)


def test_mirror_follows_no_symlink(spooled: Spooled, tmp_path: Path) -> None:
    journal, mirror, target = spooled
    mirror.copy()
    precious = tmp_path / "precious"
    target.path.rename(precious)
    target.path.symlink_to(precious)
    before = precious.read_bytes()
    journal.append({"loss": 0.5})
    with pytest.raises(OSError, match="symbolic"):
        mirror.copy()
    assert precious.read_bytes() == before


def test_every_spooled_session_is_copied(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A role and its courier may have died together."""
    spec = make_spec(spool_dir=tmp_path / "node")
    folder = Layout(spec.monitor_dir).journal("trainer")
    for status in ("failed", "finished"):
        target = claim(folder, {"writer": "trainer", "spool": "n1"}, "it")
        dead = {**target.header(), "owner": {**target.header()["owner"], "start": "0"}}
        target.path.write_bytes(encode(dead, target.seed))
        made = open_spool(spec, "trainer", target)
        with made.path.open("ab") as file:
            file.write(encode({"seq": 1, "step": 1, "time": 1.0, "data": {"a": 1}}, target.seed))
            file.write(encode({"end": status, "seq": 1}, target.seed))
    lost = tmp_path / "node" / "n1" / "trainer" / "1.jsonl"
    lost.rename(tmp_path / "lost")
    Mirror(spec, "trainer").copy()
    assert [each.status() for each in sessions(folder)] == [None, "finished"], "the other is on another node"
    (tmp_path / "lost").rename(lost)
    Mirror(spec, "trainer").copy()
    assert [each.status() for each in sessions(folder)] == ["failed", "finished"]


@pytest.mark.parametrize("state", ["ended", "died", "lives", "cleaned"])
def test_mirrored_spool_is_removed(make_spec: MakeSpec, tmp_path: Path, state: str) -> None:
    """Once nobody appends to it and all of it is in `monitor_dir`, its attachments too."""
    spec = make_spec(spool_dir=tmp_path / "node")
    folder = Layout(spec.monitor_dir).journal("trainer")
    target = claim(folder, {"writer": "trainer", "spool": "n1"}, "it")
    if state in ("died", "cleaned"):
        dead = {**target.header(), "owner": {**target.header()["owner"], "start": "0"}}
        target.path.write_bytes(encode(dead, target.seed))
    journal = JournalWriter(open_spool(spec, "trainer", target))
    journal.append({"loss": 0.5})
    journal.append({"text": "x" * 5_000_000})
    if state == "ended":
        journal.end("finished")
    mirror = Mirror(spec, "trainer")
    mirror.copy(newest_only=True)
    assert journal.session.path.exists(), "the courier of a live role looks at nothing else"
    if state == "cleaned":
        target.path.write_bytes(
            encode(target.header(), target.seed) + encode({"end": "killed", "cleaned": 2}, target.seed)
        )
    mirror.copy()
    assert journal.session.path.exists() is (state in ("lives", "cleaned"))
    assert journal.session.attachments.exists() is (state in ("lives", "cleaned"))
    assert len(rows(target)) == (0 if state == "cleaned" else 2)
    journal.abandon()


@pytest.mark.parametrize("newest_only", [True, False])
def test_newest_session_alone_is_copied(make_spec: MakeSpec, tmp_path: Path, newest_only: bool) -> None:
    spec = make_spec(spool_dir=tmp_path / "node")
    folder = Layout(spec.monitor_dir).journal("trainer")
    first = claim(folder, {"writer": "trainer", "spool": "n1"}, "it")
    for target in (first, succeed(first, {"writer": "trainer", "spool": "n1"})):
        journal = JournalWriter(open_spool(spec, "trainer", target))
        journal.append({"loss": 0.5})
        journal.abandon()
    Mirror(spec, "trainer").copy(newest_only=newest_only)
    assert [len(rows(target)) for target in sessions(folder)] == [0 if newest_only else 1, 1]


@pytest.mark.parametrize("nonce", ["..", "../../etc", "/etc", "", 5, None, "n2"])
def test_header_leads_nowhere_else(make_spec: MakeSpec, tmp_path: Path, nonce: object) -> None:
    spec = make_spec(spool_dir=tmp_path / "node")
    session = claim(Layout(spec.monitor_dir).journal("trainer"), {"writer": "trainer", "spool": nonce}, "it")
    assert Mirror(spec, "trainer").spool_of(session) is None


def test_linked_spool_is_no_spool(spooled: Spooled, tmp_path: Path) -> None:
    journal, mirror, target = spooled
    journal.session.path.rename(tmp_path / "secret")
    journal.session.path.symlink_to(tmp_path / "secret")
    assert mirror.spool_of(target) is None
