"""Files in a directory that other processes, and perhaps other people, have their hands in."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_own", "open_regular", "put_back", "put_whole", "write_whole"]

_PIECE = 1 << 20

_NO_FILE = frozenset([errno.ENOENT, errno.EISDIR, errno.ELOOP, errno.ENXIO])


def open_own(path: Path, create: bool = False) -> int:
    """A descriptor to append with to a file of this process's own; never to what a symlink there points at."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags | os.O_CREAT if create else flags, 0o666)


def open_regular(path: Path) -> BinaryIO | None:
    """A file to read; `None` if there is none, or what is there is a directory, a pipe or a device."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def write_whole(descriptor: int, data: bytes) -> None:
    """One write.

    Raises:
        OSError: a part of it or nothing was written.
    """
    if os.write(descriptor, data) < len(data):
        # The kernel cuts a write to a file short where the disk, the quota or the file's limit ends.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def put_whole(path: Path, data: bytes) -> None:
    """Readers see the old content or the new, never a part; the draft's name is this call's own.

    Raises:
        OSError: it was not written; nothing is left over.
    """
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def put_back(descriptor: int, path: Path) -> None:
    """Copy a file that was removed while it is open to where it was; the descriptor is the copy's from then on.

    Raises:
        OSError: it could not be copied, or something else stands there by now; all is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    copy = open_own(draft, create=True)
    try:
        offset = 0
        while piece := os.pread(descriptor, _PIECE, offset):
            write_whole(copy, piece)
            offset += len(piece)
        os.link(draft, path)
        os.dup2(copy, descriptor, inheritable=False)
    finally:
        os.close(copy)
        draft.unlink(missing_ok=True)


def _open_at_once(path: str, flags: int) -> int:
    """Anyone's pipe may stand where a file should; without this, a reader would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)
