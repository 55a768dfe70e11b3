"""Logs rows as lines of history, in a run that only one writer writes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rolecall import Row

if TYPE_CHECKING:
    import wandb

__all__ = ["TOO_LATE", "History"]

TOO_LATE: Final = "in a run that is not shared, wandb accepts no step below the last one"


class History:
    """Logs rows as Trinity-RFT does, `run.log(data, step=step, commit=commit)`, and counts the lines.

    Rows of one step become one line, which ends with the first row of a later step or with a row that commits. The SDK
    drops a row whose step is below that of the last line, with a warning in its own log: `accepts` says so before.

    Attributes:
        lines: how many lines the run has, without the one that is open.
    """

    def __init__(self, run: wandb.Run, lines: int = 0) -> None:
        self.lines = lines
        self._run = run
        self._least = run.starting_step  # `run.step` of a resumed run is 0 (0.31.0)
        self._open: int | None = None
        self._time = 0.0

    def accepts(self, row: Row) -> bool:
        """Whether wandb accepts a row after those that were asked for before; if so, it is to be logged after them."""
        if self.is_late(row):
            return False
        self._least = row.step + row.commit
        return True

    def is_late(self, row: Row) -> bool:
        """Whether wandb would not accept a row now."""
        return row.step < self._least

    def log(self, row: Row, more: Mapping[str, Any]) -> int:
        """Log a row that is accepted, with `more` in its line; return the number of the line, from 1."""
        if self._open is not None and row.step > self._open:
            self._end_line()
        self._run.log({**more, **row.metrics, **row.text, "_timestamp": row.time}, step=row.step, commit=row.commit)
        self._open, self._time = row.step, row.time
        line = self.lines + 1
        if row.commit:
            self._end_line()
        return line

    def commit(self) -> None:
        """End the line that is open."""
        if self._open is not None:
            self._run.log({"_timestamp": self._time}, step=self._open, commit=True)
            self._least = max(self._least, self._open + 1)
            self._end_line()

    def _end_line(self) -> None:
        self.lines += 1
        self._open = None
