"""Splits rows into pieces that even a slow server accepts while the SDK's run ends, and counts what is under way."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rolecall import Row

__all__ = ["PIECE", "UnderWay", "pieces", "size_of"]

# Bytes of JSON. Two pieces, one under way and the next, fit in one request of the SDK, of up to 10 MiB. Without pieces
# a courier hands over hundreds of millions of bytes before it waits, of which the server confirms none before the end
# of a fast stream (0.31.0), and a run that ends has 65 s to upload what is left.
PIECE: Final = 4_000_000
_LINE: Final = 100  # bytes that the SDK adds to a row: `_timestamp`, `_runtime`, `_step`
_VALUE: Final = 28  # bytes of a number, a double of up to 24, and of the quotes, colon and comma around key and number
_FILE: Final = 400  # bytes of what a line says of a file: its name, digest, size and type
_STRING: Final = 4  # bytes of the quotes around a key, the colon and the comma; `json.dumps` quotes the string


class UnderWay:
    """Counts the bytes of JSON that the SDK was handed and that are not confirmed."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[tuple[Row, int]] = deque()

    def add(self, rows: Sequence[Row]) -> None:
        """Count rows that the SDK was handed."""
        self._pieces.append((rows[-1], size := sum(map(size_of, rows))))
        self.size += size

    def drop(self, is_confirmed: Callable[[Row], bool]) -> None:
        """Stop counting the pieces whose last row is confirmed."""
        while self._pieces and is_confirmed(self._pieces[0][0]):
            self.size -= self._pieces.popleft()[1]

    def clear(self) -> None:
        """Stop counting, because the SDK's run has ended."""
        self.size = 0
        self._pieces.clear()


def pieces(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Split rows into lists, in order; each list ends with the row that makes it large enough."""
    piece: list[Row] = []
    filled = 0
    for row in rows:
        piece.append(row)
        filled += size_of(row)
        if filled >= PIECE:
            yield piece
            piece, filled = [], 0
    if piece:
        yield piece


def size_of(row: Row) -> int:
    """The bytes of JSON that the SDK sends for a row."""
    return _LINE + _numbers(row) + _strings(row) + _media(row)


def _numbers(row: Row) -> int:
    return sum(len(key.encode()) + _VALUE for key in row.metrics)


def _strings(row: Row) -> int:
    # The SDK sends values as `json.dumps` does: a character outside of ASCII is escaped and takes 6 or 12 bytes.
    return sum(len(key.encode()) + _STRING + len(json.dumps(text)) for key, text in row.text.items())


def _media(row: Row) -> int:
    texts = (len(json.dumps(media.key)) + len(json.dumps(media.caption)) for media in row.media)
    numbers = (len(media.counts) + len(media.edges) for media in row.media)
    return sum(_FILE + size for size in texts) + _VALUE * sum(numbers)
