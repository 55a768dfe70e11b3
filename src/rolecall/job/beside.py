"""The courier's process beside a role: started with it, and started again if it dies before its work is done."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.delivery.events import CourierEvent
from rolecall.errors import BackendError
from rolecall.store.codec import make_folder, open_own, read_end


class CourierProcess:
    """A process that runs `rolecall.delivery.process`, and the threads that listen to it.

    It gets one line of JSON on its standard input: the config with its secrets, which so are in no argument list and no
    environment. It writes events, a line of JSON each, to its standard output.

    Args:
        task: what it is to do, but for the log.
        backends: those that it delivers to.
        log: where it and its SDKs print.
        report: gets every event, from any thread.

    Raises:
        BackendError: it cannot be started.
    """

    def __init__(
        self, task: Mapping[str, Any], backends: Sequence[str], log: Path, report: Callable[[CourierEvent], None]
    ) -> None:
        self._task = json.dumps({**task, "backends": backends, "log": str(log)}).encode() + b"\n"
        self._backends = backends
        self._log = log
        self._report = report
        self._until = float("inf")
        self._ending = threading.Event()
        self._has_died = self._has_spoken = False
        try:
            make_folder(log.parent)
            self._process = self._start()
        except (OSError, TypeError, ValueError) as error:  # TypeError: an embedded Python has no executable
            advice = "use courier: thread, or set sys.executable to a Python that has rolecall"
            what = f"the courier's process cannot be started with {sys.executable!r}, logging to {log}: {error}"
            raise BackendError(f"{what}; {advice}") from error
        # It is blocked almost always, so it does not contend for the interpreter lock.
        self._thread = threading.Thread(target=self._watch, name="rolecall-courier", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is a process now."""
        return self._process.poll() is None

    def end(self, timeout: float) -> None:
        """The role has ended: wait until all is delivered or given up."""
        self._until = time.monotonic() + timeout
        self._ending.set()
        self._thread.join(timeout)

    def _start(self) -> subprocess.Popen[bytes]:
        with os.fdopen(open_own(self._log, create=True), "ab") as errors:
            # Without `preexec_fn` this is a vfork and an exec: no Python code runs in a copy of the role.
            process = subprocess.Popen(
                # -P: the working directory is not where the role imports from, so it must not be for its courier.
                [sys.executable, "-P", "-m", "rolecall.delivery.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert process.stdin is not None  # noqa: S101 - Popen was given pipes, which mypy cannot know
        with suppress(BrokenPipeError), process.stdin as pipe:  # it died: that is noticed below
            pipe.write(self._task)
        return process

    def _watch(self) -> None:
        """Pass on what it says, and start it again as long as its work is not done."""
        wait = timings.RESTART.initial
        while True:
            began = time.monotonic()
            status = self._listen()
            if not status or not self._goes_on(status):
                return
            if time.monotonic() - began >= timings.RESTART_RESET:
                wait = timings.RESTART.initial
            while not self._start_again(wait):
                if time.monotonic() >= self._until:
                    return
                wait = min(2 * wait, timings.RESTART.maximum)
            wait = min(2 * wait, timings.RESTART.maximum)

    def _listen(self) -> int:
        """Wait for its end; its status."""
        reader = threading.Thread(target=self._read, args=(self._process,), name="rolecall-events", daemon=True)
        reader.start()
        status = self._process.wait()
        # Not its end alone: what an SDK of the process forked may hold the pipe open for longer.
        reader.join(1.0)
        return status

    def _start_again(self, wait: float) -> bool:
        # A role that ends waits for its rows, so not for long then.
        if self._ending.wait(wait):
            time.sleep(timings.RESTART.maximum_draining)
        try:
            self._process = self._start()
        except OSError:  # no descriptors or no memory: later there may be
            return False
        return True

    def _goes_on(self, status: int) -> bool:
        """Whether to start it again after it ended with a status that is not 0; reports the first time."""
        if time.monotonic() >= self._until:
            return False
        what = f"the courier's process ended with status {status}"
        if status > 0 and not self._has_spoken:
            # It cannot even start here: for one, rolecall is only where `sys.path` of this process leads.
            for backend in self._backends:
                self._report(CourierEvent(backend, "refused", f"{what}: {self._last_words()} (see {self._log})"))
            return False
        if not self._has_died:
            for backend in self._backends:
                self._report(CourierEvent(backend, "died", f"{what} and is started again; see {self._log}"))
        self._has_died = True
        return True

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = read_end(self._log, 2000).decode("utf-8", "replace").split("\n")
            return next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return "its log cannot be read"

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - as above
        with process.stdout as events:
            for line in events:
                with suppress(ValueError, TypeError):
                    event = CourierEvent(**json.loads(line))
                    self._has_spoken = True
                    self._report(event)
