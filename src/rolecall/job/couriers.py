"""A role's side of its couriers: on threads of its own, or in a process beside it (`rolecall.delivery.process`).

The role writes one line of JSON to the process's standard input (the config with its secrets, which so stand in no
argument list and no environment), and reads the news, a line of JSON each, from its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan
from rolecall.delivery.courier import News
from rolecall.delivery.group import Crew
from rolecall.store.layout import Layout

__all__ = ["Carrier", "ProcessCarrier", "ThreadCarrier"]


_PIPED = "the courier's process is started with pipes"


class Carrier(Protocol):
    """Couriers of one writer, wherever they stand."""

    def join(self, timeout: float) -> bool:
        """Whether all is carried, or given up, within so many seconds."""


class ThreadCarrier:
    """Couriers on threads of the role: for notebooks, for tests, and for backends registered in code."""

    def __init__(self, crew: Crew) -> None:
        self._thread = threading.Thread(target=crew.run, name="rolecall", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """See `Carrier`."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


class ProcessCarrier:
    """Couriers in a process of their own."""

    def __init__(
        self,
        config: MonitorConfig,
        writer: str,
        plans: Sequence[BackendPlan],
        tell: Callable[[News], None],
    ) -> None:
        self._tell = tell
        self._log = Layout(config.monitor_dir).courier_log(writer)
        self._backends = [plan.backend for plan in plans]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            # -P: the working directory is not where a role imports from, so its courier must not either.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rolecall.delivery.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._instruct(_errand(config, writer, plans))
        # Blocked in a read almost always, so it does not contend for the interpreter lock.
        self._reader = threading.Thread(target=self._read_news, name="rolecall-news", daemon=True)
        self._reader.start()

    def join(self, timeout: float) -> bool:
        """See `Carrier`."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        return True

    def _instruct(self, errand: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise AssertionError(_PIPED)
        with self._process.stdin as pipe:
            pipe.write(json.dumps(errand).encode() + b"\n")

    def _read_news(self) -> None:
        if self._process.stdout is None:
            raise AssertionError(_PIPED)
        with self._process.stdout as pipe:
            for line in pipe:
                with suppress(ValueError, TypeError):
                    self._tell(News(**json.loads(line)))
        if self._process.wait():
            self._tell_death()

    def _tell_death(self) -> None:
        ended = f"the courier's process ended with status {self._process.returncode}; see {self._log}"
        for backend in self._backends:
            self._tell(News(backend, "refused", ended))


def _errand(config: MonitorConfig, writer: str, plans: Sequence[BackendPlan]) -> dict[str, Any]:
    return {
        "env": config.to_env(),
        "writer": writer,
        "backends": [plan.backend for plan in plans],
        "log": str(Layout(config.monitor_dir).courier_log(writer)),
    }
