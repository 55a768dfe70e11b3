"""What happens to a delivery: couriers report it, and the role keeps and logs it."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from rolecall.config.commands import with_path
from rolecall.store.layout import LAUNCH

logger = logging.getLogger("rolecall")

First = Literal["opened", "prepared", "refused", "unavailable", "waiting", "died"]
Kind = Literal[First, "recovered", "rejected", "damaged", "warning", "progress", "ended"]


@dataclass(frozen=True, slots=True)
class CourierEvent:
    """Something that happened to one backend.

    `opened`, `prepared` and `refused` come once, after a `waiting` if an earlier courier still sends the rows;
    `died` once, if the courier's process had to be started again; `unavailable` and `recovered` come in turns, the
    latter once rows that waited are acknowledged; `rejected`, `damaged` and `warning` as they happen; `progress` before
    the run is opened, and once a second while rows are acknowledged; `ended` last.

    Attributes:
        backend: the backend.
        writer: whose rows; empty if it concerns no writer in particular.
        kind: what happened.
        message: in words.
        url: where you look at the run, with `opened`.
        is_known: whether another courier of the job has reported the same: a backend that is away is away for all of
            them, and one warning is enough.
        acknowledged: with `progress`, the number of the writer's last row that the backend holds; less the rows of
            earlier sessions that it lacks.
    """

    backend: str
    kind: Kind
    message: str = ""
    writer: str = ""
    url: str | None = None
    is_known: bool = False
    acknowledged: int = 0


_WORDS: Final = {  # of the others, the kind says all
    "refused": "refused: {}",
    "unavailable": "not available, rows wait in the journal: {}",
    "waiting": "waiting: {}",
    "died": "{}",
    "recovered": "available again",
    "rejected": "does not take some rows; they stay in the journal: {}",
    "damaged": "a part of the journal was left out: {}",
    "warning": "{}",
}
_LEVELS: Final = {
    **dict.fromkeys(["opened", "prepared", "ended"], logging.DEBUG),
    **dict.fromkeys(["waiting", "recovered"], logging.INFO),
}


class EventLog:
    """Takes the events of every backend, logs them, and keeps what is asked for later. Threads may share it."""

    def __init__(self, writer: str) -> None:
        self.urls: dict[str, str | None] = {}
        # The launcher speaks for the job, so a backend's name is enough there.
        self._prefix = "" if writer == LAUNCH else f"{writer}: "
        self._failure: str | None = None
        self._first: dict[str, CourierEvent] = {}
        self._held: dict[str, int] = {}
        self._change = threading.Condition()

    def add(self, event: CourierEvent) -> None:
        """Take one event, from any thread."""
        with self._change:
            if event.kind in get_args(First):
                self._first.setdefault(event.backend, event)
            if event.kind == "opened":
                self.urls[event.backend] = None if event.url is None else with_path(event.url)
            if event.kind == "progress":
                self._held[event.backend] = event.acknowledged
            if event.kind in ("refused", "unavailable", "rejected"):
                self._failure = f"{event.backend}: {event.message}"
            self._change.notify_all()
        if event.kind != "progress":
            text = _WORDS.get(event.kind, event.kind).format(event.message)
            level = logging.INFO if event.is_known else _LEVELS.get(event.kind, logging.WARNING)
            logger.log(level, "%s%s: %s", self._prefix, event.backend, text)

    def take_failure(self) -> str | None:
        """The last fault of a backend that nobody took yet."""
        failure, self._failure = self._failure, None
        return failure

    def wait_opened(self, backends: Sequence[str], timeout: float) -> list[CourierEvent]:
        """The first event of each backend that said anything within `timeout` seconds."""
        with self._change:
            self._change.wait_for(lambda: all(name in self._first for name in backends), timeout)
            return [self._first[name] for name in backends if name in self._first]

    def unheard(self, backends: Sequence[str]) -> list[str]:
        """Those that have not said anything yet."""
        return [name for name in backends if name not in self._first]

    def waiting(self, backend: str, seq: int) -> int | None:
        """How many rows a backend lacks, of which `seq` is the last; `None` if its courier never said."""
        held = self._held.get(backend)
        return None if held is None else max(0, seq - held)
