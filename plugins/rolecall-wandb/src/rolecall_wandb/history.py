"""How rows become lines of the history of a run that one writer writes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rolecall import Row
from rolecall_wandb.tables import table_of

if TYPE_CHECKING:
    import wandb

__all__ = ["TOO_LATE", "History"]

TOO_LATE: Final = "wandb takes no step below the last one in a run that is not shared"


class History:
    """Logs rows as Trinity-RFT does, `run.log(data, step=step, commit=commit)`, and counts the lines.

    Rows of one step become one line, which ends with the first row of a later step, or with one that commits. A step
    below the last line's is dropped by the SDK, with a warning to its own log; here it is refused.

    Attributes:
        lines: how many lines the run has, but for the one that is open.
    """

    def __init__(self, run: wandb.Run, lines: int = 0) -> None:
        self.lines = lines
        self._run = run
        self._least = run.starting_step  # `run.step` of a resumed run is 0 (0.31.0)
        self._open: int | None = None
        self._time = 0.0

    def log(self, row: Row) -> int | None:
        """The number of the line that the row is in, from 1; `None` if wandb does not take it."""
        if row.step < self._least:
            return None
        if self._open is not None and row.step > self._open:
            self._end_line(self._open)
        self._run.log(
            {**table_of(row), **row.metrics, "_timestamp": row.time}, step=row.step, commit=row.commit
        )
        self._open = self._least = row.step
        self._time = row.time
        line = self.lines + 1
        if row.commit:
            self._end_line(row.step)
        return line

    def commit(self) -> None:
        """End the line that is open, as the end of the run would."""
        if self._open is not None:
            self._run.log({"_timestamp": self._time}, step=self._open, commit=True)
            self._end_line(self._open)

    def _end_line(self, step: int) -> None:
        self.lines += 1
        self._least = step + 1
        self._open = None
