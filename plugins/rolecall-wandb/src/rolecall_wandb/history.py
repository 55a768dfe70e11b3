"""Logs rows as lines of history, in a run that only one writer writes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rolecall import Row
from rolecall_wandb.tables import table_of

if TYPE_CHECKING:
    import wandb

__all__ = ["TOO_LATE", "History"]

TOO_LATE: Final = "in a run that is not shared, wandb accepts no step below the last one"


class History:
    """Logs rows as Trinity-RFT does, `run.log(data, step=step, commit=commit)`, and counts the lines.

    Rows of one step become one line, which ends with the first row of a later step or with a row that commits. A row
    whose step is below that of the last line is refused; the SDK itself would drop it, with a warning in its own log.

    Attributes:
        lines: how many lines the run has, without the one that is open.
    """

    def __init__(self, run: wandb.Run, lines: int = 0) -> None:
        self.lines = lines
        self._run = run
        self._least = run.starting_step  # `run.step` of a resumed run is 0 (0.31.0)
        self._open: int | None = None
        self._time = 0.0

    def log(self, row: Row) -> int | None:
        """Log a row; return the number of its line, from 1, or `None` if wandb does not accept it."""
        if row.step < self._least:
            return None
        if self._open is not None and row.step > self._open:
            self._end_line(self._open)
        self._run.log(
            {**table_of(row, str(self._run.id)), **row.metrics, **row.text, "_timestamp": row.time},
            step=row.step,
            commit=row.commit,
        )
        self._open = self._least = row.step
        self._time = row.time
        line = self.lines + 1
        if row.commit:
            self._end_line(row.step)
        return line

    def commit(self) -> None:
        """End the line that is open."""
        if self._open is not None:
            self._run.log({"_timestamp": self._time}, step=self._open, commit=True)
            self._end_line(self._open)

    def _end_line(self, step: int) -> None:
        self.lines += 1
        self._least = step + 1
        self._open = None
