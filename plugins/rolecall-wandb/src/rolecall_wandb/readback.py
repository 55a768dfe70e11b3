"""What a run holds, read back from the server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from rolecall import Point, Row, RunGone, RunTicket
from rolecall_wandb.definitions import stored_bindings
from rolecall_wandb.lines import PREFIX, writer_of
from rolecall_wandb.server import RunPath, Server

__all__ = ["WandbReadback", "is_same", "number_of"]

_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_OWN: Final = ("_step", "_runtime", "_timestamp", "_wandb")


class WandbReadback:
    """Reads the lines of a run's history; a `rolecall.SupportsReadback` that reads them once for all metrics.

    The step of a line is that of its axis in a shared run, and in another one with several axes. Else it is the line's
    own number.
    """

    def __init__(self, ticket: RunTicket, server: Server, entity: str | None) -> None:
        self._server = server
        self._path = RunPath(entity or server.entity(), ticket.project, ticket.backend_run_id or ticket.run_id)
        self._has_axes = ticket.shared or ticket.has_axes
        found = server.look_up(self._path, config=self._has_axes)
        if found is None:
            raise RunGone(f"wandb at {server.url} has no run {'/'.join(self._path)}")

        self._axes = frozenset(stored_bindings(found.config).values())

    def keys(self) -> Iterator[str]:
        """See `rolecall.SupportsReadback`."""
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        """See `rolecall.SupportsReadback`."""
        return (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        """See `rolecall.SupportsScan`."""
        for line in self._server.history(self._path):
            step, time = self._step(line), float(number_of(line.get("_timestamp")) or 0.0)
            for key, stored in line.items():
                number = number_of(stored)
                if number is not None and not key.startswith(PREFIX) and key not in _OWN:
                    yield key, Point(step, number, time)

    def expected(self, row: Row) -> Row:
        """The row with its keys and values; a string that spells a number is one in wandb, which has no other form."""
        spelled = {key: _SPECIAL[text] for key, text in row.text.items() if text in _SPECIAL}
        return replace(row, metrics={**row.metrics, **spelled}) if spelled else row

    def close(self) -> None:
        """Nothing is open."""

    def _step(self, line: Mapping[str, Any]) -> int:
        key = "_step"
        if self._has_axes and (writer := writer_of(line)) is not None:
            # While a job runs, the definition of an axis may be missing for a moment.
            key = next(iter(self._axes & line.keys()), f"{writer}/step")
        step = number_of(line.get(key))
        return int(step) if step is not None and math.isfinite(step) else -1


def number_of(stored: Any) -> float | int | None:
    """A number of a line of history, in which those that JSON lacks are strings; `None` if it is none."""
    if isinstance(stored, str):
        return _SPECIAL.get(stored)
    return stored if isinstance(stored, int | float) and not isinstance(stored, bool) else None


def is_same(stored: Any, logged: float | str) -> bool:
    """Whether a value of a line of history is the one that was logged."""
    if isinstance(logged, str):
        return bool(stored == logged)
    number = number_of(stored)
    return number == logged or (number is not None and math.isnan(number) and math.isnan(logged))
