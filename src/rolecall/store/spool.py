"""Where and how a journal is written: in `monitor_dir`, or, if that is on a network filesystem, on the node."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rolecall.config.model import MonitorConfig
from rolecall.delivery.cursor import Mirror
from rolecall.errors import DirectoryError
from rolecall.store.layout import slug_of
from rolecall.store.lease import Session
from rolecall.store.room import FILESYSTEMS

__all__ = ["is_mapped", "is_on_network", "is_spooled", "mirrors", "open_spool"]

NETWORK_FILESYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
        "wekafs",
    ]
)
_MOUNTS = Path("/proc/mounts")


def is_spooled(config: MonitorConfig) -> bool:
    """Whether journals are written on the node first."""
    return config.spool_dir is not None or is_on_network(config.monitor_dir)


def open_spool(config: MonitorConfig, writer: str, session: Session) -> Path:
    """A journal on the node that begins like the session's, whose header names the nonce under `spool`.

    Raises:
        DirectoryError: it cannot be written.
    """
    path = _spool_file(config, writer, str(config.nonce), session)
    try:
        if config.spool_dir is None:
            _make_private(_root(config))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(
            missing_ok=True
        )  # a process that has mapped what stood there would die if it was cut short
        shutil.copyfile(session.path, path)
    except OSError as error:
        raise DirectoryError(f"spool_dir {_root(config)}: cannot be written: {error.strerror}") from error
    return path


def mirrors(config: MonitorConfig, writer: str, found: list[Session]) -> Iterator[Mirror]:
    """A mirror for each session of a writer that is spooled on this node, oldest first.

    A role and its courier may have died together: what they left on the node is fetched by whoever comes next.
    """
    for session in found:
        nonce = session.header().get("spool")
        if isinstance(nonce, str) and nonce.isalnum():
            path = _spool_file(config, writer, nonce, session)
            if path.is_file() and not path.is_symlink():
                yield Mirror(path, session.path)


def _root(config: MonitorConfig) -> Path:
    return config.spool_dir or Path(tempfile.gettempdir(), f"rolecall-{os.getuid()}")


def _spool_file(config: MonitorConfig, writer: str, nonce: str, session: Session) -> Path:
    return _root(config) / nonce / slug_of(writer) / session.path.name


def _make_private(folder: Path) -> None:
    """Everyone can write to a temporary directory: what stands there under our name need not be ours."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DirectoryError(
            f"spool_dir {folder}: is not a directory that only this user can write to. Remove it, or set spool_dir"
        )


def is_on_network(path: Path) -> bool:
    """Whether the path is on a filesystem that can freeze for seconds. Known on Linux; elsewhere, say `spool_dir`."""
    return _filesystem(path) in NETWORK_FILESYSTEMS


def is_mapped(config: MonitorConfig, journal: Path) -> bool:
    """Whether rows are stored in this journal through a map: as the config says, or where that cannot fail."""
    if config.journal == "auto":
        return _filesystem(journal) in FILESYSTEMS
    return config.journal == "mapped"


def _filesystem(path: Path) -> str | None:
    """The kind of filesystem that the path is on; `None` where that cannot be known."""
    if not _MOUNTS.exists():
        return None
    mounts = [
        line.split()[1:3] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    real = path.resolve()
    above = [(point, kind) for point, kind in mounts if real.is_relative_to(_unescape(point))]
    # Of several that are mounted over one another at one point (autofs and then nfs), the last is seen.
    return max(reversed(above), key=lambda mount: len(mount[0]), default=("/", None))[1]


def _unescape(point: str) -> str:
    """The kernel writes a space in a mount point as a backslash and 040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
