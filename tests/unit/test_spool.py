"""Where a journal is written, when `monitor_dir` may freeze."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall import DirectoryError, MonitorConfig
from rolecall.store import spool
from rolecall.store.codec import encode
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, sessions
from rolecall.store.spool import is_mapped, is_on_network, is_spooled, mirrors, open_spool

MakeConfig = Callable[..., MonitorConfig]

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
def session(make_config: MakeConfig) -> Session:
    layout = Layout(make_config().monitor_dir)
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
def test_the_filesystem_that_a_path_is_on(mounts: Path, path: str, network: bool) -> None:
    assert is_on_network(Path(path)) is network


def test_a_link_onto_the_network_is_on_the_network(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert is_on_network(tmp_path / "link" / "run")


def test_without_a_list_of_mounts_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_MOUNTS", tmp_path / "nowhere")
    assert not is_on_network(Path("/home/me"))
    assert not is_mapped(MonitorConfig(project="p", name="n"), Path("/home/me"))


@pytest.mark.parametrize(
    ("journal", "path", "mapped"),
    [
        ("auto", "/data/run", True),
        ("auto", "/home/local/run", True),
        ("auto", "/home/me", False),
        ("auto", "/btrfs/run", False),
        ("written", "/data/run", False),
        ("mapped", "/btrfs/run", True),
    ],
)
def test_a_journal_is_mapped_where_that_cannot_fail(
    make_config: MakeConfig, mounts: Path, journal: str, path: str, mapped: bool
) -> None:
    with mounts.open("a", encoding="utf-8") as file:
        file.write("/dev/sdd1 /btrfs btrfs rw 0 0\n")
    assert is_mapped(make_config(journal=journal), Path(path)) is mapped


def test_a_local_monitor_dir_needs_no_spool(make_config: MakeConfig, session: Session, mounts: Path) -> None:
    assert not is_spooled(make_config())


def test_a_spool_begins_like_the_session(make_config: MakeConfig, session: Session, tmp_path: Path) -> None:
    config = make_config(spool_dir=tmp_path / "node").model_copy(update={"nonce": "n1"})
    path = open_spool(config, "explorer/0", session)
    assert path == tmp_path / "node" / "n1" / "explorer@0" / "1.jsonl"
    assert path.read_bytes() == session.path.read_bytes()


def test_the_nodes_own_spool_is_this_users_alone(
    make_config: MakeConfig, session: Session, on_network: Path
) -> None:
    config = make_config().model_copy(update={"nonce": "n1"})
    path = open_spool(config, "explorer/0", session)
    root = on_network / f"rolecall-{os.getuid()}"
    assert path == root / "n1" / "explorer@0" / "1.jsonl"
    assert root.stat().st_mode & 0o777 == 0o700
    assert open_spool(config, "explorer/0", session) == path, "a second role finds it there"


@pytest.mark.parametrize("kind", ["link", "open to others", "another's", "file"])
def test_what_another_put_in_the_spools_place_is_refused(
    make_config: MakeConfig, session: Session, on_network: Path, kind: str
) -> None:
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
        open_spool(make_config().model_copy(update={"nonce": "n1"}), "explorer/0", session)


def test_a_spool_that_cannot_be_written_is_told(
    make_config: MakeConfig, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    config = make_config(spool_dir=tmp_path / "file").model_copy(update={"nonce": "n1"})
    with pytest.raises(DirectoryError, match=r"spool_dir .*file: cannot be written: Not a directory"):
        open_spool(config, "explorer/0", session)


def test_every_session_that_is_spooled_here_is_fetched(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(spool_dir=tmp_path / "node").model_copy(update={"nonce": "n1"})
    folder = config.monitor_dir / "journal" / "trainer"
    for status in ("failed", "finished"):
        opened = claim(folder, {"writer": "trainer", "spool": "n1"}, "it")
        dead = {**opened.header(), "owner": {**opened.header()["owner"], "start": "0"}}
        opened.path.write_bytes(encode(dead))
        with open_spool(config, "trainer", opened).open("ab") as file:
            file.write(encode({"n": 1, "s": 1, "t": 1.0, "m": {"a": 1}}) + encode({"end": status}))
    (tmp_path / "node" / "n1" / "trainer" / "1.jsonl").rename(tmp_path / "lost")
    assert len(list(mirrors(config, "trainer", sessions(folder)))) == 1, "the other is on another node"
    (tmp_path / "lost").rename(tmp_path / "node" / "n1" / "trainer" / "1.jsonl")
    for mirror in mirrors(config, "trainer", sessions(folder)):
        mirror.copy()
    assert [session.status() for session in sessions(folder)] == ["failed", "finished"]


@pytest.mark.parametrize("nonce", ["..", "../../etc", "/etc", "", 5, None])
def test_a_header_cannot_lead_the_mirror_elsewhere(
    make_config: MakeConfig, tmp_path: Path, nonce: object
) -> None:
    config = make_config(spool_dir=tmp_path / "node")
    folder = config.monitor_dir / "journal" / "trainer"
    claim(folder, {"writer": "trainer", "spool": nonce}, "it")
    assert list(mirrors(config, "trainer", sessions(folder))) == []
