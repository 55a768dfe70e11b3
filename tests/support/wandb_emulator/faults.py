"""Ways in which the server misbehaves, as long as a test wants it to."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Fault", "Faults", "Operation"]

Operation = Literal["upsert", "stream", "upload", "query", "any"]


@dataclass(slots=True)
class Fault:
    """One way to misbehave.

    Attributes:
        operation: what it happens to; `query` is any GraphQL but an upsert.
        answer: the HTTP status to answer with, instead of doing what was asked.
        body: what that answer says, such as the page of a proxy; by default JSON with an error.
        drops: answer as if it had been done, and store nothing.
        delay: seconds to wait first.
        loses: do what was asked, and hang up without an answer.
        times: how often; for ever if `None`.
        client: only this client id's requests.
        folder: only files whose names in the run begin so.
    """

    operation: Operation
    answer: int | None = None
    body: str | None = None
    drops: bool = False
    delay: float = 0.0
    loses: bool = False
    times: int | None = None
    client: str | None = None
    folder: str = ""
    hits: list[float] = field(default_factory=list)

    def fits(self, operation: Operation, client: str | None, file: str) -> bool:
        """Whether it happens to this request."""
        left = self.times is None or len(self.hits) < self.times
        is_asked_for = self.operation in {operation, "any"} and self.client in {None, client}
        return left and is_asked_for and file.startswith(self.folder)


class Faults:
    """The faults of a server; the first that fits a request happens to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """From now on; `hits` has the times at which it happened."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """The server behaves again."""
        with self._lock:
            self._faults.clear()

    def take(self, operation: Operation, client: str | None, file: str = "") -> Fault | None:
        """What happens to this request."""
        with self._lock:
            found = next((fault for fault in self._faults if fault.fits(operation, client, file)), None)
            if found is not None:
                found.hits.append(time.time())
            return found
