"""Delivers rows from journals to a backend's run. Nothing else in rolecall hands a row to a backend.

A courier holds one run of one backend and reads the journals of one or several writers. It reads a batch, maps its keys
(see `rolecall.delivery.keys`), hands it to `Run.log`, calls `Run.flush`, and then writes the acknowledgement. What
fails is read again from the last acknowledgement: the file is the queue, so memory stays flat however long a backend
is away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import TypeVar

from pydantic import BaseModel

from rolecall.backends.registry import Backend
from rolecall.config.redact import scrub_text, scrub_trace, secrets_of
from rolecall.delivery.cursor import Cursor
from rolecall.delivery.events import CourierEvent, Kind
from rolecall.delivery.keys import UNCHANGED, KeyMapping
from rolecall.delivery.retry import waits
from rolecall.errors import BackendError, BackendRefused, Rejected, Unavailable
from rolecall.protocol import Run, RunTicket, SupportsConfig, SupportsConfirmation, SupportsProgress, SupportsTables
from rolecall.rows import Row
from rolecall.states import Status
from rolecall.store.acks import RunReference
from rolecall.store.axes import AxisBook
from rolecall.timings import EXPORT_TIMEOUT, MAX_QUEUE_BYTES, MAX_QUEUE_SIZE, POLL_INTERVAL, RETRY, SCHEDULE_DELAY

logger = logging.getLogger("rolecall.courier")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where rows go. The ticket is made anew for each try: the primary may have opened meanwhile."""

    backend: Backend
    args: BaseModel
    ticket: Callable[[], RunTicket]


class _GivenUp(Exception):
    """The writers have ended, and so has the time to drain."""


class Courier:
    """One run of one backend, and the journals whose rows go there.

    Args:
        destination: where rows go.
        cursors: the journals.
        book: the axes and configs of all writers.
        tell: gets every event.
        drain: how many seconds to go on after the writers have ended, while the backend takes nothing.

    Attributes:
        last_sign: when it last showed that it does not hang, by the monotonic clock.
    """

    def __init__(
        self,
        destination: Destination,
        cursors: Sequence[Cursor],
        book: AxisBook,
        tell: Callable[[CourierEvent], None],
        drain: float,
    ) -> None:
        self.last_sign = time.monotonic()
        self._backend = destination.backend
        self._destination = destination
        self._secrets = secrets_of(destination.args)
        self._cursors = cursors
        self._book = book
        self._tell = tell
        self._drain = drain
        self._limit = float("inf")
        self._until = float("inf")
        self._shared = False
        self._declared = 0
        self._merged = 0
        self._flushed = time.monotonic()
        self._away = False
        self._closed: Status | None = None
        self._told: set[tuple[str, str]] = set()
        self._lags: dict[str, tuple[int, int]] = {}

    def run(self, may_close: Callable[[Callable[[float], None]], bool] | None = None) -> None:
        """Deliver until every writer has ended and all is acknowledged, or there is no time left.

        Args:
            may_close: called at the end with a way to wait for some seconds, with the run still open: a primary waits
                there for the roles, and says whether the run is still its own to end.
        """
        try:
            # Before anything can hang: what waits is known from then on, whatever becomes of the backend.
            self._tell_progress()
            run = self._open()
            while not self._attempt(lambda: self._deliver_some(run)):
                pass
            status = self._status()
            if may_close is None or may_close(partial(self.stand_by, run)):
                self._attempt(lambda: self._exchange(run))
                self._attempt(lambda: run.close(status))
                self._closed = status
        except _GivenUp:
            logger.warning("%s: gave up with rows undelivered", self._backend.name)
        except (BackendRefused, BackendError) as error:
            self._explain(str(error))
            self._event("refused", str(error))
        finally:
            for cursor in self._cursors:
                cursor.acks.release(self._closed)
                self._tell_lag("ended", cursor.writer, self._lag(cursor))

    def hurry(self, seconds: float) -> None:
        """Leave at most this much time from now on."""
        self._limit = self._until = min(self._until, time.monotonic() + seconds)

    def wait(self, seconds: float) -> None:
        """Wait a moment.

        Raises:
            _GivenUp: there is no time left.
        """
        self.last_sign = time.monotonic()
        time.sleep(seconds)
        if time.monotonic() >= self._until:
            raise _GivenUp

    def stand_by(self, run: Run, seconds: float) -> None:
        """Wait a moment with all rows delivered, and do for other writers what only an open run can do."""
        self.wait(seconds)
        if time.monotonic() - self._flushed < SCHEDULE_DELAY:
            return
        self._flushed = time.monotonic()
        try:
            if isinstance(run, SupportsConfirmation):
                run.tend()
            self._exchange(run)
        except Exception as error:  # noqa: BLE001 - no row is at stake, and it is tried again in a second
            self._trouble(error)
        else:
            self._recovered()

    # ------------------------------------------------------------ one round

    def _open(self) -> Run:
        def open_once() -> tuple[RunTicket, Run]:
            ticket = self._destination.ticket()
            return ticket, self._backend.open_run(ticket, self._destination.args)

        ticket, run = self._attempt(open_once)
        self._shared = ticket.shared
        for cursor in self._cursors:
            self._attempt(partial(cursor.acks.refer, RunReference(run.id, run.url)))
        self._tell(CourierEvent(self._backend.name, "opened", writer=self._writer, id=run.id, url=run.url))
        return run

    def _deliver_some(self, run: Run) -> bool:
        """One look at each journal; whether all writers have ended and all is acknowledged."""
        self.last_sign = time.monotonic()
        read = [self._deliver_batch(run, cursor) for cursor in self._cursors]
        is_idle = not any(read)
        pending = sum(cursor.pending for cursor in self._cursors)
        is_behind = any(cursor.is_behind for cursor in self._cursors)
        is_confirmed_later = self._is_confirmed_later(run)
        if time.monotonic() - self._flushed >= SCHEDULE_DELAY or (
            not is_confirmed_later and ((is_idle and is_behind) or pending >= MAX_QUEUE_SIZE)
        ):
            self._acknowledge(run, pending, is_confirmed_later)
        if is_idle and not self._has_ended():
            self.wait(POLL_INTERVAL)
        return is_idle and not is_behind and self._has_ended()

    def _is_confirmed_later(self, run: Run) -> bool:
        """Whether to go on before rows are confirmed: as long as more may come."""
        return isinstance(run, SupportsConfirmation) and not self._has_ended()

    def _deliver_batch(self, run: Run, cursor: Cursor) -> bool:
        """Hand over what is next in a journal; whether there was anything."""
        is_full = (
            cursor.size >= MAX_QUEUE_BYTES
            if isinstance(run, SupportsConfirmation)
            else cursor.pending >= MAX_QUEUE_SIZE
        )
        if is_full:
            return False
        batch = cursor.read()
        for damage in batch.damages:
            self._tell_once("damaged", damage, damage)
        mapping = UNCHANGED
        if self._shared:
            mapping = KeyMapping.shared(cursor.writer, self._backend.declares_axes)
        taken: list[Row] = []
        for has_table, group in groupby(batch.rows, key=lambda row: row.table is not None):
            taken += self._hand_over(run, cursor, [mapping.apply(row) for row in group], has_table)
        cursor.mark(batch, taken[-1] if taken else None)
        return bool(batch.rows or batch.damages)

    def _hand_over(self, run: Run, cursor: Cursor, rows: list[Row], has_table: bool) -> list[Row]:
        """Give rows to the backend, with their axes bound first. Returns those that it took, now or before.

        What it will never take is set aside.
        """
        fresh = rows
        if isinstance(run, SupportsProgress):
            held = run.held(rows[0].writer, rows[0].session)
            fresh = [row for row in rows if row.seq > held]
        if not fresh:
            return rows
        if self._shared and self._backend.declares_axes:
            self._book.publish(cursor.writer, dict.fromkeys(chain.from_iterable(row.metrics for row in fresh)))
            self._declare(run)
        try:
            if has_table:
                _log_tables(run, fresh)
            else:
                run.log(fresh)
        except Rejected as rejected:
            cursor.acks.set_aside(rejected.rows, scrub_text(rejected.reason, self._secrets))
            first = rejected.rows[0] if rejected.rows else None
            where = f" ({first.writer} step {first.step} and on)" if first else ""
            self._tell_once("rejected", rejected.reason, f"{rejected}{where}")
            refused = {(row.session, row.seq) for row in rejected.rows}
            return [row for row in rows if (row.session, row.seq) not in refused]
        return rows

    def _acknowledge(self, run: Run, pending: int, is_confirmed_later: bool) -> None:
        if isinstance(run, SupportsConfirmation) and is_confirmed_later:
            run.tend()
            for cursor in self._cursors:
                cursor.acknowledge_confirmed(run)
        else:
            if pending:
                run.flush(EXPORT_TIMEOUT)
            for cursor in self._cursors:
                cursor.acknowledge()
        self._exchange(run)
        self._flushed = time.monotonic()
        self._tell_progress()

    def _exchange(self, run: Run) -> None:
        """Declare and merge what other writers published since."""
        if self._shared:
            self._book.refresh()
            self._declare(run)
            configs = self._book.configs
            if isinstance(run, SupportsConfig) and len(configs) > self._merged:
                run.merge_config(configs)
                self._merged = len(configs)

    def _declare(self, run: Run) -> None:
        if self._backend.declares_axes and (bindings := self._book.bindings(self._declared)):
            self._backend.declare_axes(run, bindings)
            self._declared += len(bindings)

    # -------------------------------------------------------------- trouble

    def _attempt(self, action: Callable[[], T]) -> T:
        """Do it until it succeeds; whatever a plugin lets through counts as `Unavailable`."""
        pauses = waits(RETRY)
        while True:
            try:
                result = action()
            except (_GivenUp, BackendRefused, BackendError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a plugin lets through, its rows are sent again
                self._trouble(error)
                self._pause(next(pauses))
            else:
                self._recovered()
                return result

    def _trouble(self, error: Exception) -> None:
        is_expected = isinstance(error, Unavailable)
        text = scrub_text(str(error), self._secrets) if is_expected else scrub_trace(error, self._secrets)
        logger.log(logging.DEBUG if self._away else logging.WARNING, "%s: %s", self._backend.name, text)
        for cursor in self._cursors:
            cursor.rewind()
        if not self._away:
            message = str(error) if is_expected else f"{type(error).__name__}: {error}"
            self._explain(message)
            self._event("unavailable", message)
        self._away = True

    def _recovered(self) -> None:
        if self._away:
            self._explain(None)
            self._event("recovered")
        self._away = False
        self._until = self._limit

    def _pause(self, seconds: float) -> None:
        """Back off, but notice that the writers have ended: then the time to drain begins."""
        end = time.monotonic() + seconds
        is_over = False
        while (left := end - time.monotonic()) > 0:
            with suppress(OSError):  # a directory that does not answer says nothing about the writers
                is_over = all(cursor.is_over() for cursor in self._cursors)
                if all(cursor.is_gone() for cursor in self._cursors):
                    raise _GivenUp
            if is_over:
                self._until = min(self._until, time.monotonic() + self._drain)
                end = min(end, time.monotonic() + RETRY.maximum_draining)
            self.wait(min(left, 0.5))

    # --------------------------------------------------------------- telling

    @property
    def _writer(self) -> str:
        return self._cursors[0].writer if self._cursors else ""

    def _event(self, kind: Kind, message: str = "") -> None:
        self._tell(CourierEvent(self._backend.name, kind, message, self._writer))

    def _tell_once(self, kind: Kind, reason: str, message: str) -> None:
        """The first of its reason; the others are in the file of the acknowledgements."""
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            self._event(kind, message)

    def _tell_progress(self) -> None:
        for cursor in self._cursors:
            lag = self._lag(cursor)
            if self._lags.get(cursor.writer) != lag:
                self._lags[cursor.writer] = lag
                self._tell_lag("progress", cursor.writer, lag)

    def _tell_lag(self, kind: Kind, writer: str, lag: tuple[int, int]) -> None:
        acknowledged, earlier = lag
        self._tell(CourierEvent(self._backend.name, kind, writer=writer, acknowledged=acknowledged, earlier=earlier))

    def _lag(self, cursor: Cursor) -> tuple[int, int]:
        try:
            return cursor.lag()
        except OSError:  # a directory that does not answer
            return self._lags.get(cursor.writer, (0, 0))

    def _explain(self, why: str | None) -> None:
        for cursor in self._cursors:
            cursor.acks.explain(scrub_text(why, self._secrets) if why else None)

    def _has_ended(self) -> bool:
        return all(cursor.status is not None for cursor in self._cursors)

    def _status(self) -> Status:
        """The worst status of the writers."""
        statuses = [cursor.status for cursor in self._cursors]
        return next((status for status in statuses if status not in (None, "finished")), None) or "finished"


def _log_tables(run: Run, rows: list[Row]) -> None:
    if not isinstance(run, SupportsTables):
        raise Rejected(rows, "it holds no tables; they stay in the journal")
    rejected: list[Row] = []
    reason = ""
    for row in rows:
        try:
            run.log_table(row)
        except Rejected as error:
            rejected += error.rows
            reason = reason or error.reason
    if rejected:
        raise Rejected(rejected, reason or "it does not take these tables")
