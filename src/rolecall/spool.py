"""Where a journal is written: in `monitor_dir`, or, if that is on a network filesystem, on the node."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rolecall.claims import Session
from rolecall.config import MonitorConfig
from rolecall.layout import slug_of

__all__ = ["is_on_network", "spool_path"]

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


def spool_path(config: MonitorConfig, writer: str, session: Session) -> Path | None:
    """A journal on the node that begins like the session's; `None` if the session's own will do."""
    root = config.spool_dir
    if root is None and is_on_network(config.monitor_dir):
        root = Path(tempfile.gettempdir(), "rolecall")
    if root is None:
        return None
    path = root / str(config.nonce) / slug_of(writer) / session.path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(session.path, path)
    return path


def is_on_network(path: Path) -> bool:
    """Whether the path is on a filesystem that can freeze for seconds. Known on Linux; elsewhere, say `spool_dir`."""
    if not _MOUNTS.exists():
        return False
    mounts = [
        line.split()[1:3] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    real = path.resolve()
    above = [(point, kind) for point, kind in mounts if real.is_relative_to(_unescape(point))]
    deepest = max(above, key=lambda mount: len(mount[0]), default=("/", ""))
    return deepest[1] in NETWORK_FILESYSTEMS


def _unescape(point: str) -> str:
    """The kernel writes a space in a mount point as a backslash and 040."""
    return point.encode().decode("unicode_escape") if "\\" in point else point
