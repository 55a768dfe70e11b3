"""One writer's rows on their way to a backend: read, handed over, and in the end acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rolecall.delivery.cursor import Tail
from rolecall.protocol import SupportsConfirmation
from rolecall.rows import Row
from rolecall.store.acks import Delivery
from rolecall.store.journal import Place

__all__ = ["Load"]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Rows were read up to a place: the backend holds them once it holds the last, `seq` of a session."""

    place: Place
    size: int
    rows: int
    session: int
    seq: int


@dataclass(slots=True)
class Load:
    """One writer's rows on their way: read from the tail, acknowledged in the delivery."""

    tail: Tail
    delivery: Delivery
    marks: deque[_Mark] = field(default_factory=deque)

    @property
    def pending(self) -> int:
        """How many rows were read and are not acknowledged."""
        return sum(mark.rows for mark in self.marks)

    @property
    def size(self) -> int:
        """How many bytes of the journal were read and are not acknowledged."""
        return sum(mark.size for mark in self.marks)

    def mark(self, rows: Sequence[Row], taken: Row | None) -> None:
        """So many rows were read; the backend took the last but for those that it refused."""
        session, seq = (taken.session, taken.seq) if taken is not None else (0, 0)
        place, before = self.tail.place, self._marked()
        size = place.offset - (before.offset if before.session == place.session else 0)
        self.marks.append(_Mark(place, size, len(rows), session, seq))

    def _marked(self) -> Place:
        return self.marks[-1].place if self.marks else self.delivery.done.place

    def rewind(self) -> None:
        """Read again what is not acknowledged."""
        self.tail.rewind(self.delivery.done.place)
        self.marks.clear()

    def acknowledge(self) -> None:
        """Write down that the backend holds all that was read."""
        self.delivery.acknowledge(self.tail.place, self.pending)
        self.marks.clear()

    def acknowledge_confirmed(self, run: SupportsConfirmation) -> None:
        """Write down that the backend holds what it confirmed by now."""
        rows, place = 0, None
        while self.marks and self._is_confirmed(run, self.marks[0]):
            mark = self.marks.popleft()
            rows, place = rows + mark.rows, mark.place
        if place is not None:
            self.delivery.acknowledge(place, rows)

    def _is_confirmed(self, run: SupportsConfirmation, mark: _Mark) -> bool:
        return not mark.seq or run.confirmed(self.tail.writer, mark.session) >= mark.seq
