"""Where a courier is in one writer's journal: reads on from there, and acknowledges what the backend holds."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from rolecall import timings
from rolecall.protocol import SupportsConfirmation
from rolecall.rows import Details, Row
from rolecall.states import State, Status
from rolecall.store.acks import Acknowledgements, Position, rows_behind
from rolecall.store.codec import Damage, Line, read_lines
from rolecall.store.details import config_now, details_now
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Owner, Session, newest, sessions
from rolecall.store.reader import End, Entry, JournalReader


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read at once.

    Attributes:
        rows: those that the backend is to take.
        damages: what is damaged or missing between them.
        is_last: whether there was no more, as far as one can tell without looking again.
    """

    rows: Sequence[Row]
    damages: Sequence[str]
    is_last: bool = field(default=True, compare=False)


NOTHING: Final = Batch((), ())
"""Of a look that found the journal as it was."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """Rows that were handed over: the backend holds them once it holds `last`. `own` are those that it was to get."""

    position: Position
    size: int
    rows: int
    own: int
    missing: int
    last: Row | None


class Cursor:
    """One writer's journal, as one courier reads it for one backend.

    A session is over when its owner ended it, died, or was followed by another. The cursor reads the sessions that
    there are when it is made, and those that continue one of them because its file was changed from outside. A session
    that a restarted role opens later has couriers, and so cursors, of its own; in a relay, the same cursor goes on with
    it (`goes_on`).

    Args:
        layout: where the journal is.
        writer: whose it is.
        acks: what the backend acknowledged so far.
        refresh: called before each look, to copy what is spooled on the node.
        patience: seconds without a look whether the writer lives, while its journal does not grow. A relay has many.

    Attributes:
        writer: as given.
        acks: as given.
        status: how the last session ended, once everything is read; `None` before.
    """

    def __init__(
        self,
        layout: Layout,
        writer: str,
        acks: Acknowledgements,
        refresh: Callable[[], None] = lambda: None,
        patience: float = 0.0,
    ) -> None:
        self.writer = writer
        self.acks = acks
        self.status: Status | None = None
        self._layout = layout
        self._journal = layout.journal(writer)
        self._record = layout.record
        self._refresh = refresh
        self._patience = patience
        # When it last looked whether the writer lives; and how long the file was when all of it was read.
        self._looked, self._size = float("-inf"), -1
        self._under_way: deque[_UnderWay] = deque()
        self._position = acks.done.position
        self._reader: JournalReader | None = None
        self._rescanned = -1
        self._missing = 0
        # Damage is reported once it is clear that it cost a row: a line that was torn and written again did not.
        self._suspects: list[str] = []
        # The session that was asked for last, as it is almost always the same.
        self._here: Session | None = None
        self._owners: dict[int, tuple[Owner | None, bool]] = {}
        found = newest(self._journal)
        self._last = found.number if found is not None else self._position.session

    @property
    def pending(self) -> int:
        """How many rows are handed over and not acknowledged."""
        return sum(batch.rows for batch in self._under_way)

    @property
    def is_behind(self) -> bool:
        """Whether there is anything to acknowledge, be it that rows are missing."""
        return bool(self._under_way)

    @property
    def size(self) -> int:
        """The same in bytes of the journal."""
        return sum(batch.size for batch in self._under_way)

    def read(self) -> Batch:
        """The next rows; none if there are no more for now, or (with `status` set) no more at all."""
        session = self._session(self._position.session)
        if self._patience and self.status is not None:
            return NOTHING  # see `goes_on`
        is_due, has_grown = self._look(session)
        if not (is_due or has_grown):
            return NOTHING
        # Before reading: rows that come later than this look are not missed.
        is_over = is_due and self._is_over(session)
        self._refresh()
        first, others = self._entries(session) if has_grown or is_over else (None, ())
        if first is None:
            return Batch((), self._leave(session) if is_over else ())
        return self._take(session, chain([first], others))

    def goes_on(self) -> bool:
        """Go on where there is more after the end of the last session. Asked once `status` is set.

        Returns:
            Whether there is: a session that was opened since, or rows of one whose owner was taken for dead.
        """
        found = newest(self._journal)
        if found is None or (found.number <= self._last and _size_of(found) == self._size):
            return False
        self._last = max(self._last, found.number)
        self.status, self._looked, self._size = None, float("-inf"), -1
        self._owners.clear()
        return True

    def mark(self, batch: Batch, last: Row | None, own: int | None = None) -> None:
        """What was read last was handed over.

        Args:
            batch: what was read.
            last: the last row that the backend took of it.
            own: how many of its rows the backend was to get; by default all.
        """
        before = self._under_way[-1].position if self._under_way else self.acks.done.position
        here = self._position
        if here == before and not self._missing:
            return
        size = here.offset - (before.offset if before.session == here.session else 0)
        rows = len(batch.rows)
        own = rows if own is None else own
        self._under_way.append(_UnderWay(here, max(0, size), rows, own, self._missing, last))
        self._missing = 0

    def rewind(self) -> None:
        """Read again what is not acknowledged."""
        self._position = self.acks.done.position
        self.status, self._reader = None, None
        self._looked, self._size = float("-inf"), -1
        self._rescanned, self._missing = -1, 0
        self._suspects.clear()
        self._owners.clear()
        self._under_way.clear()

    def acknowledge(self, run: SupportsConfirmation | None = None) -> None:
        """Write down that the backend holds all that was handed over; with a run, what that has confirmed by now."""
        while self._under_way:
            batch = self._under_way[0]
            last = batch.last
            if run is not None and last is not None and run.confirmed(self.writer, last.session) < last.seq:
                return
            self._under_way.popleft()
            self.acks.acknowledge(batch.position, batch.own, batch.missing)

    def acknowledged(self) -> int:
        """The number of the last row, less the rows that wait: below zero if many of earlier sessions do."""
        waiting, last = rows_behind(self._journal, self.acks.done.position, self._last)
        return last - waiting

    def details(self) -> Details:
        """What the writer's summary and tags are by now, and what it changed of its config."""
        return details_now(self._layout, self.writer)

    def config(self) -> Mapping[str, Any]:
        """The writer's config as it is by now."""
        return config_now(self._layout, self.writer)

    def touch(self) -> None:
        """Show other hosts that the writer is alive, if it is and runs on this one."""
        session = self._session(self._position.session)
        owner, is_here = self._owners.get(session.number, (None, False))
        with suppress(OSError):
            if self.status is None and owner is not None and is_here and owner.is_running():
                os.utime(session.path, follow_symlinks=False)

    def is_over(self) -> bool:
        """Whether the writer's last session has ended or its owner is gone, read or not."""
        last = self._session(self._last)
        return self._is_over(last) or last.status() is not None

    def is_gone(self) -> bool:
        """Whether the journal was deleted and nobody writes it: nothing is left to deliver."""
        last = self._session(self._last)
        # A launcher that ends brings its journal back, but not the job.
        path = self._record if self.writer == LAUNCH else last.path
        return not path.exists() and not self._is_live(last)

    def _look(self, session: Session) -> tuple[bool, bool]:
        """Whether it is time to look at the writer again, and whether its journal has changed since the last look."""
        if not self._patience:
            return True, True
        self._refresh()
        now, size, before = time.monotonic(), _size_of(session), self._size
        self._size = size
        if is_due := now - self._looked >= self._patience:
            self._looked = now
        return is_due, size != before

    def _entries(self, session: Session) -> tuple[Entry | None, Iterable[Entry]]:
        """What comes next, and what comes behind it: one by one, as thousands at once are work for the collector."""
        reader = self._reader
        if reader is None or reader.session != session:
            reader = self._reader = JournalReader(self.writer, session, self._position.seq)
        entries = reader.read(self._position.offset, timings.READ_BYTES)
        first = next(entries, None)
        if self._is_cut(session, first):
            # What is there now was written after the cut: read it from the start, without what was read before.
            self._rescanned = self._position.seq
            self._position = self._position._replace(offset=0)
            reader = self._reader = JournalReader(self.writer, session, 0)
            entries = reader.read(0, timings.READ_BYTES)
            first = next(entries, None)
        return first, entries

    def _is_cut(self, session: Session, entry: Entry | None) -> bool:
        """Whether the file was cut short since it was read up to this position, where this entry is what comes next."""
        _, offset, seq = self._position
        if not offset or self._rescanned == seq:
            return False
        first = entry.value if entry is not None else None
        if isinstance(first, Row | End) and first.seq <= seq + 1:
            return False
        if first is None:
            try:
                return session.path.stat().st_size < offset
            except OSError:
                return False
        # A gap or damage. If the row that was read last is still before this position, nothing was cut.
        start = max(0, offset - timings.READ_BYTES)
        before = [line for line in read_lines(session.path, start, offset - start, session.seed) if line.end <= offset]
        return not (before and isinstance(line := before[-1], Line) and line.value.get("seq") == seq)

    def _take(self, session: Session, entries: Iterable[Entry]) -> Batch:
        rows: list[Row] = []
        damages: list[str] = []
        seq = self._position.seq
        for entry in entries:
            match value := entry.value:
                case Row():
                    # Read before, from a file that was changed since: a copy in a session that continues, or what
                    # comes before a cut. The position tells, so a successor of this cursor skips it too.
                    if value.seq <= seq:
                        continue
                    if (missing := value.seq - seq - 1) or self._suspects:  # rarely, so most rows do without the call
                        damages += self._note_missing(missing)
                    seq = value.seq
                    rows.append(value)
                case Damage():
                    self._suspects.append(str(value))
                case End():
                    if value.status is State.CONTINUED:
                        continue  # the next session has the rest
                    damages += self._note_missing(value.seq - seq)
                    if session.number >= self._last:
                        self.status = ended_as(value.status)
        self._position = Position(session.number, entry.offset, seq)
        if not (is_last := entry.offset >= self._size >= 0):
            self._size = -1
        return Batch(rows, damages, is_last)

    def _note_missing(self, rows: int) -> list[str]:
        """Count rows that should have come before this one, and return the damage that cost them."""
        suspects, self._suspects = self._suspects, []
        self._missing += max(0, rows)
        # What a file lost that was changed under its writer is reported by the writer.
        return suspects if rows > 0 and self._rescanned < 0 else []

    def _leave(self, session: Session) -> Sequence[str]:
        """Go on with the next session, or see that there is none."""
        if self.status is not None:
            return ()
        # A session that continues this one may have come since.
        later = next((found for found in sessions(self._journal) if found.number > session.number), None)
        goes_on = later is not None and "continues" in later.header()
        if later is not None and (goes_on or later.number <= self._last):
            self._last = max(self._last, later.number)
            self._position = Position(later.number, 0, self._position.seq if goes_on else 0)
            self._rescanned, self._looked, self._size = -1, float("-inf"), -1
            if goes_on:
                self._suspects.clear()  # the writer reported what the changed file lost
            return ()
        status = session.status()
        self.status = ended_as(State.of(status, is_live=False))
        suspects, self._suspects = self._suspects, []
        if status == State.CONTINUED:
            self._missing += 1
            return (*suspects, f"{session.path}: it goes on in a file that is not here")
        return suspects

    def _session(self, number: int) -> Session:
        here = self._here  # once: another thread may ask for another one
        if here is None or here.number != number:
            here = self._here = Session(self._journal / f"{number}.jsonl", number)
        return here

    def _is_over(self, session: Session) -> bool:
        """Cheap enough for every look: it reads one `/proc` file where the owner is on this host."""
        if self.status is not None:
            return True
        last = newest(self._journal)
        is_followed = last is not None and last.number > session.number
        return is_followed or not self._is_live(session)

    def _is_live(self, session: Session) -> bool:
        if session.number not in self._owners:
            owner = session.owner() if session.is_live() else None
            self._owners[session.number] = owner, owner is not None and owner.is_here()
        owner, is_here = self._owners[session.number]
        if owner is None:
            return False
        # The end of a session is read with its rows, so a running owner is enough here.
        return owner.is_running() if is_here else session.is_live()


def _size_of(session: Session) -> int:
    """The bytes of its file; -1 if there is none."""
    try:
        # Opened, and not by its name: what a network filesystem says of a name may be seconds old (nfs(5)).
        file = os.open(session.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return os.fstat(file).st_size
    finally:
        os.close(file)


def ended_as(state: State) -> Status:
    """What a run says of a writer whose session is in this state."""
    return state.value if state in (State.FINISHED, State.FAILED) else "killed"  # type: ignore[return-value]
