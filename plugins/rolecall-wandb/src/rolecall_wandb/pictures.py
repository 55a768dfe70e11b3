"""The size of a picture, read from the start of its file: wandb's pages leave room for it before they load it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct, error, unpack_from
from typing import Final

__all__ = ["size_of_picture"]

_START: Final = 1 << 20
"""Bytes in which a JPEG has told its size, after what a camera has written there."""
_SEGMENT: Final = Struct(">BBH")
_FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""The markers of JPEG with which a picture begins."""


def size_of_picture(path: Path) -> tuple[int, int] | None:
    """The width and height of a PNG, GIF, JPEG or WebP file; `None` if it does not say them."""
    with path.open("rb") as file:
        data = file.read(_START)
    try:
        return next(_sizes(data), None)
    except error:  # it ends before
        return None


def _sizes(data: bytes) -> Iterator[tuple[int, int]]:
    if data.startswith(b"\x89PNG"):
        yield unpack_from(">II", data, 16)
    elif data.startswith(b"GIF8"):
        yield unpack_from("<HH", data, 6)
    elif data.startswith(b"\xff\xd8"):
        yield from _jpeg(data)
    elif data[8:16] == b"WEBPVP8X":
        yield tuple(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))  # type: ignore[misc]
    elif data[8:16] == b"WEBPVP8L":
        (bits,) = unpack_from("<I", data, 21)
        yield 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif data[8:16] == b"WEBPVP8 ":
        width, height = unpack_from("<HH", data, 26)
        yield width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while True:
        start, marker, length = _SEGMENT.unpack_from(data, at)
        if start != 0xFF:  # noqa: PLR2004 - no segment begins here, so this is no JPEG
            return
        if marker in _FRAMES:
            height, width = unpack_from(">HH", data, at + 5)
            yield width, height
        at += 2 + length
