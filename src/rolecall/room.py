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
from dataclasses import dataclass
from typing import Final

__all__ = ["FILESYSTEMS", "Room"]

FILESYSTEMS: Final = frozenset(["ext2", "ext3", "ext4", "tmpfs", "xfs"])
"""Where a map of what has been written cannot fail for want of space."""
CHUNK: Final = 1 << 17
"""Bytes of room that are made at once: what a killed process leaves behind its last line at most."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is mapped of a file.

    Attributes:
        pages: the file's end.
        start: the offset in the file at which they begin.
        limit: the offset at which there is no more room.
    """

    pages: mmap.mmap | bytearray
    start: int
    limit: int


class Room:
    """Room behind the last line of a file that is open to append.

    Its owner stores `window.pages[end - start : end - start + size]` and moves `end`, if by then nobody else did and
    the window is the same: it is another whenever there is other room, or none any more.

    Attributes:
        window: what is mapped.
        end: the offset behind the last line.
    """

    __slots__ = ("end", "window")

    def __init__(self, descriptor: int) -> None:
        self.end = os.fstat(descriptor).st_size
        self.close()

    def extend(self, descriptor: int, size: int) -> bool:
        """Make room for `size` bytes, or less if the disk has less; whether it could be mapped.

        Raises:
            OSError: the disk is full; what there is of room stays as it is.
        """
        if self.end + size > os.fstat(descriptor).st_size:
            os.write(descriptor, bytes(max(CHUNK, size)))
        start = self.end - self.end % mmap.ALLOCATIONGRANULARITY
        try:
            length = os.fstat(descriptor).st_size - start
            self.window = Window(mmap.mmap(descriptor, length, offset=start), start, start + length)
        except (OSError, ValueError, OverflowError):  # too many maps; a file that somebody cut short
            return False
        return True

    def close(self) -> None:
        """Let nobody store any more before it is extended, perhaps in another file of the same content."""
        self.window = Window(bytearray(), self.end, self.end)

    def give_back(self, descriptor: int) -> None:
        """Cut off what was not used; there is no room after that."""
        self.close()
        os.ftruncate(descriptor, min(self.end, os.fstat(descriptor).st_size))
