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
from pathlib import Path

from rolecall.store.codec import end_of_lines
from rolecall.store.lease import Session


def keep_synced(
    place: Callable[[], Session | None], every: float, over: threading.Event, warn: Callable[[str], None]
) -> None:
    """Sync a writer's journal until it is over, and once more. On a thread of its own: a busy disk may take seconds.

    Args:
        place: where rows are written now; `None` if the journal was deleted.
        every: seconds from the end of one sync to the next.
        over: set when nothing more comes.
        warn: gets each failure in words.
    """
    synced: dict[Path, int] = {}
    is_over = False
    while not is_over:
        is_over = over.wait(every)
        with suppress(OSError):  # a directory that does not answer is looked at again
            session = place()
            if session is None or synced.get(session.path) == (end := end_of_lines(session.path)):
                continue
            # The directories above the journal first, or its name could be lost with the power; then attachments,
            # before the rows that refer to them.
            once = [*list(session.path.parents)[:4], *session.attachments.glob("[!.]*")]
            for path in (*(each for each in once if each not in synced), session.attachments, session.path):
                synced[path] = end  # also if it fails: Linux reports a failure once
                _sync(path, warn)


def _sync(path: Path, warn: Callable[[str], None]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # there are no attachments, or the job was deleted, and its rows with it
        pass
    except OSError as error:
        warn(f"{path} could not be synced: {error.strerror}")
