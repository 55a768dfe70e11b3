"""Put the next line into a map of a journal's end: number it, place it and move the end, all at once or not at all.

Threads and signal handlers log too, and have no lock for it: of those who wait for one CPython makes a queue, each in
it waiting for the interpreter lock too. `CompiledStore` is the same in C, where nobody can come in between. It also
records the rows that look like earlier ones from beginning to end, as what takes time there is that code which ran a
step of training ago is not in the processor's caches any more. It is there where a C compiler was when rolecall was
installed.
"""

from __future__ import annotations

import mmap
from typing import Final, Protocol

from rolecall.store.compiled import speedups

__all__ = ["CompiledStore", "PlainStore", "Store"]


class Store(Protocol):
    """What is mapped of a file's end, and how far it is filled.

    Attributes:
        rows: how many rows the file holds.
        end: the offset behind the last line.
        since: from when on `repeat` may record rows, in seconds as `time.time` tells them.
        until: and until when.
    """

    rows: int
    end: int
    since: float
    until: float

    @property
    def limit(self) -> int:
        """The offset at which there is no more room; 0 while it is closed."""
        ...

    def open(self, pages: mmap.mmap, start: int, /) -> None:
        """Lines are stored in `pages` from now on, which begin at this offset of the file."""
        ...

    def close(self) -> None:
        """Nobody stores any more until it is opened again."""
        ...

    def put(self, seq: int, line: bytes, /) -> bool:
        """Store the line of a row behind the last one; False if it is not the next row, or there is no room."""
        ...

    def repeat(self, step: object, metrics: object, /) -> bool:
        """Record a row that has a form that was told to `expect`; False if it was not recorded.

        Anything may be given: types are compared here.
        """
        ...

    def expect(self, names: tuple[str, ...], letters: bytes, named: bytes, /) -> None:
        """Rows of these keys and types may come, see `rolecall.store.packed`; the 16 forms that came last are known."""
        ...

    def forget(self) -> None:
        """None of the rows that were expected may be recorded any more."""
        ...


class PlainStore:
    """In Python; it leaves every row to `put`."""

    def __init__(self) -> None:
        self.rows = 0
        self.end = 0
        self.since = 0.0
        self.until = 0.0
        self.close()

    @property
    def limit(self) -> int:
        """0 while it is closed."""
        return self._window[2]

    def open(self, pages: mmap.mmap, start: int, /) -> None:
        """Map, or map anew."""
        self._window: tuple[mmap.mmap | bytearray, int, int] = (pages, start, start + len(pages))

    def close(self) -> None:
        """Let go of the map."""
        self._window = (bytearray(), 0, 0)

    def put(self, seq: int, line: bytes, /) -> bool:
        """Another thread, or a signal handler that logs, can come in at every call here.

        So after the last one the row's number and the map are looked at. Between that look and the end of the store
        nobody can: CPython switches and interrupts at calls and jumps back (Python/ceval.c of 3.11,
        `_CHECK_PERIODIC` in bytecodes.c of 3.14), and nothing is made there that could set its garbage collector off.
        Only a tracer that is written in Python (`sys.settrace`) runs code there.
        """
        window, place = self._window, self.end
        pages, start, limit = window
        end = place + len(line)
        where = slice(place - start, end - start)
        if not start <= place < end <= limit or seq != self.rows + 1 or window is not self._window:
            return False
        self.rows = seq
        self.end = end
        pages[where] = line
        return True

    def repeat(self, step: object, metrics: object, /) -> bool:
        """Not here."""
        return False

    def expect(self, names: tuple[str, ...], letters: bytes, named: bytes, /) -> None:
        """Nothing, as `repeat` records none."""

    def forget(self) -> None:
        """Nothing, as none are expected."""


CompiledStore: Final[type[Store] | None] = getattr(speedups(), "Store", None)
"""`None` where there is none."""
