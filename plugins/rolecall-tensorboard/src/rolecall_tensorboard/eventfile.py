"""One event file: a batch of records is written completely or not at all, and synced on request.

tensorboardX's own writers are not used (2.6.5, measured and read in its sources): `EventFileWriter.flush` does not
wait for its queue, its thread ends at the first `OSError` while `flush` goes on to return without an error, and
`RecordWriter` leaves half a record in the file when the disk is full.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["EventFile"]


class EventFile:
    """A file that this process created and that no other process writes to.

    Attributes:
        path: where it was created.
        size: how many bytes were written completely.
        torn: whether it ends in half a record that could not be removed; no record may follow it.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        """Create the file with its first records.

        Raises:
            OSError: it could not be created or written; no file is left behind.
        """
        self.path = path
        self.size = 0
        self.torn = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            self.append(header)
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, records: bytes) -> None:
        """Write all of `records`, or none.

        Raises:
            OSError: the file is as it was before the call, or else `torn`.
        """
        try:
            self._write_all(records)
        except OSError:
            self.rewind(self.size)
            raise
        self.size += len(records)

    def _write_all(self, records: bytes) -> None:
        rest = memoryview(records)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def rewind(self, size: int) -> None:
        """Remove what was written after `size`."""
        # A reader may have read it already. That is harmless: the same rows come again and give the same bytes, so
        # the reader continues at the offset where it stopped.
        self.size = size
        try:
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)
        except OSError:
            self.torn = True

    def sync(self) -> None:
        """Return once the file system holds all that was written, under this file's path.

        Raises:
            OSError: it could not be synced, or the file was deleted or moved.
        """
        # `fsync` and not only `write`: a network file system reports a full disk or a lost server here (close(2)).
        os.fsync(self._fd)
        if not self.in_place():
            raise FileNotFoundError(errno.ENOENT, "the file was deleted or moved", str(self.path))

    def in_place(self) -> bool:
        """Whether the file is still at the path where it was created."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file. Only `sync` promises anything, so an error here is ignored."""
        with suppress(OSError):
            os.close(self._fd)
