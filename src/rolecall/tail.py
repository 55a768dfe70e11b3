"""Reads one writer's rows on from where a backend acknowledged them, session after session."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from rolecall.backend import Status
from rolecall.claims import Owner, Session, newest, sessions
from rolecall.frames import Damage
from rolecall.journal import End, Entry, Place, read_journal

__all__ = ["Mirror", "Tail"]


class Mirror:
    """Copies a journal that is spooled on the node to its place in `monitor_dir`, bytes as they are."""

    def __init__(self, spool: Path, target: Path) -> None:
        self._spool = spool
        self._target = target
        self._lock = threading.Lock()

    def copy(self) -> None:
        """Append what is not there yet; tables first, since the rows name them."""
        with self._lock, open(self._spool, "rb") as source:
            source.seek(self._target.stat().st_size)
            while chunk := source.read(1 << 20):
                self._copy_tables()
                with open(self._target, "ab", buffering=0) as target:
                    target.write(chunk)

    def _copy_tables(self) -> None:
        folder = self._spool.with_suffix(".tables")
        names = os.listdir(folder) if folder.is_dir() else []
        there = self._target.with_suffix(".tables")
        for name in names:
            if not (there / name).exists():
                there.mkdir(exist_ok=True)
                shutil.copyfile(folder / name, there / name)


class Tail:
    """One writer's entries behind an acknowledged place.

    A session is over when its owner ended it, died, or was followed by another; the last session's end is the
    writer's end. `status` tells it once the tail has read everything.
    """

    def __init__(self, writer: str, journal: Path, place: Place, mirror: Mirror | None = None) -> None:
        self.writer = writer
        self.status: Status | None = None
        self._journal = journal
        self._place = place
        self._mirror = mirror
        self._owners: dict[int, Owner | None] = {}

    @property
    def place(self) -> Place:
        """Behind the last entry that was read."""
        return self._place

    def rewind(self, place: Place) -> None:
        """Read again from here."""
        self._place = place
        self.status = None

    def over(self) -> bool:
        """Whether the writer's last session has ended or its owner is gone, read or not."""
        last = newest(self._journal)
        return last is not None and not last.is_live()

    def read(self) -> list[Entry]:
        """The next entries; empty if there are none for now, or (with `status` set) no more."""
        current = Session(self._journal / f"{self._place.session}.jsonl", self._place.session)
        over = self._is_over(current)
        if self._mirror is not None:
            self._mirror.copy()
        entries = list(read_journal(self.writer, current, self._place.offset))
        if entries:
            self._place = Place(current.number, entries[-1].offset)
            self._end_of(entries)
        elif over:
            self._leave(current)
        return entries

    def _end_of(self, entries: list[Entry]) -> None:
        last = entries[-1].value
        if isinstance(last, End) and not self._later(self._place.session):
            self.status = last.status

    def _leave(self, session: Session) -> None:
        """Go on with the next session, or see that there is none."""
        if later := self._later(session.number):
            self._place = Place(later[0].number, 0)
        elif self.status is None:
            self.status = "killed"

    def _later(self, number: int) -> list[Session]:
        return [session for session in sessions(self._journal) if session.number > number]

    def _is_over(self, session: Session) -> bool:
        """Cheap enough for every look: one `/proc` file where the owner is on this host."""
        return self.status is not None or bool(self._later(session.number)) or not self._is_live(session)

    def _is_live(self, session: Session) -> bool:
        if session.number not in self._owners:
            self._owners[session.number] = session.owner() if session.is_live() else None
        owner = self._owners[session.number]
        if owner is not None and not owner.is_here():
            return session.is_live()
        return owner is not None and owner.is_running()


def damages(entries: list[Entry]) -> list[Damage]:
    """The damaged lines among entries."""
    return [entry.value for entry in entries if isinstance(entry.value, Damage)]
