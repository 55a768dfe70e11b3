"""One event file: records appended all or not at all, and synced on request.

tensorboardX's own writers are not used to write (2.6.5, measured and read in its sources):
`EventFileWriter.flush` does not wait for the queue it has been filling, its thread dies of the first `OSError`
and leaves `flush` returning as if all were well, and `RecordWriter` tears a record in two where the disk ends.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["EventFile"]


class EventFile:
    """A file that this process created and alone writes.

    Attributes:
        path: where it was created.
        size: how far it is written, in bytes.
        torn: whether it ends in half a record that could not be taken back; no record may follow.
    """

    def __init__(self, path: Path, header: bytes) -> None:
        """Create the file with its first records.

        Raises:
            OSError: it could not be created, or not written; then nothing is left behind.
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
        """Forget what was written behind `size`.

        A reader may have seen it. Rows that come again are encoded to the same bytes, so the reader finds the
        file that it expects.
        """
        self.size = size
        try:
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, size, os.SEEK_SET)
        except OSError:
            self.torn = True

    def sync(self) -> None:
        """Return once the file system holds all that was written, under this file's path.

        `fsync`, because a network file system tells of a full disk or a lost server only then.

        Raises:
            OSError: it does not, or the file was deleted.
        """
        os.fsync(self._fd)
        if not self.in_place():
            raise FileNotFoundError(errno.ENOENT, "the file was deleted or moved", str(self.path))

    def in_place(self) -> bool:
        """Whether the file still stands where it was created."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file. What `sync` has not promised before is not promised now, so an error says nothing."""
        with suppress(OSError):
            os.close(self._fd)
