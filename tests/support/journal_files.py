"""Read and plant journals, and make a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rolecall.rows import Row
from rolecall.store.codec import Damage, encode
from rolecall.store.lease import Session
from rolecall.store.reader import Entry, JournalReader

__all__ = ["HEADER", "damages", "no_file_longer_than", "plant", "read_all", "rows"]

HEADER = {"rolecall": 2, "owner": {}, "session": 1, "writer": "explorer"}


def plant(path: Path, *lines: dict[str, Any] | bytes) -> Session:
    """A session that begins with `HEADER`; bytes are written as they are."""
    number = int(path.stem)
    session = Session(path, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else encode(line, session.seed) for line in (HEADER, *lines))
    )
    return session


def read_all(session: Session, limit: int = 1 << 20) -> list[Entry]:
    """Every entry of a session, read in pieces of about `limit` bytes."""
    reader = JournalReader("explorer", session)
    entries: list[Entry] = []
    offset = 0
    while found := list(reader.read(offset, limit)):
        entries += found
        offset = found[-1].offset
    return entries


def rows(session: Session) -> list[Row]:
    """Every row of a session."""
    return [entry.value for entry in read_all(session) if isinstance(entry.value, Row)]


def damages(session: Session) -> list[Damage]:
    """What is damaged in a session."""
    return [entry.value for entry in read_all(session) if isinstance(entry.value, Damage)]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As a full disk: the kernel cuts the write short that would go beyond, and refuses the next."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
