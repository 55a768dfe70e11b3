"""Files in a directory that other processes, and perhaps other people, change at the same time."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from zlib import crc32

_NO_FILE: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO])


def open_own(path: Path, create: bool = False) -> int:
    """A descriptor that appends to a file of this process's own; a symlink in its place is not followed."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags | os.O_CREAT if create else flags, 0o666)


def open_regular(path: Path) -> BinaryIO | None:
    """A file to read; `None` if there is none, or if the path is a directory, a pipe or a device."""
    try:
        # Without O_NONBLOCK, opening a pipe that somebody put there would wait for a writer.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def write_whole(descriptor: int, data: bytes) -> None:
    """Write `data` with one system call.

    Raises:
        OSError: only a part of it or nothing was written.
    """
    if os.write(descriptor, data) < len(data):
        # The kernel writes less than it was given where the disk, the quota or the file size limit ends.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def put_whole(path: Path, data: bytes) -> None:
    """Replace a file so that readers see the old content or the new, never a part of it.

    Raises:
        OSError: it was not written; nothing is left over.
    """
    # The draft's name is unique: with a fixed one, two writers remove each other's drafts.
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def put_attachment(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """Store bytes beside a journal, before the row that refers to them; returns the reference.

    Raises:
        OSError: they were not written.
    """
    folder.mkdir(exist_ok=True)
    put_whole(folder / name, data)
    return {"name": name, "size": len(data), "sum": f"{crc32(data):08x}"}


def read_attachment(folder: Path, reference: Mapping[str, Any]) -> bytes:
    """The bytes that a reference names.

    Raises:
        ValueError: the reference leads out of the folder, or the file is missing, short or damaged.
    """
    match reference:
        case {"name": str(name), "size": int(size), "sum": str(checksum)} if name == os.path.basename(name):
            file = open_regular(folder / name)
        case _:
            raise ValueError("it does not name an attachment")
    if file is None:
        raise ValueError(f"its attachment {name} is missing")
    with file:
        # One byte more than there should be: the file may have grown to any size.
        data = file.read(size + 1)
    if len(data) != size or f"{crc32(data):08x}" != checksum:
        raise ValueError(f"its attachment {name} is damaged")
    return data
