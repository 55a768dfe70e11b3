"""A run that only one writer writes to, on a server."""

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
from rolecall_wandb.watch import LOST, NO_ROWS, Watch, until

__all__ = ["SeparateRun"]

SETTLE: Final = 2 * TRANSMIT_EVERY + 10.0


class _Line(NamedTuple):
    """A line of the run's history: its number, and the last row of a session in it."""

    number: int
    session: int
    seq: int


class SeparateRun:
    """A run that only one writer writes to. A row is held once the server shows its complete line of history."""

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
        """Resume the run with a new SDK if the last one's ended, after reading what that has uploaded."""
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
        late = [row for row in rows if not self._is_known(row) and not self._log_row(row)]
        if late:
            raise Rejected(late, TOO_LATE)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads the table before this returns."""
        self._resume_if_ended()
        with self._tables.counted(row, self._watch.look, self._lost), self._sdk.at_hand():
            self.log([row])

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`. Rows that a running SDK was handed count, as it will upload them."""
        return [(1, max(self._held.get(session, 0), self._handed.get(session, 0)))]

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
        """See `rolecall.Run`. The last line is committed if it is open, as at the end of the run."""
        self._resume_if_ended()
        try:
            self._history.commit()
        except Exception as error:
            raise self._lost(NO_ROWS.format(error)) from error
        if not until(self._is_held, min(timeout, SETTLE)):
            raise self._lost()

    def _is_waiting(self) -> bool:
        """Whether the SDK has a complete line that is not confirmed; it does not upload one that is open."""
        return bool(self._waiting) and self._waiting[0].number <= self._history.lines

    def _is_held(self) -> bool:
        if self._waiting:
            self._look()
        return not self._waiting

    def close(self, status: Status) -> None:
        """See `rolecall.Run`. The run is resumed to end it, if the server did not record the end before."""
        self._resume_if_ended()
        self._finish(status)
        self._watch.require_end(SETTLE)

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on only rows that the server shows count."""
        if self._is_open:
            self._is_open = False
            self._handed.clear()
            self._sdk.finish(status)

    def _is_known(self, row: Row) -> bool:
        """Whether the server holds the row; an earlier SDK may have uploaded it."""
        return row.seq <= self._held.get(row.session, 0)

    def _log_row(self, row: Row) -> bool:
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
        # One entry for each line: hundreds of thousands of rows may wait.
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
        """End an SDK that will not upload all rows; those that the server does not hold go to a new one."""
        with suppress(Exception):
            self._finish("finished")
        self._resume_if_ended()
        return Unavailable(reason)
