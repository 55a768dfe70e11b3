"""A page that a role shares with whoever watches it, and that outlives its death."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

__all__ = ["Page"]

_HEAD: Final = struct.Struct("<qqq")


class Page:
    """What a role has come to: rows that `log` has returned for, and the longest it took.

    Attributes of the head: whether it closes, and the longest `log` and the longest pause of the control, in ns.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.count = count
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(_HEAD.size + count)
            self._map = mmap.mmap(file.fileno(), _HEAD.size + count)

    def acknowledge(self, index: int) -> None:
        """`log` has returned for this row, and did not say that it is lost."""
        self._map[_HEAD.size + index] = 1

    def acknowledged(self) -> list[int]:
        """The rows that `log` has returned for."""
        marks = self._map[_HEAD.size :]
        return [index for index in range(self.count) if marks[index]]

    def mark_closing(self) -> None:
        """All is logged."""
        _, log, control = self.head()
        self._put(1, log, control)

    def measure(self, log: int, control: int) -> None:
        """One call of `log`, and the longest pause of the control behind it."""
        closing, longest_log, longest_control = self.head()
        self._put(closing, max(log, longest_log), max(control, longest_control))

    def head(self) -> tuple[int, int, int]:
        """Whether it closes, the longest `log`, the longest pause of the control."""
        closing, log, control = _HEAD.unpack_from(self._map)
        return closing, log, control

    def _put(self, closing: int, log: int, control: int) -> None:
        _HEAD.pack_into(self._map, 0, closing, log, control)
