"""Runs without a server: kept in a directory for `wandb sync`, or not at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rolecall import Rejected, Row, Run, RunTicket, Status
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.history import TOO_LATE, History
from rolecall_wandb.sdk import WRITE_EVERY, init
from rolecall_wandb.situation import mode

__all__ = ["NoRun", "OfflineRun", "open_offline"]

_MARGIN: Final = 0.5


def open_offline(ticket: RunTicket, args: WandbArgs) -> Run:
    """A run in the writer's own directory, or one that keeps nothing."""
    return NoRun(ticket) if mode(args).value == "disabled" else OfflineRun(ticket, args)


class OfflineRun:
    """A run that one writer keeps on its own disk.

    wandb 0.31.0 is told to write its file every second, and rows are acknowledged after that. Older ones write whole
    blocks of 32 KiB (measured, 0.19.10): there the last rows of a SIGKILLed courier are only in the journal.
    """

    def __init__(self, ticket: RunTicket, args: WandbArgs) -> None:
        self._sdk = init(ticket, args)
        self._run = self._sdk.run
        self._history = History(self._run)
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
        late = [row for row in rows if self._history.log(row) is None]
        self._logged = time.monotonic()
        if late:
            raise Rejected(late, TOO_LATE)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`."""
        with self._sdk.at_hand():
            self.log([row])

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`; the line that is open stays so."""
        wait = self._logged + WRITE_EVERY + _MARGIN - time.monotonic()
        time.sleep(min(max(wait, 0.0), timeout))

    def close(self, status: Status) -> None:
        """See `rolecall.Run`."""
        self._sdk.finish(status)


class NoRun:
    """What a user who switched wandb off wants of it."""

    url = None

    def __init__(self, ticket: RunTicket) -> None:
        self.id = ticket.run_id

    def log(self, rows: Sequence[Row]) -> None:
        """Keep nothing."""

    def log_table(self, row: Row) -> None:
        """Keep nothing."""

    def flush(self, timeout: float) -> None:
        """Nothing waits."""

    def close(self, status: Status) -> None:
        """Nothing is open."""
