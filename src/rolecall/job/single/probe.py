"""System metrics of a job of one process: another process measures, and a thread of this one logs."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from rolecall import timings
from rolecall.states import Status
from rolecall.store.codec import make_folder, open_own
from rolecall.store.journal import JournalWriter

logger = logging.getLogger("rolecall")

AXIS: Final = "system"
"""Samples have steps of their own: 1, 2, 3, ..."""
_END: Final = 2.0
"""Seconds for the process to end, before it is killed."""


class SystemProbe:
    """Logs what `rolecall.delivery.node.probe` measures, under `system/`, until it is closed.

    psutil would be imported into the training process otherwise, and would hold its interpreter lock.

    Args:
        journal: the process's own.
        log: where the other process prints what is no sample.
        backends: those that get the samples; `None` for all.
    """

    def __init__(self, journal: JournalWriter, log: Path, backends: Sequence[str] | None) -> None:
        self._journal = journal
        self._log = log
        self._more = {"axis": AXIS, **({} if backends is None else {"backends": list(backends)})}
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="rolecall-system", daemon=True)
        self._thread.start()

    def close(self, status: Status, timeout: float) -> None:
        """Stop measuring; `status` is of no interest here."""
        self._closing.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._thread.join(min(timeout, 2 * _END))

    def _run(self) -> None:
        """Log samples, and start the process again if it dies."""
        wait = timings.RESTART.initial
        while not self._closing.is_set():
            try:
                self._process = self._start()
            except (OSError, TypeError, ValueError) as error:  # TypeError: an embedded Python has no executable
                self._warn(f"no process can be started with {sys.executable!r}: {error}")
            else:
                self._listen(self._process)
            self._closing.wait(wait)
            wait = min(2 * wait, timings.RESTART.maximum)

    def _start(self) -> subprocess.Popen[bytes]:
        make_folder(self._log.parent)
        directory = self._journal.session.path.parent
        with os.fdopen(open_own(self._log, create=True), "ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "rolecall.delivery.node.probe", str(os.getpid()), str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - Popen was given pipes, which mypy cannot know
        assert process.stdout is not None  # noqa: S101
        with process.stdin, process.stdout as samples:
            for line in samples:
                # A line that is torn, as the process was killed; or a full disk: the journal counts what it lacks.
                with suppress(OSError, ValueError):
                    sample = {f"{AXIS}/{key}": value for key, value in json.loads(line).items()}
                    self._journal.append(sample, more=self._more)
        try:
            status = process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status and not self._closing.is_set():
            self._warn(f"the process that measures ended with status {status} and is started again")

    def _warn(self, what: str) -> None:
        """Say so once."""
        if not self._has_failed:
            logger.warning("system metrics: %s; see %s", what, self._log)
        self._has_failed = True
