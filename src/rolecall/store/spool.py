"""Journals on a node: where they are written if `monitor_dir` is on a network filesystem, and how they get there.

A network filesystem can freeze for minutes, and training with it. So a role writes its journal to a local disk, and its
courier copies the bytes as they are to `monitor_dir`, where every other process reads them.
"""

import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rolecall.errors import DirectoryError
from rolecall.store.codec import draft_of, end_of_lines, last_line, make_folder, put_whole, whole_lines
from rolecall.store.layout import Layout, slug_of
from rolecall.store.lease import Fill, Session, newest, sessions, succeed

# fmt: off
NETWORK_FILESYSTEMS = frozenset([
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs",
    "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "panfs", "pvfs2", "smb3", "smbfs",
    "virtiofs", "wekafs",
])
# fmt: on
_MOUNTS = Path("/proc/mounts")


class Spooled(Protocol):
    """What of a job's settings says where its journals are; see `rolecall.config.spec.JobSpec`."""

    @property
    def monitor_dir(self) -> Path:
        """Where every process reads them."""

    @property
    def spool_dir(self) -> Path | None:
        """A directory on the node, if the user chose one."""

    @property
    def nonce(self) -> str:
        """New with each launch, so that two never share a file."""


def is_spooled(spec: Spooled) -> bool:
    """Whether journals are written on the node first."""
    return spec.spool_dir is not None or is_on_network(spec.monitor_dir)


def open_spool(spec: Spooled, writer: str, session: Session, fill: Fill | None = None) -> Session:
    """The session's journal on the node, which begins like the session's own file.

    Raises:
        DirectoryError: it cannot be written.
    """
    spool = Session(_spool_file(spec, writer, spec.nonce, session), session.number)
    try:
        make_root(spec.spool_dir)
        spool.path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(spool.path) as draft:
            shutil.copyfile(session.path, draft)
            if fill is not None:
                fill(draft, spool)
            # Not written over: a courier of an earlier launch may still read what is there.
            os.replace(draft, spool.path)
    except OSError as error:
        raise DirectoryError(f"spool_dir {_root(spec)}: cannot be written: {error.strerror}") from error
    return spool


def succeed_in(spec: Spooled, writer: str, header: Mapping[str, Any], session: Session, fill: Fill) -> Session:
    """The session to go on in when a writer's file was changed from outside, on the node or in `monitor_dir`."""
    if not is_spooled(spec):
        return succeed(session, header, fill)
    before = Session(Layout(spec.monitor_dir).journal(writer) / session.path.name, session.number)
    return open_spool(spec, writer, succeed(before, header), fill)


def make_root(spool_dir: Path | None) -> Path:
    """The directory of this node in which jobs write. One that the user chose may not be there yet.

    Raises:
        DirectoryError: other users could write in it.
        OSError: it cannot be made.
    """
    if spool_dir is not None:
        return spool_dir
    root = _default_root()
    _make_private(root)
    return root


def node_folder(spool_dir: Path | None, run_id: str, node: str) -> Path:
    """The directory of a job's roles on one node, where no disk is shared. It is laid out like a `monitor_dir`."""
    return (spool_dir or _default_root()) / run_id / node


def make_node_folder(spool_dir: Path | None, run_id: str, node: str) -> Path:
    """Make that directory.

    Raises:
        DirectoryError: it cannot be used.
    """
    folder = node_folder(spool_dir, run_id, node)
    try:
        make_root(spool_dir)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = spool_dir or _default_root()
        raise DirectoryError(f"spool_dir {where}: cannot be written: {error.strerror}") from error
    return folder


class Mirror:
    """Copies what one writer spooled on this node to `monitor_dir`, session by session.

    A role and its courier may have died together: whoever comes next copies what they left. Several processes may copy
    at once: they write the same bytes to the same places.
    """

    def __init__(self, spec: Spooled, writer: str) -> None:
        self._spec = spec
        self._writer = writer
        self._journal = Layout(spec.monitor_dir).journal(writer)
        self._spools: dict[int, Path | None] = {}
        self._lock = threading.Lock()

    def spool_of(self, session: Session) -> Path | None:
        """Where the rows of a session are written, if that is on this node."""
        if session.number not in self._spools:
            nonce = session.header().get("spool")
            # The nonce comes from a file that others may have written: it must not lead anywhere else.
            known = nonce if isinstance(nonce, str) and nonce.isalnum() else ""
            self._spools[session.number] = _spool_file(self._spec, self._writer, known, session) if known else None
        path = self._spools[session.number]
        return path if path is not None and path.is_file() and not path.is_symlink() else None

    def is_whole(self) -> bool:
        """Whether all that the newest session spooled on this node is in `monitor_dir`.

        Raises:
            OSError: a directory does not answer.
        """
        session = newest(self._journal)
        spool = self.spool_of(session) if session is not None else None
        return session is None or spool is None or session.path.stat().st_size >= end_of_lines(spool)

    def copy(self, *, newest_only: bool = False) -> None:
        """Append the lines that are not there yet; attachments first, because rows refer to them.

        Without `newest_only`, what nobody appends to any more is then removed from the node.

        Raises:
            OSError: a directory does not answer.
        """
        with self._lock:
            found = sessions(self._journal)
            for session in found[-1:] if newest_only else found:
                spool = self.spool_of(session)
                if spool is None:
                    continue
                if newest_only:  # several times a second, so without a look at what it holds
                    _copy(Session(spool, session.number), session)
                elif "cleaned" not in (last_line(session.path, session.seed) or {}):
                    _copy(Session(spool, session.number), session)
                    _drop_mirrored(Session(spool, session.number), session)


def _drop_mirrored(spool: Session, target: Session) -> None:
    """Remove what was spooled of a session once nobody appends to it and all of it is in `monitor_dir`."""
    if target.status() is None and target.is_live():
        return
    with os.fdopen(os.open(target.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        if os.fstat(file.fileno()).st_size < end_of_lines(spool.path):
            return
        os.fsync(file.fileno())  # from here on, this is the only copy
    spool.path.unlink(missing_ok=True)
    shutil.rmtree(spool.attachments, ignore_errors=True)


def _copy(spool: Session, target: Session) -> None:
    offset = target.path.stat().st_size
    while chunk := whole_lines(spool.path, offset):
        for name in os.listdir(spool.attachments) if spool.attachments.is_dir() else ():
            # What begins with a dot is a draft.
            if not name.startswith(".") and not (target.attachments / name).exists():
                make_folder(target.attachments)
                put_whole(target.attachments / name, (spool.attachments / name).read_bytes())
        with os.fdopen(os.open(target.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "wb", buffering=0) as file:
            offset += os.pwrite(file.fileno(), chunk, offset)


def _root(spec: Spooled) -> Path:
    return spec.spool_dir or _default_root()


def _default_root() -> Path:
    return Path(tempfile.gettempdir(), f"rolecall-{os.getuid()}")


def _spool_file(spec: Spooled, writer: str, nonce: str, session: Session) -> Path:
    return _root(spec) / nonce / slug_of(writer) / session.path.name


def _make_private(folder: Path) -> None:
    # Everyone can write to a temporary directory: a folder of our name need not be ours.
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DirectoryError(
            f"spool_dir {folder}: is not a directory that only this user can write to. Remove it, or set spool_dir"
        )


def is_on_network(path: Path) -> bool:
    """Whether a path is on a filesystem that can freeze. Known on Linux only; elsewhere, set `spool_dir`."""
    if not _MOUNTS.exists():
        return False
    mounts = [line.split()[1:3] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    real = path.resolve()
    # The kernel writes a space in a mount point as a backslash and 040 (proc(5)).
    points = [(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point), kind) for point, kind in mounts]
    above = [(point, kind) for point, kind in points if real.is_relative_to(point)]
    # Of several that are mounted over one another (autofs, then nfs), the last one is what the path leads to.
    kind = max(reversed(above), key=lambda mount: len(mount[0]), default=("/", ""))[1]
    return kind in NETWORK_FILESYSTEMS
