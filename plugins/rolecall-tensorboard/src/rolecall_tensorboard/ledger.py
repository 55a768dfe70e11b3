"""Which rows an event file holds, kept in the file itself.

Beside the records that TensorBoard draws, a file holds records of the kind `log_message`, which TensorBoard
skips (2.20 and 2.21, both loaders, measured). Their text is JSON, version 1:

    {"rolecall": 1, "run_id": "k3x9"}                                 the file's owner, once, at its start
    {"rolecall": 1, "writer": "explorer/0", "session": 2, "seq": 41}  what follows

After a marker of the second kind each `summary` record is one row: that one, the next, and so on, until
another marker or a `session_log` (a restart). So a row and the knowledge that it is there are written in one
go, and no crash can part them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rolecall import Row
from rolecall_tensorboard.sdk import Sdk

__all__ = ["Ledger", "Marker", "Owner", "event_files", "owner", "read_ledger"]

_HEAD = struct.Struct("<QI")  # a record's length and its checksum
_TAIL = 4  # the checksum of its content

Model = TypeVar("Model", bound=BaseModel)


class Owner(BaseModel):
    """Whose file it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    run_id: str


class Marker(BaseModel):
    """Which row follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    writer: str
    session: int
    seq: int


class Ledger:
    """The rows that are held, and the marker that the next record would need."""

    def __init__(self) -> None:
        self.top_step: int | None = None
        self._held: dict[tuple[str, int], int] = {}
        self._next: tuple[str, int, int] | None = None

    def held(self, writer: str, session: int) -> int:
        """The highest `seq` up to which every row of this session is held."""
        return self._held.get((writer, session), 0)

    def has(self, row: Row) -> bool:
        """Whether the row is held for certain."""
        return row.seq <= self.held(row.writer, row.session)

    def expects(self, row: Row) -> bool:
        """Whether the row may follow without a marker."""
        return self._next == (row.writer, row.session, row.seq)

    def restarts(self, row: Row) -> bool:
        """Whether the row begins a session that goes back behind a step that an earlier one has logged."""
        new = (row.writer, row.session) not in self._held
        return new and self.top_step is not None and row.step <= self.top_step

    def mark(self, marker: Marker) -> None:
        """A marker was written or read."""
        self._next = (marker.writer, marker.session, marker.seq)

    def count(self, step: int) -> None:
        """A row was written or read."""
        if self._next is None:
            return
        writer, session, seq = self._next
        before = self._held.setdefault((writer, session), 0)
        self._held[writer, session] = seq if seq == before + 1 else before
        self._next = (writer, session, seq + 1)
        self.top_step = step if self.top_step is None else max(step, self.top_step)

    def interrupt(self) -> None:
        """Another file begins: its first row needs a marker."""
        self._next = None

    def copy(self) -> Ledger:
        """The ledger as it is now."""
        other = Ledger()
        other.top_step, other._held, other._next = self.top_step, dict(self._held), self._next
        return other


def event_files(directory: Path) -> list[Path]:
    """The event files in a directory, in the order in which TensorBoard reads them; none if there is none."""
    return sorted(directory.glob("*tfevents*")) if directory.is_dir() else []


def owner(path: Path, sdk: Sdk) -> str | None:
    """The `run_id` that an event file belongs to; `None` if rolecall did not write it."""
    for event in _events(path, sdk):
        if event.HasField("log_message"):
            told = _parse(Owner, event)
            return told.run_id if told else None
        if event.HasField("summary"):
            return None
    return None


def read_ledger(directory: Path, run_id: str, sdk: Sdk) -> Ledger:
    """What a run's event files in this directory hold, for certain; a torn end counts for nothing.

    Raises:
        OSError: a file cannot be read, or the file system does not hold what stands in it.
    """
    ledger = Ledger()
    for path in event_files(directory):
        if owner(path, sdk) == run_id:
            _sync(path)
            ledger.interrupt()
            _read_file(path, sdk, ledger)
    ledger.interrupt()
    return ledger


def _sync(path: Path) -> None:
    """A predecessor may have died between writing rows and syncing them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_file(path: Path, sdk: Sdk, ledger: Ledger) -> None:
    for event in _events(path, sdk):
        kind = event.WhichOneof("what")
        if kind == "summary":
            ledger.count(event.step)
        elif kind == "session_log":
            ledger.interrupt()
        elif kind == "log_message" and (marker := _parse(Marker, event)):
            ledger.mark(marker)


def _parse(model: type[Model], event: Any) -> Model | None:
    try:
        return model.model_validate_json(event.log_message.message)
    except ValidationError:
        return None


def _events(path: Path, sdk: Sdk) -> Iterator[Any]:
    """The whole records of a file; it ends before the first that is torn."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            left -= _HEAD.size + length + _TAIL
            if left < 0 or checksum != sdk.masked_crc32c(head[:8]):
                return
            yield sdk.Event.FromString(file.read(length))
            file.seek(_TAIL, os.SEEK_CUR)
