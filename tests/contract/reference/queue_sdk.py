"""An SDK as many trackers have one: it queues what it is given, and a thread of its own writes it later."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

BATCH = 64
POLL = 0.005


class Client:
    """Appends lines to a file, a batch at a time, with a pause before each: what is sent is not held at once."""

    def __init__(self, file: Path, pause: float) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("ab", buffering=0)  # a batch is one `write`, as other processes may write the file, too
        self._queue: deque[str] = deque()
        self._ends = threading.Event()
        self._pause = pause
        self.written = 0
        """How many lines are in the file."""
        self._thread = threading.Thread(target=self._write, name="queue-sdk", daemon=True)
        self._thread.start()

    def send(self, line: str) -> None:
        """Queue a line, and return at once."""
        self._queue.append(line)

    def wait(self, timeout: float) -> bool:
        """Whether the queue was empty within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._queue:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def finish(self) -> None:
        """Write what is queued, and end."""
        self._ends.set()
        self._thread.join()
        self._file.close()

    def _write(self) -> None:
        while not self._ends.wait(self._pause):
            self._write_batch()
        while self._queue:
            self._write_batch()

    def _write_batch(self) -> None:
        batch = [self._queue[index] for index in range(min(BATCH, len(self._queue)))]
        self._file.write("".join(f"{line}\n" for line in batch).encode())
        self.written += len(batch)
        # only now, so that an empty queue means that all is in the file
        for _ in batch:
            self._queue.popleft()
