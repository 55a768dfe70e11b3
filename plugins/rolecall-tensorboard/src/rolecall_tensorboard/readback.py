"""What a run's event files hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rolecall import Point, Row, Unavailable
from rolecall_tensorboard.ledger import read_records
from rolecall_tensorboard.records.encode import Encoder
from rolecall_tensorboard.sdk import Sdk

__all__ = ["TensorBoardReadback", "has_scalars"]

logger = logging.getLogger(__name__)


class TensorBoardReadback:
    """Reads event files; a `rolecall.SupportsReadback` that reads them once for all metrics.

    It reports what is in the files. After a restart from a checkpoint, TensorBoard draws less: the later values alone.
    A file that is cut off or damaged is read up to there, as TensorBoard does, with a warning.
    """

    def __init__(self, files: Sequence[Path], sdk: Sdk) -> None:
        self._files = files
        self._sdk = sdk
        self._encoder = Encoder(sdk)

    def keys(self) -> Iterator[str]:
        """See `rolecall.SupportsReadback`."""
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        """See `rolecall.SupportsReadback`."""
        return (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        """See `rolecall.SupportsScan`."""
        for path in self._files:
            try:
                yield from self._scan_file(path)
            except OSError as error:
                raise Unavailable(f"tensorboard: {path} cannot be read: {error.strerror}") from error

    def expected(self, row: Row) -> Row:
        """The row with values of 32 bits; strings are in event files, too, but are not points."""
        return replace(row, metrics=dict(_scalars(self._encoder.event(row))))

    def close(self) -> None:
        """Nothing is open."""

    def _scan_file(self, path: Path) -> Iterator[tuple[str, Point]]:
        with path.open("rb") as file:
            end = 0
            for event, record in read_records(file, self._sdk):
                end += len(record)
                for key, value in _scalars(event):
                    yield key, Point(event.step, value, event.wall_time)
            if end < (size := path.stat().st_size):
                logger.warning(
                    "tensorboard: %s is cut off or damaged: only %d of %d bytes can be read", path, end, size
                )


def has_scalars(event: Any) -> bool:
    """Whether a record holds metrics."""
    return next(_scalars(event), None) is not None


def _scalars(event: Any) -> Iterator[tuple[str, float]]:
    """The metrics of a record."""
    for value in event.summary.value:
        if value.HasField("simple_value"):
            yield value.tag, value.simple_value
