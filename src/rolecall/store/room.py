"""Room at the end of a file, mapped into memory: what is stored there is in the kernel's hands at once.

A store is no system call. It costs a fraction of a `write`, and unlike that it does not give the interpreter lock
away, for which other threads of the process make it wait up to 5 ms (`sys.getswitchinterval`).

What can go wrong with a map has no error that could be caught: the process gets SIGBUS, and dies. So room is made by
writing null bytes first. A full disk, a quota or a limit says no there, and what was written has its place on the disk.
ext2 to 4, xfs and tmpfs overwrite a file in place and need nothing more for it; filesystems that put what is
overwritten somewhere else (btrfs, zfs, bcachefs) can be full then, and are not for this. What is left is a disk that
fails to give back what it was given, and somebody who cuts the file short while it is mapped.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from rolecall.store.rowstore import Store

__all__ = ["FILESYSTEMS", "begin_room", "extend_room", "give_room_back"]

FILESYSTEMS: Final = frozenset(["ext2", "ext3", "ext4", "tmpfs", "xfs"])
"""Where a map of what has been written cannot fail for want of space."""
CHUNK: Final = 1 << 17
"""Bytes of room that are made at once: what a killed process leaves behind its last line at most."""


def begin_room(descriptor: int, store: Store) -> None:
    """Stand at the end of a file that is open to append, without room there."""
    store.close()
    store.end = os.fstat(descriptor).st_size


def extend_room(descriptor: int, store: Store, size: int) -> bool:
    """Make room for `size` bytes, or less if the disk has less; whether it could be mapped.

    Raises:
        OSError: the disk is full; what there is of room stays as it is.
    """
    if store.end + size > os.fstat(descriptor).st_size:
        os.write(descriptor, bytes(max(CHUNK, size)))
    start = store.end - store.end % mmap.ALLOCATIONGRANULARITY
    try:
        length = os.fstat(descriptor).st_size - start
        store.open(mmap.mmap(descriptor, length, offset=start), start)
    except (OSError, ValueError, OverflowError):  # too many maps; a file that somebody cut short
        return False
    return True


def give_room_back(descriptor: int, store: Store) -> None:
    """Cut off what was not used; there is no room after that."""
    store.close()
    os.ftruncate(descriptor, min(store.end, os.fstat(descriptor).st_size))
