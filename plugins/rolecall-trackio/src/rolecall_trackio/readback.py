"""What a run in trackio's database holds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from rolecall import Point, Row, Unavailable
from rolecall_trackio.values import metrics, points, time_of, timestamp

__all__ = ["TrackioReadback"]

ROWS: Final = "SELECT step, timestamp, metrics FROM metrics WHERE run_id = ?"


class TrackioReadback:
    """Reads the database itself; a `rolecall.SupportsReadback` that reads a run once for all metrics.

    `trackio.Api` has no metrics (0.43), and what the dashboard calls has the whole run in memory and opens the database
    to write.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self._path = path
        self._run_id = run_id

    def keys(self) -> Iterator[str]:
        """See `rolecall.SupportsReadback`."""
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        """See `rolecall.SupportsReadback`."""
        return (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        """See `rolecall.SupportsScan`."""
        try:
            for step, stamp, held in self._rows():
                time = time_of(stamp)
                for key, value in points(json.loads(held)):
                    yield key, Point(step, value, time)
        except sqlite3.Error as error:
            raise Unavailable(f"trackio: {self._path} cannot be read: {error}") from error

    def expected(self, row: Row) -> Row:
        """The row with trackio's names of its keys, and its time in microseconds."""
        return replace(row, metrics=dict(points(metrics(row))), time=time_of(timestamp(row.time)))

    def close(self) -> None:
        """Nothing is open."""

    def _rows(self) -> Iterator[tuple[int, str, bytes]]:
        db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)
        try:
            yield from db.execute(ROWS, (self._run_id,))
        finally:
            db.close()
