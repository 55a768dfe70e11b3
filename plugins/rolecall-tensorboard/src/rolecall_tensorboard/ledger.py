"""Records in an event file which rows the file holds.

Beside the records that TensorBoard draws, a file holds records of the kind `log_message`, which TensorBoard
skips (2.20 and 2.21, both loaders, measured). Their content is JSON, version 1:

    {"rolecall": 1, "run_id": "k3x9"}                                 the file's owner, once, at its start
    {"rolecall": 1, "writer": "explorer/0", "session": 2, "seq": 41}  the row that follows

    {"rolecall": 1, "aside": "details"}                               what follows is no row, until another marker
    {"rolecall": 1, "writer": "explorer/0", "session": 2, "held": 40, "top_step": 90}  what a repaired file holds

After a marker of the second kind each `summary` record is one row: the one named, then the next `seq`, and so on,
until another marker, an aside or a `session_log` (a restart). A row and the record of it are one write, so a crash
cannot leave one without the other. Where a `seq` is skipped, TensorBoard has nothing for that row, such as a file. A
file that was repaired has no markers: of each session it says which rows it holds, from `first` (1 if it is not there)
to `held`, and what the highest step is.
"""

from __future__ import annotations

import os
import struct
from bisect import insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rolecall import Row
from rolecall_tensorboard.sdk import Sdk

__all__ = [
    "Aside",
    "Held",
    "Ledger",
    "Marker",
    "Owner",
    "event_files",
    "is_note",
    "owned_files",
    "owner",
    "read_ledger",
    "read_records",
    "sync",
]

_HEAD = struct.Struct("<QI")  # a record's length and the checksum of that
_TAIL = 4  # the checksum of the content
# Of a session. A row that comes again is one of the last 10,000, which rolecall sends before it asks for a `flush`.
_MOST_RANGES = 5_000

Model = TypeVar("Model", bound=BaseModel)


class Owner(BaseModel):
    """The run that a file belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    run_id: str


class Marker(BaseModel):
    """The row that follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    writer: str
    session: int
    seq: int


class Aside(BaseModel):
    """The records that follow are no rows, until there is a marker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    aside: str


class Held(BaseModel):
    """Rows of one session that a repaired file holds: all from one `seq` to another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rolecall: Literal[1] = 1
    writer: str
    session: int
    first: int = 1
    held: int
    top_step: int


class Ledger:
    """The rows that a directory's event files hold."""

    def __init__(self) -> None:
        self.top_step: int | None = None
        self._held: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self._next: tuple[str, int, int] | None = None

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """The rows of this session that the files hold, as ranges of `seq`, in order; of many, the last ones."""
        return list(self._held.get((writer, session), ()))

    def has(self, row: Row) -> bool:
        """Whether the files certainly hold the row."""
        # From the end, as it is almost always a row behind them all.
        for first, last in reversed(self._held.get((row.writer, row.session), ())):
            if row.seq >= first:
                return row.seq <= last
        return False

    def expects(self, row: Row) -> bool:
        """Whether the row may follow without a marker."""
        return self._next == (row.writer, row.session, row.seq)

    def restarts(self, row: Row) -> bool:
        """Whether the row begins a session at a step that an earlier session has reached."""
        new = (row.writer, row.session) not in self._held
        return new and self.top_step is not None and row.step <= self.top_step

    def mark(self, marker: Marker) -> None:
        """Take note of a marker that was written or read."""
        self._next = (marker.writer, marker.session, marker.seq)

    def count(self, step: int) -> None:
        """Take note of a row that was written or read."""
        if self._next is None:
            return
        writer, session, seq = self._next
        self._hold((writer, session), seq, seq)
        self._next = (writer, session, seq + 1)
        self.top_step = step if self.top_step is None else max(step, self.top_step)

    def restore(self, held: Held) -> None:
        """Take note of what a repaired file holds."""
        self._hold((held.writer, held.session), held.first, held.held)
        self.top_step = held.top_step if self.top_step is None else max(held.top_step, self.top_step)

    def notes(self) -> Iterator[Held]:
        """What a repaired file says that it holds."""
        for (writer, session), ranges in self._held.items():
            for first, last in ranges:
                yield Held(writer=writer, session=session, first=first, held=last, top_step=self.top_step or 0)

    def interrupt(self) -> None:
        """Take note that another file begins: its first row needs a marker."""
        self._next = None

    def copy(self) -> Ledger:
        """A copy of the current state."""
        other = Ledger()
        other.top_step, other._next = self.top_step, self._next
        other._held = {place: list(ranges) for place, ranges in self._held.items()}
        return other

    def _hold(self, place: tuple[str, int], first: int, last: int) -> None:
        ranges = self._held.setdefault(place, [])
        if ranges and ranges[-1][1] == first - 1:  # almost always
            ranges[-1] = (ranges[-1][0], last)
            return
        for other in [each for each in ranges if each[0] <= last + 1 and first <= each[1] + 1]:
            ranges.remove(other)
            first, last = min(first, other[0]), max(last, other[1])
        insort(ranges, (first, last))
        del ranges[:-_MOST_RANGES]


def event_files(directory: Path) -> list[Path]:
    """The event files in a directory, in the order in which TensorBoard reads them; empty if there are none."""
    return sorted(directory.glob("*tfevents*")) if directory.is_dir() else []


def owned_files(directory: Path, run_id: str, sdk: Sdk) -> list[Path]:
    """The event files in a directory that belong to a run."""
    return [path for path in event_files(directory) if owner(path, sdk) == run_id]


def owner(path: Path, sdk: Sdk) -> str | None:
    """The `run_id` that an event file belongs to; `None` if rolecall did not write the file."""
    for event in _events(path, sdk):
        if event.HasField("log_message"):
            found = _parse(Owner, event)
            return found.run_id if found else None
        if event.HasField("summary"):
            return None
    return None


def read_ledger(directory: Path, run_id: str, sdk: Sdk) -> Ledger:
    """Read which rows a run's event files in this directory certainly hold; half a record at the end does not count.

    Raises:
        OSError: a file cannot be read or synced.
    """
    ledger = Ledger()
    for path in owned_files(directory, run_id, sdk):
        # An earlier process may have been killed after it wrote rows and before it synced them.
        sync(path)
        ledger.interrupt()
        _read_file(path, sdk, ledger)
    ledger.interrupt()
    return ledger


def sync(path: Path) -> None:
    """Write to the disk what the kernel has of a file or a directory."""
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
        elif kind == "log_message" and _parse(Aside, event):
            ledger.interrupt()
        elif kind == "log_message" and (held := _parse(Held, event)):
            ledger.restore(held)


def is_note(event: Any, *models: type[BaseModel]) -> bool:
    """Whether a record is one of the ledger's, of one of these kinds."""
    return event.HasField("log_message") and any(_parse(model, event) for model in models)


def _parse(model: type[Model], event: Any) -> Model | None:
    try:
        return model.model_validate_json(event.log_message.message)
    except ValidationError:
        return None


def _events(path: Path, sdk: Sdk) -> Iterator[Any]:
    """The records of a file, up to the first that is incomplete or damaged."""
    with path.open("rb") as file:
        for event, _ in read_records(file, sdk):
            yield event


def read_records(file: BinaryIO, sdk: Sdk) -> Iterator[tuple[Any, bytes]]:
    """Each record from here on and its bytes, up to the first that is incomplete or damaged."""
    remaining = os.fstat(file.fileno()).st_size - file.tell()
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        remaining -= _HEAD.size + length + _TAIL
        if remaining < 0 or checksum != sdk.masked_crc32c(head[:8]):
            return
        # The checksum of the content takes 1 µs a byte in Python. TensorBoard's default loader does not look at it
        # either (2.21, measured).
        body = file.read(length + _TAIL)
        try:
            event = sdk.Event.FromString(body[:-_TAIL])
        except sdk.DecodeError:
            return
        yield event, head + body
