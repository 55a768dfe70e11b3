"""Delivers rows from journals to a backend's run. Nothing else in rolecall hands a row to a backend.

A courier holds one run of one backend and reads the journals of one or several writers. It reads a batch, maps its keys
(see `rolecall.delivery.keys`), hands it to `Run.log`, calls `Run.flush`, and then writes the acknowledgement. What
fails is read again from the last acknowledgement: the file is the queue, so memory stays flat however long a backend
is away.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Final, TypeVar

from pydantic import BaseModel

from rolecall import timings
from rolecall.backends.registry import Backend
from rolecall.config.redact import scrub_text, scrub_trace, secrets_of
from rolecall.delivery.cursor import NOTHING, Batch, Cursor
from rolecall.delivery.details import Told
from rolecall.delivery.events import CourierEvent, Kind
from rolecall.delivery.keys import Keys
from rolecall.delivery.pictures import Pictures
from rolecall.delivery.relay.roster import Roster
from rolecall.delivery.relay.steps import GrowingSteps
from rolecall.errors import BackendError, BackendRefused, Rejected, Unavailable
from rolecall.protocol import (
    Run,
    RunTicket,
    SupportsConfirmation,
    SupportsEndTime,
    SupportsMedia,
    SupportsProgress,
    SupportsTableMedia,
    SupportsTables,
    SupportsText,
)
from rolecall.rows import Change, Details, MediaKind, Row
from rolecall.states import Status
from rolecall.store.acks import Acknowledged, RunReference
from rolecall.store.axes import AxisBook
from rolecall.store.layout import LAUNCH, is_node

logger = logging.getLogger("rolecall.courier")
T = TypeVar("T")
_NO_TEXT: Final = "it holds no strings; they stay in the job's directory"
_MOST_REPORTS: Final = 100
"""Of one run: a wrecked journal may be damaged in millions of places."""


class _GivenUp(Exception):
    """The writers have ended, and so has the time to drain."""


class _TakenOver(Exception):
    """This courier was taken for dead, as it stood still for a minute: another one sends the rows now."""


@dataclass(eq=False, kw_only=True)
class Courier:
    """One run of one backend, and the journals whose rows go there.

    Attributes:
        backend: where rows go.
        args: the backend's arguments.
        shared: whether rows of other writers are in the run, too.
        ticket: makes the ticket anew for each try: the primary may have opened meanwhile.
        cursors: the journals; the launcher's first in a relay.
        book: the axes and configs of all writers.
        report: gets every event.
        prepares: whether a new run is the only one, for which no launcher prepared the backend.
        roster: in a relay, the writers of the job, who come and go.
        interval: seconds between looks at journals that had nothing new.
        last_sign: when it last showed that it does not hang, by the monotonic clock.
    """

    backend: Backend
    args: BaseModel
    shared: bool
    ticket: Callable[[], RunTicket]
    cursors: list[Cursor]
    book: AxisBook
    report: Callable[[CourierEvent], None]
    prepares: bool = False
    roster: Roster | None = None
    interval: float = timings.POLL_INTERVAL
    last_sign: float = field(default_factory=time.monotonic, init=False)
    # When to give up: set for good by `hurry`, and while the backend is away by the time to drain.
    _limit: float = field(default=float("inf"), init=False)
    _until: float = field(default=float("inf"), init=False)
    _keys: dict[str, Keys] = field(default_factory=dict, init=False)
    _declared: int = field(default=0, init=False)
    # Writers that said more of their run than was told: at first that is not known of any.
    _news: set[str] = field(default_factory=set, init=False)
    _details: dict[str, Details] = field(default_factory=dict, init=False)
    _reference: RunReference | None = field(default=None, init=False)
    _referred: set[str] = field(default_factory=set, init=False)
    # The cursor to begin the next look with: the one at which the last look had no room for more rows.
    _turn: int = field(default=0, init=False)
    _told: Told = field(default_factory=Told, init=False)
    _flushed: float = field(default_factory=time.monotonic, init=False)
    # What was acknowledged when the backend went away; `None` while it is there.
    _away: list[Acknowledged] | None = field(default=None, init=False)
    _backoff: float = field(default=timings.RETRY.initial, init=False)
    _reported: set[tuple[str, str]] = field(default_factory=set, init=False)
    _steps: GrowingSteps | None = field(default=None, init=False)
    # Sessions of which nobody has sent the rows that come next.
    _new: set[tuple[str, int]] = field(default_factory=set, init=False)
    _held: dict[str, tuple[Acknowledged, int]] = field(default_factory=dict, init=False)
    _pictures: Pictures = field(default_factory=Pictures, init=False)

    def __post_init__(self) -> None:
        self._news = {cursor.writer for cursor in self.cursors}
        if self.roster is not None and self.backend.needs_growing_steps:
            self._steps = self.roster.steps

    def run(
        self,
        roles: Iterable[None] = (),
        is_own: Callable[[], bool] = lambda: True,
        others: Callable[[], Iterable[Status]] = lambda: (),
    ) -> None:
        """Deliver until every writer has ended and all is acknowledged, or there is no time left; then end the run.

        Args:
            roles: what a primary waits for before it ends the run: an item for each look that found roles at work.
            is_own: whether the run is still this courier's to end.
            others: how other writers ended that have a part in the run's status.
        """
        closed: Status | None = None
        try:
            # Before anything can hang: what waits is known from then on, whatever becomes of the backend.
            self._report_progress()
            run = self._open()
            while not self._attempt(lambda: self._deliver_some(run)):
                pass
            for _ in roles:
                self._stand_by(run)
            # One writer that did not finish makes it the status of the run.
            found = (cursor for cursor in self.cursors if not is_node(cursor.writer))
            statuses: list[Status] = [cursor.status or "finished" for cursor in found]
            status: Status = next((each for each in (*statuses, *others()) if each != "finished"), "finished")
            if is_own():
                self._attempt(lambda: self._exchange(run))
                self._require_lease(*self.cursors)
                self._attempt(partial(self._end, run, status))
                closed = status
        except _TakenOver:
            logger.warning("%s: another courier has taken over; this one ends", self.backend.name)
        except _GivenUp:
            logger.warning("%s: gave up with rows undelivered", self.backend.name)
        except (BackendRefused, BackendError) as error:
            self._explain("refused", str(error))
        finally:
            self._pictures.clear()
            if self.roster is not None:
                self.roster.close()
            for cursor in self.cursors:
                cursor.acks.release(closed)
            self._report_progress()
            self._event("ended")

    def hurry(self, seconds: float) -> None:
        """Leave at most this much time from now on."""
        self._limit = self._until = min(self._until, time.monotonic() + seconds)

    def touch(self) -> bool:
        """Show other hosts that the courier is alive, and in a relay the roles, too. From any thread.

        Returns:
            Whether it is a relay that a role needs.
        """
        for cursor in tuple(self.cursors):
            cursor.acks.touch()
        return self.roster is not None and self.roster.touch()

    # ------------------------------------------------------------ one round

    def _open(self) -> Run:
        run, run_id = self._attempt(self._open_once)
        self._reference = RunReference(run.id, run.url, run_id)
        self._attempt(self._refer)
        self._event("opened", url=run.url)
        return run

    def _open_once(self) -> tuple[Run, str]:
        ticket = self.ticket()
        if self.prepares and ticket.backend_run_id is None:
            # Nobody has done that before. Not again later: what a server denies then may be an outage, and would end
            # the courier for good.
            self.backend.prepare(ticket, self.args)
        return self.backend.open_run(ticket, self.args), ticket.run_id

    def _refer(self) -> None:
        """Write down for each writer what the backend calls the run."""
        for cursor in self.cursors:
            if self._reference is not None and cursor.writer not in self._referred:
                cursor.acks.refer(self._reference)
                self._referred.add(cursor.writer)

    def _admit(self, *, now: bool = False) -> bool:
        """Take in the writers that came or came back since the last look of a relay; whether there are any."""
        if self.roster is None:
            return False
        found = self.roster.arrivals(now=now)
        for cursor in found:
            if cursor not in self.cursors:
                self.cursors.append(cursor)
            self._keys.pop(cursor.writer, None)  # a restarted role may have another prefix
            self._news.add(cursor.writer)
        return bool(found)

    def _end(self, run: Run, status: Status) -> None:
        # It may be minutes since the writers ended: a ticket of now says when.
        if isinstance(run, SupportsEndTime) and (ended := self.ticket().ended) is not None:
            run.end_at(ended)
        run.close(status)

    def _deliver_some(self, run: Run) -> bool:
        """One look at each journal; whether all writers have ended and all is acknowledged."""
        self.last_sign = time.monotonic()
        self._admit()
        self._refer()
        is_relieved = self.roster is not None and self.roster.is_relieved
        batches = [] if is_relieved else self._deliver_batches(run)
        is_idle = not any(batch.rows or batch.damages for batch in batches)
        has_ended = is_relieved or all(cursor.status is not None for cursor in self.cursors)
        is_behind = any(cursor.is_behind for cursor in self.cursors)
        self._acknowledge(run, is_idle=is_idle, has_ended=has_ended)
        if not any(cursor.is_behind for cursor in self.cursors):
            self._pictures.clear()
        if not has_ended and all(batch.is_last for batch in batches):
            self._wait(self.interval)
        is_done = is_idle and not is_behind and has_ended
        # A role may have come while the last rows were sent.
        return is_done and not self._admit(now=True)

    def _acknowledge(self, run: Run, *, is_idle: bool, has_ended: bool) -> None:
        """Have the backend confirm what it holds, and write that down, if it is time to."""
        pending = sum(cursor.pending for cursor in self.cursors)
        is_behind = any(cursor.is_behind for cursor in self.cursors)
        # Where rows are confirmed later, go on meanwhile, as long as more may come.
        confirming = run if isinstance(run, SupportsConfirmation) and not has_ended else None
        is_due = confirming is None and ((is_idle and is_behind) or pending >= timings.MAX_QUEUE_SIZE)
        if not is_due and time.monotonic() - self._flushed < timings.SCHEDULE_DELAY:
            return
        # First, so that the flush covers it: a change is acknowledged as a row is.
        self._tell(run)
        if confirming is not None:
            confirming.tend()
        elif pending:
            run.flush(timings.EXPORT_TIMEOUT)
        for cursor in self.cursors:
            cursor.acknowledge(confirming)
        self._report_progress()
        self._exchange(run)
        self._flushed = time.monotonic()

    def _deliver_batches(self, run: Run) -> list[Batch]:
        """Hand over what is next in each journal, as long as there is room for it."""
        is_confirming = isinstance(run, SupportsConfirmation)
        most = timings.MAX_QUEUE_BYTES if is_confirming else timings.MAX_QUEUE_SIZE

        def weigh(cursor: Cursor) -> int:
            return cursor.size if is_confirming else cursor.pending

        queued = sum(map(weigh, self.cursors))
        # By turns: what one writer has in store must not keep back the rows of others.
        turn, self._turn = self._turn % len(self.cursors), 0
        batches: list[Batch] = []
        for index in [*range(turn, len(self.cursors)), *range(turn)]:
            if queued >= most:
                self._turn = index
                break
            cursor = self.cursors[index]
            before = weigh(cursor)
            batches.append(self._deliver_batch(run, cursor))
            queued += weigh(cursor) - before
        return batches

    def _deliver_batch(self, run: Run, cursor: Cursor) -> Batch:
        """Hand over what is next in a journal."""
        batch = cursor.read()
        if batch is NOTHING:
            return batch
        for damage in batch.damages:
            self._report_once("damaged", damage, damage)
        if batch.rows:
            self._require_lease(cursor)
            self._begin_axes(run, cursor, batch.rows)
        taken: list[Row] = []
        if any(isinstance(row, Change) for row in batch.rows):
            self._news.add(cursor.writer)
        keys = self._keys_of(cursor.writer)
        own = list(filter(self._is_for, batch.rows))
        for is_rich, group in groupby(own, key=_is_rich):
            rows = list(group)
            for row in rows:
                keys.rename(row)
            # Tables and media one by one: what is refused is set aside before the backend may not be available.
            for some in [[row] for row in rows] if is_rich else [rows]:
                taken += self._hand_over(run, cursor, some)
        cursor.mark(batch, taken[-1] if taken else None, len(own))
        return batch

    def _keys_of(self, writer: str) -> Keys:
        """How the rows of a writer are written into the run."""
        if (found := self._keys.get(writer)) is None:
            found = self._keys[writer] = Keys(
                self.book if writer == self.book.writer else self.book.of(writer),
                shared=self.shared,
                declares_axes=self.backend.declares_axes or self._steps is not None,
                report=lambda text: self._report_once("warning", text, text),
            )
        return found

    def _begin_axes(self, run: Run, cursor: Cursor, rows: Sequence[Row]) -> None:
        """From the first row on that is on an axis with a name, the rows of a run carry their steps as metrics."""
        keys = self._keys_of(cursor.writer)
        if keys.carries_axes or not self.backend.declares_axes:
            return
        if any(row.axis is not None and self._is_for(row) for row in rows):
            # The backend may write rows in another way from here on, and not recognise those before if they came again.
            if cursor.is_behind:
                run.flush(timings.EXPORT_TIMEOUT)
                cursor.acknowledge(run if isinstance(run, SupportsConfirmation) else None)
            keys.carry_axes()

    def _is_for(self, row: Row) -> bool:
        """Whether the backend gets the row; what it does not get is acknowledged with what it does."""
        return not isinstance(row, Change) and (row.backends is None or self.backend.name in row.backends)

    def _require_lease(self, *cursors: Cursor) -> None:
        # What was sent from here on would be there twice. The first one's is that of the relay.
        if any(cursor.acks.is_taken_over() for cursor in dict.fromkeys([self.cursors[0], *cursors])):
            raise _TakenOver

    def _hand_over(self, run: Run, cursor: Cursor, rows: list[Row]) -> list[Row]:
        """Give rows to the backend, with their axes bound first. Returns those that it took, now or before.

        What it will never take is set aside.
        """
        fresh = rows
        if isinstance(run, SupportsProgress):
            fresh = self._not_held(run, rows)
        if not fresh:
            return rows
        self._declare(run)
        if self._steps is not None:
            fresh = [replace(row, step=self._steps.take()) for row in fresh]
        try:
            if _is_rich(fresh[0]):
                _log_rich(run, self._pictures.drawn(fresh[0], _in_cells(run)), self._pictures)
            else:
                run.log(fresh)
                if _leaves_text_out(run, fresh):
                    self._report_once("warning", _NO_TEXT, _NO_TEXT)
        except Rejected as rejected:
            cursor.acks.set_aside(rejected.rows, scrub_text(rejected.reason, secrets_of(self.args)))
            first = rejected.rows[0] if rejected.rows else None
            where = f" ({first.writer} step {first.step} and on)" if first else ""
            self._report_once("rejected", rejected.reason, f"{rejected}{where}")
            refused = {(row.session, row.seq) for row in rejected.rows}
            return [row for row in rows if (row.session, row.seq) not in refused]
        return rows

    def _not_held(self, run: SupportsProgress, rows: list[Row]) -> list[Row]:
        """Those rows that the backend lacks. It is only asked about rows that may have been sent before."""
        place = rows[0].writer, rows[0].session
        if place in self._new:
            return rows
        held = run.held(*place)
        ranges = [(1, held)] if isinstance(held, int) else held  # hooks, version 1
        if all(last <= rows[-1].seq for _, last in ranges):
            self._new.add(place)
        for first, last in ranges:
            rows = [row for row in rows if not first <= row.seq <= last]
        return rows

    def _exchange(self, run: Run) -> None:
        """Declare and merge what is not yet, of other writers too where they write the same run."""
        if self.shared and self.roster is None:  # nobody writes a relay's book beside it
            self.book.refresh()
        self._declare(run)
        self._tell(run)

    def _tell(self, run: Run) -> None:
        """Pass on the config, summary and tags as they are by now, if they changed."""
        now = self._details_now()
        if self.shared:
            is_primary = self.cursors[0].writer == LAUNCH
            now = replace(now, config=self.book.configs, tags=self.book.tags if is_primary else ())
        for text in self._told.tell(run, now):
            self._report_once("warning", text, scrub_text(text, secrets_of(self.args)))

    def _details_now(self) -> Details:
        """What the writers said of their run; in a shared one, config and tags go to all of its writers."""
        for cursor in self.cursors:
            if cursor.writer in self._news:
                self._details[cursor.writer] = self._read_details(cursor)
        self._news.clear()
        if len(self._details) == 1:
            return next(iter(self._details.values()))
        return Details(summary={key: value for each in self._details.values() for key, value in each.summary.items()})

    def _read_details(self, cursor: Cursor) -> Details:
        """What a writer said of its run, under the keys of the run."""
        own = cursor.details()
        # As keys of strings are shown, which no step is among.
        row = Row(writer=cursor.writer, session=0, seq=0, step=0, time=0.0, text=dict.fromkeys(own.summary, ""))
        self._keys_of(cursor.writer).rename(row)
        if self.shared and cursor.writer != LAUNCH:
            book = self.book if cursor.writer == self.book.writer else self.book.of(cursor.writer)
            book.publish_config(cursor.config())
            book.publish_tags(own.tags)
        return replace(own, summary=dict(zip(row.text, own.summary.values(), strict=True)))

    def _declare(self, run: Run) -> None:
        bindings, known = self._keys_of(self.cursors[0].writer).bindings(self._declared)
        if bindings and self.backend.declares_axes:
            self.backend.declare_axes(run, bindings)
        self._declared = known

    def _stand_by(self, run: Run) -> None:
        """Wait a moment with all rows delivered, and do for other writers what only an open run can do."""
        self._wait(timings.STATUS_INTERVAL)
        if time.monotonic() - self._flushed < timings.SCHEDULE_DELAY:
            return
        self._flushed = time.monotonic()
        try:
            if isinstance(run, SupportsConfirmation):
                run.tend()
            self._exchange(run)
        except Exception as error:  # noqa: BLE001 - no row is at stake, and it is tried again in a second
            self._note_trouble(error)
        else:
            self._note_recovery()

    # -------------------------------------------------------------- trouble

    def _attempt(self, action: Callable[[], T]) -> T:
        """Do it until it succeeds; whatever a plugin lets through counts as `Unavailable`."""
        while True:
            try:
                result = action()
            except (_GivenUp, _TakenOver, BackendRefused, BackendError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a plugin lets through, its rows are sent again
                self._note_trouble(error)
                # Jitter, so that many roles do not come back at once; the global generator is the job's.
                wait = self._backoff * random.Random().uniform(0.5, 1.0)
                self._backoff = min(self._backoff * 2, timings.RETRY.maximum)
                self._pause(wait)
            else:
                self._note_recovery()
                return result

    def _note_trouble(self, error: Exception) -> None:
        is_expected = isinstance(error, Unavailable)
        secrets = secrets_of(self.args)
        text = scrub_text(str(error), secrets) if is_expected else scrub_trace(error, secrets)
        # This is the courier's own log. The role gets an event.
        logger.log(logging.INFO if self._away is None else logging.DEBUG, "%s: %s", self.backend.name, text)
        for cursor in self.cursors:
            cursor.rewind()
        self._new.clear()
        self._told = Told()  # what was told and not flushed may be lost as well
        self._news = {cursor.writer for cursor in self.cursors}
        if self._away is None:
            self._explain("unavailable", str(error) if is_expected else f"{type(error).__name__}: {error}")
            self._away = self._acknowledged()

    def _note_recovery(self) -> None:
        """The backend did what it was asked to: it is there again, unless it has only taken rows so far."""
        if self._away is None:
            return
        # A proxy may take rows and drop them, for ever. Only what is acknowledged since shows that the backend is back.
        if any(cursor.is_behind for cursor in self.cursors) and self._acknowledged() == self._away:
            return
        self._explain("recovered")
        self._away = None
        self._until, self._backoff = self._limit, timings.RETRY.initial

    def _acknowledged(self) -> list[Acknowledged]:
        return [cursor.acks.done for cursor in self.cursors]

    def _pause(self, seconds: float) -> None:
        """Back off, but notice that the writers have ended: then the time to drain begins."""
        end = time.monotonic() + seconds
        is_over = False
        while (left := end - time.monotonic()) > 0:
            with suppress(OSError):  # a directory that does not answer says nothing about the writers
                self._admit()
                is_over = all(cursor.is_over() for cursor in self.cursors)
                if all(cursor.is_gone() for cursor in self.cursors):
                    raise _GivenUp
            if is_over:
                self._until = min(self._until, time.monotonic() + timings.DRAIN_TIMEOUT)
                end = min(end, time.monotonic() + timings.RETRY.maximum_draining)
            self._wait(min(left, 0.5))

    def _wait(self, seconds: float) -> None:
        """Wait a moment.

        Raises:
            _GivenUp: there is no time left.
        """
        self.last_sign = time.monotonic()
        time.sleep(seconds)
        if time.monotonic() >= self._until:
            raise _GivenUp

    # ------------------------------------------------------------- reporting

    def _event(self, kind: Kind, message: str = "", url: str | None = None) -> None:
        self.report(CourierEvent(self.backend.name, kind, message, self.cursors[0].writer, url))

    def _report_once(self, kind: Kind, reason: str, message: str) -> None:
        """The first of its reason; the others are in the file of the acknowledgements."""
        if (kind, reason) not in self._reported and len(self._reported) < _MOST_REPORTS:
            self._reported.add((kind, reason))
            is_last = len(self._reported) == _MOST_REPORTS
            self._event(kind, f"{message}; from now on, nothing like this is reported" if is_last else message)

    def _report_progress(self) -> None:
        # Nobody listens to a relay for the sake of one role.
        for cursor in self.cursors if self.roster is None else ():
            with suppress(OSError):  # a directory that does not answer: what was said before still holds
                done, writer = cursor.acks.done, cursor.writer
                if (before := self._held.get(writer)) is not None and before[0] == done:
                    continue
                held = cursor.acknowledged()
                self._held[writer] = done, held
                if before is None or before[1] != held:
                    self.report(CourierEvent(self.backend.name, "progress", writer=writer, acknowledged=held))

    def _explain(self, kind: Kind, why: str = "") -> None:
        """Report what became of the backend, and leave for people who look why rows wait."""
        for cursor in self.cursors:
            cursor.acks.explain(scrub_text(why, secrets_of(self.args)) if why else None)
        self._event(kind, why)


def _in_cells(run: Run) -> frozenset[MediaKind]:
    """The media that cells of the run's tables may be."""
    return run.table_media_kinds if isinstance(run, SupportsTableMedia) else frozenset()


def _leaves_text_out(run: Run, rows: Iterable[Row]) -> bool:
    return isinstance(run, SupportsText) and not run.holds_text and any(row.text for row in rows)


def _is_rich(row: Row) -> bool:
    return row.table is not None or bool(row.media)


def _log_rich(run: Run, row: Row, pictures: Pictures) -> None:
    """Hand over a table or media, if the backend holds such."""
    if row.table is not None:
        if not isinstance(run, SupportsTables):
            raise Rejected([row], "it holds no tables; they stay in the journal")
        run.log_table(row)
        return
    kinds = run.media_kinds if isinstance(run, SupportsMedia) else frozenset()
    if row.media[0].kind == "markdown" and "markdown" not in kinds and "html" in kinds:
        row = pictures.page(row)
    kind = row.media[0].kind
    if not isinstance(run, SupportsMedia) or kind not in kinds:
        raise Rejected([row], f"it holds nothing of the kind {kind!r}; that stays in the job's directory")
    run.log_media(row)
