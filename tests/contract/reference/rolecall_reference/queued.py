"""`queue`: a tracker whose SDK takes rows at once, writes them later, and only then can say that it holds them.

It does not know which rows it holds, so rows that are sent twice are there twice.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolecall import Row, RunTicket, SharedRunSupport, Status, Unavailable, hookimpl
from rolecall_reference.files import FilesArgs, FilesBackend

if TYPE_CHECKING:
    from queue_sdk import Client


class QueueRun:
    """A client of the SDK, and which of its lines are which rows."""

    pause = 0.02
    """The seconds that the SDK waits before it writes."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        from queue_sdk import Client  # here, as processes that never log to it import this module, too

        self.id = ticket.backend_run_id or ticket.run_id
        self.url: str | None = None
        self._primary = ticket.primary
        self._client: Client | None = Client(folder / f"{self.id}.jsonl", self.pause)
        self._sent = 0
        self._queued: deque[tuple[int, str, int, int]] = deque()  # the number of the line; writer, session, seq
        self._confirmed: dict[tuple[str, int], int] = {}
        if ticket.primary:
            self.send({"name": ticket.name, "config": ticket.config, "status": "running"})

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            place = {"writer": row.writer, "session": row.session, "seq": row.seq}
            self.send({**place, "step": row.step, "time": row.time, "metrics": row.metrics, "text": row.text})
            self._queued.append((self._sent, row.writer, row.session, row.seq))

    def tend(self) -> None:
        """One look at what is written: `confirmed` is then asked for each writer."""
        written = self.client.written
        while self._queued and self._queued[0][0] <= written:
            _, writer, session, seq = self._queued.popleft()
            self._confirmed[writer, session] = seq

    def confirmed(self, writer: str, session: int) -> int:
        return self._confirmed.get((writer, session), 0)

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self.send({"config": config})

    def flush(self, timeout: float) -> None:
        if not self.client.wait(timeout):
            raise Unavailable(f"lines are still queued after {timeout} s")

    def close(self, status: Status) -> None:
        if self._client is None:
            return
        if self._primary:
            self.send({"status": status})
        self._client.finish()
        self._client = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise Unavailable("the run is closed")
        return self._client

    def send(self, line: Mapping[str, Any]) -> None:
        self.client.send(json.dumps(line))
        self._sent += 1


class QueueBackend(FilesBackend):
    """The hooks of `files`, as the SDK writes such files, but that runs are shared."""

    run: type[Any] = QueueRun

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        return SharedRunSupport(supported=True)


backend = QueueBackend()
