"""A run of a role's own, on a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from rolecall import Rejected, Row, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.history import TOO_LATE, History
from rolecall_wandb.sdk import TRANSMIT_EVERY, init
from rolecall_wandb.server import RunPath, Server
from rolecall_wandb.tables import TableTries
from rolecall_wandb.watch import LOST, NO_ROWS, NO_TABLE, Watch, until

__all__ = ["SeparateRun"]

SETTLE: Final = 2 * TRANSMIT_EVERY + 10.0


class _Line(NamedTuple):
    """A line of the run's history: its number, and the last row that it has of a session."""

    number: int
    session: int
    seq: int


class SeparateRun:
    """A run that one writer writes alone; what counts as held are whole lines of its history."""

    def __init__(self, ticket: RunTicket, args: WandbArgs, server: Server) -> None:
        self._ticket = ticket
        self._args = args
        self._server = server
        self._tables = TableTries()
        self._handed: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._waiting: deque[_Line] = deque()
        self._open()

    def _open(self) -> None:
        sdk = init(self._ticket, self._args)
        watch = Watch(self._server, RunPath(sdk.run.entity, sdk.run.project, sdk.run.id))
        with sdk.given_up_on_error():
            lines = watch.look().lines if sdk.run.resumed else 0
        self._sdk, self._run, self._watch = sdk, sdk.run, watch
        self._history = History(sdk.run, lines)
        self._waiting.clear()
        self._is_open = True

    def _resume_if_ended(self) -> None:
        """Go on in a new SDK's run, where the last one's was lost; what that brought is known before."""
        if not self._is_open:
            self._look()
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
        if not self._is_waiting():
            self._watch.moved()
        late = [row for row in rows if not self._is_known(row) and not self._log_one(row)]
        if late:
            raise Rejected(late, TOO_LATE)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads it before this returns."""
        self._resume_if_ended()
        try:
            with self._sdk.at_hand():
                self.log([row])
        except (Rejected, Unavailable):
            raise
        except Exception as error:
            self._watch.look()  # a server that is away is not the table's fault
            self._tables.fail(row, error)
            raise self._lost(NO_TABLE.format(error)) from error

    def held(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsProgress`: what a living SDK has taken will get there."""
        return max(self._held.get(session, 0), self._handed.get(session, 0))

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        return self._held.get(session, 0)

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`."""
        if self._watch.was_away or (self._is_waiting() and self._watch.is_due()):
            self._look()
            if self._is_waiting() and self._watch.is_stalled():
                raise self._lost()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`. A last line that was not committed is, as at the end of the run."""
        self._resume_if_ended()
        try:
            self._history.commit()
        except Exception as error:
            raise self._lost(NO_ROWS.format(error)) from error
        if not until(self._is_held, min(timeout, SETTLE)):
            raise self._lost()

    def _is_waiting(self) -> bool:
        """Whether the SDK has a line that the server is not known to hold; one that is open it keeps to itself."""
        return bool(self._waiting) and self._waiting[0].number <= self._history.lines

    def _is_held(self) -> bool:
        if self._waiting:
            self._look()
        return not self._waiting

    def close(self, status: Status) -> None:
        """See `rolecall.Run`. Where the server did not take the end before, the run is resumed for it."""
        self._resume_if_ended()
        self._finish(status)
        self._watch.require_end(SETTLE)

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on nothing is promised but what the server shows."""
        if self._is_open:
            self._is_open = False
            self._handed.clear()
            self._sdk.finish(status)

    def _is_known(self, row: Row) -> bool:
        """Whether the server holds it: of what a run that was lost had brought it may tell only when one is resumed."""
        return row.seq <= self._held.get(row.session, 0)

    def _log_one(self, row: Row) -> bool:
        try:
            line = self._history.log(row)
        except Rejected:
            raise
        except Exception as error:
            if row.table is None:
                raise self._lost(NO_ROWS.format(error)) from error
            raise
        if line is not None:
            self._expect(_Line(line, row.session, row.seq))
            self._handed[row.session] = row.seq
        return line is not None

    def _expect(self, line: _Line) -> None:
        """One entry a line: what waits may be hundreds of thousands of rows."""
        last = self._waiting[-1] if self._waiting else None
        if last is not None and (last.number, last.session) == (line.number, line.session):
            self._waiting.pop()
        self._waiting.append(line)

    def _look(self) -> None:
        lines = self._watch.look().lines
        while self._waiting and self._waiting[0].number <= lines:
            line = self._waiting.popleft()
            self._held[line.session] = line.seq
            self._watch.moved()

    def _lost(self, reason: str = LOST) -> Unavailable:
        """The SDK will not bring all rows: what the server does not hold is read again, and goes through a new one."""
        with suppress(Exception):
            self._finish("finished")
        self._resume_if_ended()
        return Unavailable(reason)
