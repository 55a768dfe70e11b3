"""Syncs a journal to the disk at an interval, for jobs that must survive a power cut.

A row that was logged is in the kernel and survives the death of its process; Linux writes it to the disk within about
30 s. `fsync` is about a file and not about who wrote it (POSIX; fsync(2)), so the courier can ask for it earlier, and
the training process never waits for the disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from rolecall import timings
from rolecall.store.codec import end_of_lines
from rolecall.store.lease import Session


class Syncer:
    """Syncs one session's journal on a thread of its own, since a busy disk may take seconds.

    Args:
        session: where its rows are written.
        every: seconds from the end of one sync to the next.
        warn: gets each failure in words.
    """

    def __init__(self, session: Session, every: float, warn: Callable[[str], None]) -> None:
        self._session = session
        self._every = every
        self._warn = warn
        self._synced: set[str] = set()
        self._end = -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rolecall-sync", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Sync what came last, and stop."""
        self._over.set()
        self._thread.join(timings.SYNC_TIMEOUT)

    def _run(self) -> None:
        # The directories above the journal first, or its name could be lost with the power.
        for folder in list(self._session.path.parents)[:4]:
            self._attempt(partial(_sync, folder))
        while not self._over.wait(self._every):
            self._attempt(self._sync)
        self._attempt(self._sync)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except FileNotFoundError:  # the job was deleted, and its rows with it
            pass
        except OSError as error:
            self._warn(f"{self._session.path} could not be synced: {error.strerror}")

    def _sync(self) -> None:
        """Sync what came since the last time, attachments before the rows that refer to them."""
        end = end_of_lines(self._session.path)
        if end == self._end:
            return
        folder = self._session.attachments
        for path in folder.glob("[!.]*"):
            if path.name not in self._synced:
                _sync(path)
                self._synced.add(path.name)
        with suppress(FileNotFoundError):
            _sync(folder)
        _sync(self._session.path)
        self._end = end


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
