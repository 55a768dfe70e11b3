"""One run of one backend, with the journals of which it should hold the rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import BaseModel

from rolecall.backends.registry import Backend
from rolecall.delivery.keys import Keys
from rolecall.errors import RunGone
from rolecall.protocol import Point, RunTicket, SupportsReadback, SupportsScan
from rolecall.rows import Row
from rolecall.store.acks import Position, RunReference, acknowledged, read_reference, rejections, waiting
from rolecall.store.axes import AxisBook
from rolecall.store.codec import Damage, last_line
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import sessions
from rolecall.store.reader import read_sessions


@dataclass(frozen=True, kw_only=True)
class Target:
    """One run, and the writers whose rows it should hold.

    Attributes:
        layout: the job's files.
        backend: the backend.
        args: its arguments.
        secrets: every secret of the job, to be kept out of messages.
        shared: whether it is the run of all writers.
        writers: the writers.
        ticket_of: makes the ticket with which a writer's courier opens the run.
    """

    layout: Layout
    backend: Backend
    args: BaseModel
    secrets: tuple[str, ...]
    shared: bool
    writers: tuple[str, ...]
    ticket_of: Callable[[str], RunTicket]

    @property
    def owner(self) -> str:
        """Whose courier opens the run and ends it."""
        return LAUNCH if self.shared else self.writers[0]

    @property
    def carriers(self) -> tuple[str, ...]:
        """Every writer whose courier has the run open; the launcher first, as it opens the run that roles join."""
        return (LAUNCH, *self.writers) if self.shared else self.writers

    def reference(self) -> RunReference | None:
        """What the backend calls the run; `None` if it was never opened."""
        return read_reference(self.layout, self.backend.name, self.owner)

    def positions(self) -> dict[str, Position]:
        """Up to where the backend says that it holds each writer's rows."""
        return {writer: acknowledged(self.layout, self.backend.name, writer).position for writer in self.writers}

    def waiting(self) -> int:
        """How many rows were not delivered yet."""
        return sum(waiting(self.layout, self.backend.name, writer) for writer in self.writers)

    def cleaned(self) -> int:
        """How many rows `rolecall clean` removed from the journals."""
        found = (session for writer in self.writers for session in sessions(self.layout.journal(writer)))
        counts = ((last_line(session.path, session.seed) or {}).get("cleaned", 0) for session in found)
        return sum(count for count in counts if isinstance(count, int))

    def ticket(self, writer: str, *, repair: bool = False) -> RunTicket:
        """A ticket to read the run, or to put back what it lacks: it neither opens nor ends it."""
        return replace(self.ticket_of(writer), primary=False, repair=repair)

    def open_readback(self) -> SupportsReadback:
        """What the run holds.

        Raises:
            RunGone: it is gone, or nothing says which it was.
            Unavailable, BackendRefused: it cannot be read.
        """
        if self.reference() is None:
            file = self.layout.run(self.backend.name, self.owner)
            raise RunGone(f"{file} is missing, which said what {self.backend.name} calls the run")
        return self.backend.open_readback(self.ticket(self.owner), self.args)

    def held(self, readback: SupportsReadback) -> Iterator[tuple[str, Point]]:
        """Every point that the run holds, but for its axes."""
        axes = self._axes
        if isinstance(readback, SupportsScan):
            yield from (each for each in readback.scan() if each[0] not in axes)
            return
        keys = readback.keys()
        for key in dict.fromkeys(keys):
            if key not in axes:
                yield from ((key, point) for point in readback.points(key))

    def rows(self, writer: str, until: Position, damages: list[str] | None = None) -> Iterator[tuple[Row, bool]]:
        """Each row of a writer as it was logged, and whether the run must hold it.

        It must hold those before `until` that it has not rejected.

        Args:
            writer: the writer.
            until: what the backend acknowledged.
            damages: gets what is wrong with the journal, in words.
        """
        rejected = rejections(self.layout, self.backend.name, writer)
        for session, (value, offset) in read_sessions(self.layout, writer):
            if isinstance(value, Row):
                if value.backends is not None and self.backend.name not in value.backends:
                    continue
                is_acknowledged = (session, offset) <= (until.session, until.offset)
                yield value, is_acknowledged and (session, value.seq) not in rejected
            elif isinstance(value, Damage) and damages is not None:
                damages.append(str(value))

    def points(self, readback: SupportsReadback, row: Row) -> Iterator[tuple[str, Point]]:
        """The points that the run has of a row."""
        row = replace(row)  # as the caller's row stays what was logged
        self.keys(row.writer).rename(row)
        if self._axes:
            row = replace(row, metrics={key: value for key, value in row.metrics.items() if key not in self._axes})
        # Some trackers have no other form for NaN than the string, and so a text that spells it is a point there.
        if row.metrics or row.text:
            row = readback.expected(row)
            yield from ((key, Point(row.step, float(value), row.time)) for key, value in row.metrics.items())

    def keys(self, writer: str) -> Keys:
        """How the rows of a writer are in the run."""
        if (found := self._keys.get(writer)) is None:
            book = AxisBook(self.layout, writer, writes=False)
            found = self._keys[writer] = Keys(book, shared=self.shared, declares_axes=self.backend.declares_axes)
        return found

    @cached_property
    def _keys(self) -> dict[str, Keys]:
        return {}

    @cached_property
    def _axes(self) -> frozenset[str]:
        """The keys that are steps and no metrics: a backend may need them, or not, in each line that it holds."""
        found = (self.keys(writer) for writer in self.writers)
        return frozenset(axis for keys in found for axis in keys.bindings(0)[0].values())
