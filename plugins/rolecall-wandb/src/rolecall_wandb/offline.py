"""Runs without a server: stored in a directory for `wandb sync`, or not stored at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rolecall import Rejected, Row, Run, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.history import TOO_LATE, History
from rolecall_wandb.sdk import WRITE_EVERY, init
from rolecall_wandb.situation import mode
from rolecall_wandb.tables import TableTries

__all__ = ["NoRun", "OfflineRun", "open_offline"]

_MARGIN: Final = 0.5


def open_offline(ticket: RunTicket, args: WandbArgs) -> Run:
    """Open a run in the writer's own directory, or one that stores nothing if wandb is disabled."""
    return NoRun(ticket) if mode(args).value == "disabled" else OfflineRun(ticket, args)


class OfflineRun:
    """A run on a writer's own disk.

    Rows are acknowledged after the SDK has written its file, which it does every second. Old versions do not: see
    `flush`.
    """

    def __init__(self, ticket: RunTicket, args: WandbArgs) -> None:
        self._sdk = init(ticket, args)
        self._run = self._sdk.run
        self._history = History(self._run)
        self._tables = TableTries()
        self._logged = 0.0

    @property
    def id(self) -> str:
        """The run's id in wandb."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The command that uploads it."""
        return f"wandb sync {self._run.settings.sync_dir}"

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        late = []
        for row in rows:
            if self._history.accepts(row):
                self._history.log(row)
            else:
                late.append(row)
        self._logged = time.monotonic()
        if late:
            raise Rejected(late, TOO_LATE)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`."""
        with self._tables.counted(row, lambda: None, Unavailable), self._sdk.at_hand():
            self.log([row])

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`; a line that is open stays open."""
        # 0.31.0 has a setting to write the file every second. 0.19.10 writes blocks of 32 KiB (measured): if its
        # courier is killed by SIGKILL, the last rows are only in the journal.
        wait = self._logged + WRITE_EVERY + _MARGIN - time.monotonic()
        time.sleep(min(max(wait, 0.0), timeout))

    def close(self, status: Status) -> None:
        """See `rolecall.Run`."""
        self._sdk.finish(status)


class NoRun:
    """A run that stores nothing, for `mode: disabled`."""

    url = None

    def __init__(self, ticket: RunTicket) -> None:
        self.id = ticket.run_id

    def log(self, rows: Sequence[Row]) -> None:
        """Store nothing."""

    def log_table(self, row: Row) -> None:
        """Store nothing."""

    def flush(self, timeout: float) -> None:
        """Do nothing."""

    def close(self, status: Status) -> None:
        """Do nothing."""
