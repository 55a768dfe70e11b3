"""What a run had that is not shared and is resumed: where its lines end, and which they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rolecall import Row
from rolecall_wandb.media import media_key
from rolecall_wandb.readback import is_same, number_of
from rolecall_wandb.server import RunPath, RunState, Server, step_of
from rolecall_wandb.tables import short_name
from rolecall_wandb.watch import SETTLE, until

__all__ = ["StoredLines", "wind_back"]

_CLOSE: Final = 1e-3  # seconds


def wind_back(server: Server, path: RunPath) -> None:
    """Let the run be resumed after its last line, and not after later ones that a proxy dropped.

    Raises:
        Unavailable: the server does not answer.
    """
    # The SDK uploads the step of the last row that it was given with the summary, also when its run ends, and resumes
    # after that step (0.31.0; 0.24.2 and 0.19.10 resume after the last line). A server may show lines late, so that a
    # summary is ahead for a while.
    if not until(lambda: not _is_ahead(server.look_up(path, summary=True, counts=True)), SETTLE):
        found = server.look_up(path, summary=True, counts=True)
        if found is not None and _is_ahead(found):
            server.set_summary(found, {**found.summary, "_step": found.last_step})


def _is_ahead(found: RunState | None) -> bool:
    """Whether the summary has a later step than the last line; not if the server does not say which that is."""
    if found is None or (found.counts is None and found.lines):
        return False
    step = number_of(found.summary.get("_step"))
    return step is not None and step > found.last_step


class StoredLines:
    """The lines that a run had when it was resumed, read as rows come that may be in them."""

    def __init__(self, server: Server, path: RunPath, end: int) -> None:
        self._server = server
        self._path = path
        self._end = end
        self._asked: int | None = None
        self._lines: Iterator[Mapping[str, Any]] = iter(())
        self._line: Mapping[str, Any] | None = None

    def has(self, row: Row) -> bool:
        """Whether the run had a line of the row's step with its values; an earlier SDK may have uploaded it."""
        line = self._at(row.step) if row.step < self._end else None
        if line is None:
            return False
        # A line has the time of its last row: what a restarted role logs again at this step is later.
        is_there = (number_of(line.get("_timestamp")) or 0.0) >= row.time - _CLOSE
        name = media_key(row) if row.table is None else short_name(row.table.name, self._path.run)
        is_there = is_there and (name is None or name in line)
        return is_there and all(is_same(line.get(key), value) for key, value in {**row.metrics, **row.text}.items())

    def _at(self, step: int) -> Mapping[str, Any] | None:
        """The line of a step, read on from the last one that was asked for."""
        if self._asked is None or step < self._asked:
            self._lines = self._server.history(self._path, step)
            self._line = next(self._lines, None)
        self._asked = None  # a request that fails ends the iterator
        while self._line is not None and step_of(self._line) < step:
            self._line = next(self._lines, None)
        self._asked = step
        return self._line if self._line is not None and step_of(self._line) == step else None
