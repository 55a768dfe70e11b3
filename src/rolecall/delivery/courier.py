"""Carries rows from journals to a backend's run. Nothing else in rolecall sends a row to a backend.

A courier holds one run of one backend and reads the journals of one or several writers. It reads a batch, each row as
it stands in the run (see `rolecall.delivery.keys`), hands it to `Run.log`, asks `Run.flush`, and then writes the
acknowledgement down. What fails is read again from the last acknowledgement: the queue is the file, so memory stays
flat however long a backend is away.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Literal, TypeVar

from pydantic import BaseModel

from rolecall.backends.registry import Backend
from rolecall.config.redact import scrub_text, scrub_trace, secrets_of
from rolecall.delivery.cursor import damages
from rolecall.delivery.keys import AS_IT_IS, Placement
from rolecall.delivery.load import Load
from rolecall.errors import BackendError, BackendRefused, Rejected, Unavailable
from rolecall.protocol import (
    Run,
    RunTicket,
    SupportsConfig,
    SupportsConfirmation,
    SupportsProgress,
    SupportsTables,
)
from rolecall.rows import Row
from rolecall.states import Status
from rolecall.store.acks import RunReference
from rolecall.store.axes import AxisBook

__all__ = ["Courier", "Destination", "Kind", "News"]

logger = logging.getLogger("rolecall.courier")
T = TypeVar("T")

POLL = 0.1
FLUSH_EVERY = 1.0
FLUSH_TIMEOUT = 60.0
WINDOW = 10_000
"""Rows under way to a backend, handed over and not acknowledged."""
WINDOW_LATE = 64 << 20
"""Bytes of a journal that are under way, where rows are confirmed only seconds after they were handed over (wandb: 5 to
17). What a backend is handed in that time must fit, or the courier waits for it; what it holds of them in memory while
its server takes nothing must not hurt: that is why these are bytes, and not rows, which may be of any width."""
SHORTEST_WAIT, LONGEST_WAIT, LONGEST_WAIT_DRAINING = 0.25, 60.0, 2.0


Kind = Literal[
    "opened", "prepared", "refused", "unavailable", "recovered", "rejected", "damaged", "warning", "ended"
]


@dataclass(frozen=True, slots=True)
class News:
    """What happened to one backend, for the role to tell.

    `opened`, `prepared` and `refused` come once; `unavailable` and `recovered` in turns; `rejected`, `damaged` and
    `warning` as they happen; `ended` last.
    """

    backend: str
    kind: Kind
    message: str = ""
    id: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where rows go. The ticket is written anew for each try: the primary may have opened meanwhile."""

    backend: Backend
    args: BaseModel
    ticket: Callable[[], RunTicket]


class _GivenUp(Exception):
    """The writer has ended, and so has the time to drain."""


class Courier:
    """One run of one backend, and the loads that go there."""

    def __init__(
        self,
        destination: Destination,
        loads: Sequence[Load],
        book: AxisBook,
        tell: Callable[[News], None],
        drain: float,
    ) -> None:
        self.last_sign = time.monotonic()
        self._backend = destination.backend
        self._destination = destination
        self._secrets = secrets_of(destination.args)
        self._loads = loads
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

    def carry(self, may_close: Callable[[Callable[[float], None]], bool] | None = None) -> None:
        """Carry until every writer has ended and everything is acknowledged, or there is no time left.

        `may_close` is called with the run still open and a way to stand by for some seconds: a primary waits there
        for the roles, and says whether the run is still its own to end.
        """
        try:
            run = self._open()
            self._carry_all(run)
            status = self._status()
            if may_close is None or may_close(partial(self.stand_by, run)):
                self._attempt(lambda: self._exchange(run))
                self._attempt(lambda: run.close(status))
                self._closed = status
        except _GivenUp:
            logger.warning("%s: given up with rows undelivered", self._backend.name)
        except (BackendRefused, BackendError) as error:
            self._explain(str(error))
            self._tell(News(self._backend.name, "refused", str(error)))
        finally:
            self._release()

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
        """Wait a moment with all rows delivered, and do for the other writers what an open run does for them."""
        self.wait(seconds)
        if time.monotonic() - self._flushed < FLUSH_EVERY:
            return
        self._flushed = time.monotonic()
        try:
            if isinstance(run, SupportsConfirmation):
                run.tend()
            self._exchange(run)
        except Exception as error:  # noqa: BLE001 - nothing is lost by it, and it comes again
            self._trouble(error)
        else:
            self._recovered()

    def _open(self) -> Run:
        ticket, run = self._attempt(self._open_once)
        self._shared = ticket.shared
        for load in self._loads:
            self._attempt(partial(load.delivery.refer, RunReference(run.id, run.url)))
        self._tell(News(self._backend.name, "opened", id=run.id, url=run.url))
        return run

    def _open_once(self) -> tuple[RunTicket, Run]:
        ticket = self._destination.ticket()
        return ticket, self._backend.open_run(ticket, self._destination.args)

    def _carry_all(self, run: Run) -> None:
        while not self._attempt(lambda: self._carry_some(run)):
            pass

    def _carry_some(self, run: Run) -> bool:
        """One look at each journal; whether all writers have ended and all is acknowledged."""
        self.last_sign = time.monotonic()
        read = [self._carry_one(run, load) for load in self._loads]
        idle = not any(read)
        pending = sum(load.pending for load in self._loads)
        if self._is_time(run, idle, pending):
            self._acknowledge(run, pending)
        if idle and not self._has_ended():
            self.wait(POLL)
        return idle and not pending and self._has_ended()

    def _is_time(self, run: Run, idle: bool, pending: int) -> bool:
        """Whether to ask the backend what it holds."""
        if time.monotonic() - self._flushed >= FLUSH_EVERY:
            return True
        return not self._is_confirmed_later(run) and ((idle and pending > 0) or pending >= WINDOW)

    def _is_confirmed_later(self, run: Run) -> bool:
        """Whether to go on meanwhile: as long as more rows may come."""
        return isinstance(run, SupportsConfirmation) and not self._has_ended()

    def _carry_one(self, run: Run, load: Load) -> bool:
        if self._is_full(run, load):
            return False
        entries = load.tail.read(self._placement(load.tail.writer))
        for damage in damages(entries):
            self._tell_once("damaged", str(damage), str(damage))
        rows = [entry.value for entry in entries if isinstance(entry.value, Row)]
        taken: list[Row] = []
        for has_table, group in groupby(rows, key=lambda row: row.table is not None):
            taken += self._hand_over(run, load, list(group), has_table)
        if entries:
            load.mark(rows, taken[-1] if taken else None)
        return bool(entries)

    def _is_full(self, run: Run, load: Load) -> bool:
        """Whether as much is under way as may be."""
        if isinstance(run, SupportsConfirmation):
            return load.size >= WINDOW_LATE
        return load.pending >= WINDOW

    def _hand_over(self, run: Run, load: Load, rows: list[Row], has_table: bool) -> list[Row]:
        """Give rows to the backend, their axes bound first; those that it took, now or before.

        What it will never take is set aside.
        """
        fresh = self._fresh(run, rows)
        if not fresh:
            return rows
        self._bind(run, load.tail.writer, fresh)
        try:
            if has_table:
                self._log_tables(run, fresh)
            else:
                run.log(fresh)
        except Rejected as rejected:
            load.delivery.set_aside(rejected.rows, scrub_text(rejected.reason, self._secrets))
            self._tell_once("rejected", rejected.reason, _rejection(rejected))
            refused = {(row.session, row.seq) for row in rejected.rows}
            return [row for row in rows if (row.session, row.seq) not in refused]
        return rows

    def _tell_once(self, kind: Kind, reason: str, message: str) -> None:
        """The first of its reason; the others are in the delivery's file."""
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            self._tell(News(self._backend.name, kind, message))

    def _placement(self, writer: str) -> Placement:
        return Placement.shared(writer, self._backend.declares_axes) if self._shared else AS_IT_IS

    def _bind(self, run: Run, writer: str, rows: list[Row]) -> None:
        """Make known, and declare, to which axis these rows' keys belong."""
        if self._shared and self._backend.declares_axes:
            self._book.publish(writer, dict.fromkeys(chain.from_iterable(row.metrics for row in rows)))
            self._declare(run)

    def _log_tables(self, run: Run, rows: list[Row]) -> None:
        if not isinstance(run, SupportsTables):
            raise Rejected(rows, "it holds no tables; they stay in the journal")
        rejected: list[Row] = []
        for row in rows:
            try:
                run.log_table(row)
            except Rejected as error:
                rejected += error.rows
        if rejected:
            raise Rejected(rejected, "it does not take these tables")

    def _fresh(self, run: Run, rows: list[Row]) -> list[Row]:
        """Rows, all of one session, that the backend does not hold yet, if it can be asked."""
        if not isinstance(run, SupportsProgress):
            return rows
        held = run.held(rows[0].writer, rows[0].session)
        return [row for row in rows if row.seq > held]

    def _acknowledge(self, run: Run, pending: int) -> None:
        if isinstance(run, SupportsConfirmation) and self._is_confirmed_later(run):
            run.tend()
            for load in self._loads:
                load.acknowledge_confirmed(run)
        else:
            if pending:
                run.flush(FLUSH_TIMEOUT)
            for load in self._loads:
                load.acknowledge()
        self._exchange(run)
        self._flushed = time.monotonic()

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
        if self._backend.declares_axes and (news := self._book.bindings(self._declared)):
            self._backend.declare_axes(run, news)
            self._declared += len(news)

    def _attempt(self, action: Callable[[], T]) -> T:
        """Do it until it succeeds; whatever a plugin lets through counts as `Unavailable`."""
        waits = _waits()
        while True:
            try:
                result = action()
            except (_GivenUp, BackendRefused, BackendError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a plugin lets through, the rows are tried again
                self._trouble(error)
                self._pause(next(waits))
            else:
                self._recovered()
                return result

    def _trouble(self, error: Exception) -> None:
        expected = isinstance(error, Unavailable)
        told = scrub_text(str(error), self._secrets) if expected else scrub_trace(error, self._secrets)
        logger.log(logging.DEBUG if self._away else logging.WARNING, "%s: %s", self._backend.name, told)
        for load in self._loads:
            load.rewind()
        if not self._away:
            message = str(error) if expected else f"{type(error).__name__}: {error}"
            self._explain(message)
            self._tell(News(self._backend.name, "unavailable", message))
        self._away = True

    def _recovered(self) -> None:
        if self._away:
            self._explain(None)
            self._tell(News(self._backend.name, "recovered"))
        self._away = False
        self._until = self._limit

    def _explain(self, why: str | None) -> None:
        for load in self._loads:
            load.delivery.explain(scrub_text(why, self._secrets) if why else None)

    def _pause(self, seconds: float) -> None:
        """Back off, but notice meanwhile that the writers have ended: then the time to drain begins."""
        end = time.monotonic() + seconds
        over = False
        while (left := end - time.monotonic()) > 0:
            with suppress(OSError):  # a directory that does not answer says nothing about the writers
                over = all(load.tail.over() for load in self._loads)
                if all(load.tail.is_gone() for load in self._loads):
                    raise _GivenUp
            if over:
                self._until = min(self._until, time.monotonic() + self._drain)
                end = min(end, time.monotonic() + LONGEST_WAIT_DRAINING)
            self.wait(min(left, 0.5))

    def _has_ended(self) -> bool:
        return all(load.tail.status is not None for load in self._loads)

    def _status(self) -> Status:
        statuses = [load.tail.status for load in self._loads]
        return next((status for status in statuses if status not in (None, "finished")), None) or "finished"

    def _release(self) -> None:
        for load in self._loads:
            load.delivery.release(self._closed)
        self._tell(News(self._backend.name, "ended"))


def _waits() -> Iterator[float]:
    """Doubling, with jitter, so that many roles do not come back at once. The job's own chance is not used up."""
    chance = random.Random()
    wait = SHORTEST_WAIT
    while True:
        yield wait * chance.uniform(0.5, 1.0)
        wait = min(wait * 2, LONGEST_WAIT)


def _rejection(rejected: Rejected) -> str:
    first = rejected.rows[0] if rejected.rows else None
    where = f" ({first.writer} step {first.step} and on)" if first else ""
    return f"{rejected}{where}"
