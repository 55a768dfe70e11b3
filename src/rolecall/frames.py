"""The lines that every file of rolecall in `monitor_dir` is made of.

A *frame* is one line: eight hexadecimal digits of the CRC-32 of the payload, a space, the payload as one line
of JSON in ASCII, and a newline::

    9ae0daaf {"n":1,"s":1,"t":1764000000.0,"m":{"loss":0.5}}

Files of frames are only ever appended to, by their owner alone. A reader never writes. It stops before a last
line that has no newline yet (the owner may be writing it), and takes any other line that does not check for
damage: that line is lost and told, with its file and offset, the ones around it are not.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Damage", "Frame", "encode", "first_frame", "last_frame", "read_frames"]

_TAIL = 1 << 16
_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Frame:
    """One line that checked: what it holds, and where it stands."""

    value: dict[str, Any]
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """One line that did not check, and where it stands."""

    path: Path
    offset: int
    end: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.end - self.offset} bytes at offset {self.offset} are damaged ({self.reason})"
        )


def encode(value: Mapping[str, Any]) -> bytes:
    """The frame of a JSON-ready mapping, newline included. NaN and infinities are kept, as Python's json does."""
    payload = _encode_json(value).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def read_frames(path: Path, offset: int = 0, limit: int = 1 << 20) -> Iterator[Frame | Damage]:
    """The complete lines from `offset` on, about `limit` bytes of them; nothing if there is no such file."""
    for line, start in _lines(_read(path, offset, limit), offset):
        if line:
            yield _decode(path, line, start)


def first_frame(path: Path) -> dict[str, Any] | None:
    """What the first line holds; `None` if the file is missing, empty or damaged there."""
    return next((found.value for found in read_frames(path, 0, _TAIL) if isinstance(found, Frame)), None)


def last_frame(path: Path) -> dict[str, Any] | None:
    """What the last sound line holds, found from the end: the cost does not grow with the file."""
    size = path.stat().st_size if path.exists() else 0
    reach = _TAIL
    while True:
        start = max(0, size - reach)
        frames = [found.value for found in read_frames(path, start, reach) if isinstance(found, Frame)]
        if frames or start == 0:
            return frames[-1] if frames else None
        reach *= 8


def _read(path: Path, offset: int, limit: int) -> bytes:
    """At least one whole line where there is one, however long it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        file.seek(offset)
        data = file.read(limit)
        return data if data.endswith(b"\n") or not data else data + file.readline()


def _lines(data: bytes, offset: int) -> Iterator[tuple[bytes, int]]:
    for line in data.split(b"\n")[:-1]:
        yield line, offset
        offset += len(line) + 1


def _decode(path: Path, line: bytes, start: int) -> Frame | Damage:
    end = start + len(line) + 1
    checksum, _, payload = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(payload):
        return Damage(path, start, end, "its checksum does not match")
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        return Damage(path, start, end, str(error))
    if not isinstance(value, dict):
        return Damage(path, start, end, "it is not a mapping")
    return Frame(value, start, end)
