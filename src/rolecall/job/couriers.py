"""A role's side of its couriers: on a thread of its own, or in a process beside it (`rolecall.delivery.process`).

The role writes one line of JSON to the process's standard input: the config with its secrets, which so are in no
argument list and no environment. It reads events, a line of JSON each, from the process's standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rolecall.delivery.events import CourierEvent


class CourierThread:
    """Couriers on threads of the role: for notebooks, for tests, and for backends registered in code.

    Args:
        run: delivers, until all is done.
    """

    def __init__(self, run: Callable[[], bool]) -> None:
        self._thread = threading.Thread(target=run, name="rolecall", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Whether all is delivered, or given up, within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


class CourierProcess:
    """Couriers in a process of their own.

    Args:
        env: the job's config, as `MonitorConfig.to_env` writes it.
        writer: whose rows.
        backends: where they go.
        log: a file for what the process and its SDKs print.
        report: gets every event, on a thread of its own.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        writer: str,
        backends: Sequence[str],
        log: Path,
        report: Callable[[CourierEvent], None],
    ) -> None:
        self._report = report
        self._log = log
        self._backends = backends
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                # -P: the working directory is not where the role imports from, so it must not be for its courier.
                [sys.executable, "-P", "-m", "rolecall.delivery.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        task = {"env": env, "writer": writer, "backends": self._backends, "log": str(log)}
        # Popen was given pipes, so there are some; mypy cannot know.
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError), self._process.stdin as pipe:  # it died: the reader reports that
            pipe.write(json.dumps(task).encode() + b"\n")
        # Blocked in a read almost always, so it does not contend for the interpreter lock.
        self._reader = threading.Thread(target=self._read_events, name="rolecall-events", daemon=True)
        self._reader.start()

    def join(self, timeout: float) -> bool:
        """See `CourierThread.join`."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        return True

    def _read_events(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout as pipe:
            for line in pipe:
                with suppress(ValueError, TypeError):
                    self._report(CourierEvent(**json.loads(line)))
        if self._process.wait():
            message = f"the courier's process ended with status {self._process.returncode}; see {self._log}"
            for backend in self._backends:
                self._report(CourierEvent(backend, "refused", message))
