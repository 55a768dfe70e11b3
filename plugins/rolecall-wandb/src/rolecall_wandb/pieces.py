"""Rows in pieces that even a slow server takes while the SDK's run ends, and how much of them is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rolecall import Row

__all__ = ["PIECE", "UnderWay", "pieces"]

PIECE: Final = 4_000_000
"""Bytes of JSON: two pieces, one that waits and one that comes, fit in one request of the SDK's, of 10 MiB. A courier
hands over hundreds of millions before it waits, of which a fast stream confirms none before its end (0.31.0), and a run
that ends has 65 s to bring what is left."""
_LINE: Final = 100
"""Bytes that the SDK adds to a row: `_timestamp`, `_runtime`, `_step`."""
_VALUE: Final = 28
"""Bytes that a value adds to its key: a double of up to 24, and the signs around both."""


class UnderWay:
    """How many bytes of JSON the SDK was handed that are not confirmed."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[tuple[Row, int]] = deque()

    def add(self, rows: Sequence[Row]) -> None:
        """The SDK was handed these."""
        self._pieces.append((rows[-1], size := _size(rows)))
        self.size += size

    def drop(self, is_confirmed: Callable[[Row], bool]) -> None:
        """Some were confirmed: a piece is, if its last row is."""
        while self._pieces and is_confirmed(self._pieces[0][0]):
            self.size -= self._pieces.popleft()[1]

    def clear(self) -> None:
        """The SDK has none any more."""
        self.size = 0
        self._pieces.clear()


def pieces(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in their order, in lists that end with the first row that makes one large enough."""
    piece: list[Row] = []
    filled = 0
    for row in rows:
        piece.append(row)
        filled += _size([row])
        if filled >= PIECE:
            yield piece
            piece, filled = [], 0
    if piece:
        yield piece


def _size(rows: Sequence[Row]) -> int:
    return sum(_LINE + sum(len(key.encode()) + _VALUE for key in row.metrics) for row in rows)
