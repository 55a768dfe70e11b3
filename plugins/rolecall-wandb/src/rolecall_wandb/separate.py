"""A run that only one writer writes to, with one axis, on a server."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, Final, NamedTuple

from rolecall import Rejected, Row, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.history import TOO_LATE, History
from rolecall_wandb.media import KINDS
from rolecall_wandb.pieces import PIECE, size_of
from rolecall_wandb.resumed import StoredLines, wind_back
from rolecall_wandb.sdk import TRANSMIT_EVERY, fixed_tags, init
from rolecall_wandb.server import RunPath, Server, path_of
from rolecall_wandb.tables import TABLE_KINDS, table_of
from rolecall_wandb.told import Told
from rolecall_wandb.tries import Tries
from rolecall_wandb.watch import LOST, NO_ROWS, Watch, until

__all__ = ["SeparateRun"]

SETTLE: Final = 2 * TRANSMIT_EVERY + 10.0
BEFORE_TABLE: Final = 60.0
"""Seconds that a table waits until the server shows all lines before it."""
SLOW: Final = "wandb does not show all rows yet; the others follow"


class _Line(NamedTuple):
    """A line of the run's history: its number, and the rows of a session in it."""

    number: int
    session: int
    first: int


class _Queued(NamedTuple):
    """A row, and what its line has beside its metrics and strings."""

    row: Row
    more: Mapping[str, Any]


class SeparateRun:
    """A run that only one writer writes to, with one axis.

    A row is held once the server counts all lines that it was given. More rows go to the SDK when those before are
    held. wandb accepts no step below the last one, so what was dropped on the way can be sent again only if nothing
    came after it.
    """

    media_kinds = KINDS
    table_media_kinds = TABLE_KINDS

    def __init__(
        self,
        ticket: RunTicket,
        args: WandbArgs,
        server: Server,
        *,
        ends_as: Status | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._ticket = ticket
        self._ends_as = ends_as
        self._told = Told((*tags, *fixed_tags(ticket, args)))
        self._args = args
        self._server = server
        self._tries = Tries()
        self._taken: dict[int, int] = {}
        self._queue: deque[_Queued] = deque()
        self._late: dict[tuple[int, int], Row] = {}
        self._under_way: deque[_Line] = deque()
        self._shown = 0
        self._open()

    def _open(self) -> None:
        wind_back(self._server, path_of(self._ticket, self._args, self._server))
        sdk = init(self._ticket, self._args)
        path = RunPath(sdk.run.entity, sdk.run.project, sdk.run.id)
        watch = Watch(self._server, path)
        with sdk.given_up_on_error():
            lines = watch.look().lines if sdk.run.resumed else 0
        self._sdk, self._run, self._watch = sdk, sdk.run, watch
        self._history = History(sdk.run, lines)
        self._stored = StoredLines(self._server, path, sdk.run.starting_step)
        self._told.tell(sdk.run)
        self._is_open = True

    def _resume_if_ended(self) -> None:
        """Resume the run with a new SDK if the last one's ended."""
        if not self._is_open:
            self._open()

    @property
    def id(self) -> str:
        """The run's id in wandb."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        self._resume_if_ended()
        self._enqueue([_Queued(row, {}) for row in rows])

    def log_media(self, row: Row) -> None:
        """See `rolecall.SupportsMedia`. The server has the files before the row is queued as all others."""
        self._resume_if_ended()
        is_late = self._history.is_late(row)
        more = {} if is_late else self._tries.upload(row, self._watch.upload, self._watch.look)
        self._enqueue([_Queued(row, more)])

    def _enqueue(self, given: Sequence[_Queued]) -> None:
        for queued in given:
            row = queued.row
            if self._history.accepts(row):
                self._queue.append(queued)
            elif not self._stored.has(row):
                self._late[row.session, row.seq] = row
            self._taken[row.session] = row.seq
        if not self._is_waiting():
            self._hand_over()
        if self._late:
            late = list(self._late.values())
            self._late.clear()
            raise Rejected(late, TOO_LATE)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads the table before this returns."""
        self._resume_if_ended()
        # It cannot wait in the queue, as it may be refused. If it overtook lines that a proxy drops, these would be too
        # late to be sent again.
        self._hand_over_all(BEFORE_TABLE)
        if self._history.accepts(row):
            table = table_of(row, self.id)
            with self._tries.counted(row, self._watch.look, self._lost), self._sdk.at_hand():
                self._log(row, table)
        elif not self._stored.has(row):
            raise Rejected([row], TOO_LATE)
        self._taken[row.session] = row.seq

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """See `rolecall.SupportsConfig`."""
        self._resume_if_ended()
        with self._lost_on_error():
            self._told.tell_config(self._run, config)

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`."""
        self._resume_if_ended()
        with self._lost_on_error():
            self._told.merge_summary(self._run, summary)

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`."""
        self._resume_if_ended()
        with self._lost_on_error():
            self._told.set_tags(self._run, tags)

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`. Rows that a running SDK gets count, as it will upload them."""
        # Not those that are too late, until that was said.
        late = [seq for number, seq in sorted(self._late) if number == session]
        edges = [0, *late, self._taken.get(session, 0) + 1]
        return [(before + 1, after - 1) for before, after in pairwise(edges) if before + 1 < after]

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        waiting = (line.first for line in self._under_way if line.session == session)
        queued = (row.seq for row, _ in self._queue if row.session == session)
        late = (seq for number, seq in self._late if number == session)
        firsts = [next(each, None) for each in (waiting, queued, late)]
        return min((first - 1 for first in firsts if first is not None), default=self._taken.get(session, 0))

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`."""
        if self._watch.was_away or (self._is_waiting() and self._watch.is_due()):
            self._look()
            if self._is_waiting() and self._watch.is_stalled():
                raise self._lost()
        if self._is_open and not self._is_waiting():
            self._hand_over()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`. The last line is committed if it is open, as at the end of the run."""
        self._resume_if_ended()
        deadline = time.monotonic() + timeout
        self._hand_over_all(timeout)
        self._commit()
        self._await_shown(deadline - time.monotonic())

    def close(self, status: Status) -> None:
        """See `rolecall.Run`. The run is resumed to end it, if the server did not record the end before."""
        self._resume_if_ended()
        self._finish(status)
        self._watch.require_end(SETTLE)

    def release(self) -> Told:
        """End the SDK's run, as what follows is written in another way; returns what the run was told."""
        self._finish("finished")
        return self._told

    # ------------------------------------------------- between queue and server

    def _hand_over_all(self, timeout: float) -> None:
        """Give the SDK all rows, and return once the server shows all lines but the open one.

        Raises:
            Unavailable: it does not within `timeout` seconds, or does not answer.
        """
        deadline = time.monotonic() + timeout
        self._await_shown(timeout)
        while self._queue:
            self._hand_over()
            self._await_shown(deadline - time.monotonic())

    def _await_shown(self, timeout: float) -> None:
        if not until(self._is_shown, min(timeout, SETTLE)):
            raise self._lost() if timeout >= SETTLE else Unavailable(SLOW)

    def _hand_over(self) -> None:
        """Give the SDK the next rows: not more than it sends at once."""
        if self._queue:
            self._watch.moved()
        size = 0
        while self._queue and size < PIECE:
            row, more = self._queue[0]
            with self._lost_on_error():
                self._log(row, more)
            self._queue.popleft()
            size += size_of(row)

    def _log(self, row: Row, more: Mapping[str, Any]) -> None:
        number = self._history.log(row, more)
        # One entry for each line: hundreds of thousands of rows may be under way.
        last = self._under_way[-1] if self._under_way else None
        if last is None or (last.number, last.session) != (number, row.session):
            self._under_way.append(_Line(number, row.session, row.seq))

    def _commit(self) -> None:
        with self._lost_on_error():
            self._history.commit()

    def _is_waiting(self) -> bool:
        """Whether the SDK has a complete line that is not confirmed; it does not upload one that is open."""
        return bool(self._under_way) and self._under_way[0].number <= self._history.lines

    def _is_shown(self) -> bool:
        if self._is_waiting():
            self._look()
        return not self._is_waiting()

    def _look(self) -> None:
        shown = self._watch.look().lines
        if shown != self._shown:
            self._shown = shown
            self._watch.moved()
        if shown == self._history.lines:
            while self._is_waiting():
                self._under_way.popleft()

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on only rows that the server shows count."""
        if self._is_open:
            self._is_open = False
            self._taken = {session: self.confirmed("", session) for session in self._taken}
            self._queue.clear()
            self._under_way.clear()
            with suppress(Exception):  # the SDK's process may have ended
                self._told.tell_summary(self._run)
            self._sdk.finish(self._ends_as or status)

    @contextmanager
    def _lost_on_error(self) -> Iterator[None]:
        """Count rows as lost if the SDK raises anything: its process may have ended, and a new one has to continue."""
        try:
            yield
        except Exception as error:
            raise self._lost(NO_ROWS.format(error)) from error

    def _lost(self, reason: str = LOST) -> Unavailable:
        """End an SDK that will not upload all rows; those that the server does not hold go to a new one."""
        with suppress(Exception):
            self._finish("finished")
        return Unavailable(reason)
