"""Rows in pieces that even a slow server takes while the SDK's run ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rolecall.backend import Row

__all__ = ["PIECE", "pieces", "size"]

PIECE: Final = 4_000_000
"""Bytes of JSON: two pieces, one that waits and one that comes, fit in one request of the SDK's, of 10 MiB. A courier
hands over hundreds of millions before it waits, of which a fast stream confirms none before its end (0.31.0), and a run
that ends has 65 s to bring what is left."""
_LINE: Final = 100
"""Bytes that the SDK adds to a row: `_timestamp`, `_runtime`, `_step`."""
_VALUE: Final = 25
"""Bytes that a value adds to its key: a double, and the signs around both."""


def size(rows: Sequence[Row]) -> int:
    """About how many bytes of JSON the SDK makes of them."""
    return sum(_LINE + sum(len(key) + _VALUE for key in row.metrics) for row in rows)


def pieces(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in their order, in lists that end with the first row that makes one large enough."""
    piece: list[Row] = []
    filled = 0
    for row in rows:
        piece.append(row)
        filled += size([row])
        if filled >= PIECE:
            yield piece
            piece, filled = [], 0
    if piece:
        yield piece
