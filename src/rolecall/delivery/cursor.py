"""Reads one writer's rows on from where a backend acknowledged them, session after session."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from rolecall.delivery.keys import AS_IT_IS, Placement
from rolecall.states import Status
from rolecall.store.codec import Damage, whole_lines
from rolecall.store.files import put_whole
from rolecall.store.journal import End, Entry, JournalReader, Place
from rolecall.store.lease import Owner, Session, newest, sessions

__all__ = ["Mirror", "Tail"]

BATCH = 1 << 19
"""Bytes of a journal that a backend is handed at once: between two batches a courier gives a sign of life, and looks at
how much time is left."""


class Mirror:
    """Copies a journal that is spooled on the node to its place in `monitor_dir`, bytes as they are.

    A role may have couriers both in a process and on a thread, each with a mirror: they write the same bytes to
    the same places.
    """

    def __init__(self, spool: Path, target: Path) -> None:
        self._spool = spool
        self._target = target
        self._lock = threading.Lock()

    @property
    def spool(self) -> Path:
        """Where rows are written."""
        return self._spool

    def copy(self) -> None:
        """Append the lines that are not there yet; tables first, since the rows name them."""
        with self._lock:
            offset = self._target.stat().st_size
            while chunk := whole_lines(self._spool, offset):
                self._copy_tables()
                offset += self._put(chunk, offset)

    def _put(self, chunk: bytes, offset: int) -> int:
        descriptor = os.open(self._target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return os.pwrite(descriptor, chunk, offset)
        finally:
            os.close(descriptor)

    def _copy_tables(self) -> None:
        folder = self._spool.with_suffix(".tables")
        names = os.listdir(folder) if folder.is_dir() else []
        there = self._target.with_suffix(".tables")
        for name in names:
            if not name.startswith(".") and not (there / name).exists():
                there.mkdir(exist_ok=True)
                put_whole(there / name, (folder / name).read_bytes())


class Tail:
    """One writer's entries behind an acknowledged place.

    A session is over when its owner ended it, died, or was followed by another. The tail reads the sessions that
    there are when it is made; `status` tells how the last of them ended, once everything is read. A session that
    is opened later has couriers of its own, and so a tail.
    """

    def __init__(self, writer: str, journal: Path, place: Place, mirror: Mirror | None = None) -> None:
        self.writer = writer
        self.status: Status | None = None
        self._journal = journal
        self._place = place
        self._mirror = mirror
        self._owners: dict[int, Owner | None] = {}
        self._reader: JournalReader | None = None
        found = newest(journal)
        self._last = found.number if found is not None else place.session

    @property
    def place(self) -> Place:
        """Behind the last entry that was read."""
        return self._place

    def rewind(self, place: Place) -> None:
        """Read again from here."""
        self._place = place
        self.status = None
        self._owners.clear()

    def over(self) -> bool:
        """Whether the writer's last session has ended or its owner is gone, read or not."""
        last = self._session(self._last)
        return self._is_over(last) or last.status() is not None

    def is_gone(self) -> bool:
        """Whether the journal was deleted: nothing is left to carry, nor any word of the writer's end to come."""
        return not self._session(self._last).path.exists()

    def read(self, placement: Placement = AS_IT_IS) -> list[Entry]:
        """The next entries; empty if there are none for now, or (with `status` set) no more."""
        current = self._session(self._place.session)
        over = self._is_over(current)
        if self._mirror is not None:
            self._mirror.copy()
        entries = list(self._reader_of(current, placement).read(self._place.offset, BATCH))
        if entries:
            self._place = Place(current.number, entries[-1].offset)
            self._end_of(entries)
        elif over:
            self._leave(current)
        return entries

    def _end_of(self, entries: list[Entry]) -> None:
        last = entries[-1].value
        if isinstance(last, End) and self._place.session >= self._last:
            self.status = last.status

    def _leave(self, session: Session) -> None:
        """Go on with the next session, or see that there is none."""
        if self.status is not None:
            return
        later = [one.number for one in sessions(self._journal) if session.number < one.number <= self._last]
        if later:
            self._place = Place(later[0], 0)
        else:
            self.status = ended_as(session)

    def _reader_of(self, session: Session, placement: Placement) -> JournalReader:
        """The same as before, as long as it may be: it remembers rows that others name."""
        reader = self._reader
        if reader is None or (reader.session, reader.placement) != (session, placement):
            reader = self._reader = JournalReader(self.writer, session, placement)
        return reader

    def _session(self, number: int) -> Session:
        return Session(self._journal / f"{number}.jsonl", number)

    def _is_over(self, session: Session) -> bool:
        """Cheap enough for every look: one `/proc` file where the owner is on this host."""
        last = newest(self._journal)
        followed = last is not None and last.number > session.number
        return self.status is not None or followed or self.is_gone() or not self._is_live(session)

    def _is_live(self, session: Session) -> bool:
        if session.number not in self._owners:
            self._owners[session.number] = session.owner() if session.is_live() else None
        owner = self._owners[session.number]
        if owner is not None and not owner.is_here():
            return session.is_live()
        return owner is not None and owner.is_running()


def ended_as(session: Session) -> Status:
    """How a session that is over ended: as its owner said, or without a word."""
    status = session.status()
    return status if status in {"finished", "failed"} else "killed"  # type: ignore[return-value]


def damages(entries: list[Entry]) -> list[Damage]:
    """The damaged lines among entries."""
    return [entry.value for entry in entries if isinstance(entry.value, Damage)]
