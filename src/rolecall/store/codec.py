"""The lines that every file of rolecall in `monitor_dir` is made of.

A *frame* is one line: eight hexadecimal digits of the CRC-32 of the payload, a space, the payload as one line
of JSON in UTF-8, and a newline::

    a65f2a42 {"n":1,"s":1,"t":1764000000.0,"m":{"loss":0.5}}

or, of a *packed* one (see `rolecall.store.packed`), an equals sign and the payload as base64, as in
`cebcb80c=AwAAAAAAAAADAAAAAAAAAAAAAEAgSdpB`.

Files of frames are only ever appended to, by their owner alone. A reader never writes. It stops before a last
line that has no newline yet (the owner may be writing it), and takes any other line that does not check for
damage: that line is lost and told, with its file and offset, the ones around it are not. Nor is the next one
if it is the newline between them that is gone.

A file may end in null bytes, which stand in no line: room for what its owner stores through a memory map (see
`rolecall.store.room`). A line that has some is being stored right now.
"""

from __future__ import annotations

import json
import os
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from pydantic_core import from_json, to_json

from rolecall.store.files import open_regular, write_whole

__all__ = [
    "Damage",
    "Frame",
    "append_frame",
    "count_lines",
    "decode_all",
    "decode_line",
    "encode",
    "encode_packed",
    "end_of_lines",
    "first_frame",
    "last_frame",
    "read_frames",
    "read_lines",
    "whole_lines",
]

_TAIL = 1 << 18
_PIECE = 1 << 20
_BEGINNING = re.compile(rb"[0-9a-f]{8}(?: \{|=)")
_MOST_BEGINNINGS = 8
_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Frame(NamedTuple):
    """One line that checked: what it holds, and where it stands. A packed one holds `{"packed": bytes}`."""

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
    """The frame of a JSON-ready mapping, newline included. NaN and infinities are kept, as Python's json does.

    pydantic's encoder takes a fifth of the time of Python's, but not a text that has no UTF-8.
    """
    try:
        payload = to_json(value, inf_nan_mode="constants")
    except ValueError:
        payload = _encode_json(value).encode("ascii")
    return b"%08x %s\n" % (crc32(payload), payload)


def encode_packed(body: bytes) -> bytes:
    """The frame of a packed payload, newline included."""
    payload = b2a_base64(body, newline=False)
    return b"%08x=%b\n" % (crc32(payload), payload)


def _value(mark: bytes, payload: bytes) -> Any:
    """What a payload holds, by the character before it.

    Raises:
        ValueError: nothing.
    """
    if mark == b" ":
        return _json(payload)
    if mark == b"=":
        return {"packed": a2b_base64(payload, strict_mode=True)}
    raise ValueError("it does not say how it is encoded")


def _json(payload: bytes) -> Any:
    """Here too pydantic is several times as fast, and Python takes what has no UTF-8."""
    try:
        return from_json(payload)
    except ValueError:
        return json.loads(payload)


def append_frame(descriptor: int, value: Mapping[str, Any]) -> None:
    """Append one frame with one write; a torn line before it is closed off, so that it costs itself alone.

    Raises:
        OSError: it was not written, or not whole.
    """
    write_whole(descriptor, (b"" if _ends_whole(descriptor) else b"\n") + encode(value))


def read_frames(path: Path, offset: int = 0, limit: int = 1 << 20) -> Iterator[Frame | Damage]:
    """What the lines hold that `read_lines` reads."""
    for line, start in read_lines(path, offset, limit):
        yield from decode_all(path, line, start)


def read_lines(path: Path, offset: int = 0, limit: int = 1 << 20) -> Iterator[tuple[bytes, int]]:
    """The complete lines from `offset` on, about `limit` bytes of them, but one at least if there is one.

    Each without its newline, and where it begins; empty ones are left out. Nothing if there is no such file, or
    something there that is no file.
    """
    found = False
    while not found and (data := whole_lines(path, offset, limit)):
        for line in data.split(b"\n")[:-1]:
            if line:
                found = True
                yield line, offset
            offset += len(line) + 1


def whole_lines(path: Path, offset: int = 0, limit: int = 1 << 20) -> bytes:
    """The complete lines from `offset` on as they are, about `limit` bytes of them, but one at least if there is one.

    Nothing if there is no such file, or something there that is no file.
    """
    file = open_regular(path)
    if file is None:
        return b""
    with file:
        if os.fstat(file.fileno()).st_size <= offset:
            return b""
        lines = _lines_at(file, offset, limit)
        return lines if b"\0" not in lines else _stored_by_now(file, offset, len(lines))


def end_of_lines(path: Path) -> int:
    """Where the last complete line ends; 0 if there is none. The cost does not grow with the file."""
    for start, reach in _back_from_end(path):
        if lines := whole_lines(path, start, reach):
            return start + len(lines)
    return 0


def first_frame(path: Path) -> dict[str, Any] | None:
    """What the first line holds; `None` if the file is missing, empty or damaged there."""
    found = next(read_frames(path, limit=1), None)
    return found.value if isinstance(found, Frame) else None


def last_frame(path: Path) -> dict[str, Any] | None:
    """What the last sound line holds, found from the end: the cost does not grow with the file."""
    for start, reach in _back_from_end(path):
        if frames := [found.value for found in read_frames(path, start, reach) if isinstance(found, Frame)]:
            return frames[-1]
    return None


def count_lines(path: Path, offset: int = 0) -> int:
    """How many complete lines stand there from `offset` on, whether they check or not."""
    file = open_regular(path)
    if file is None:
        return 0
    with file:
        file.seek(offset)
        return sum(data.count(b"\n") for data in iter(partial(file.read, _PIECE), b""))


def _ends_whole(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _back_from_end(path: Path) -> Iterator[tuple[int, int]]:
    """Offsets, and how many bytes of the file to read from there, further and further back."""
    size, reach = _size(path), _TAIL
    while size > reach:
        yield size - reach, reach
        reach *= 8
    yield 0, reach


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _lines_at(file: BinaryIO, offset: int, limit: int) -> bytes:
    """Whole lines; at least one where there is one, however long it is."""
    file.seek(offset)
    data = file.read(limit)
    if not data.endswith(b"\n"):
        data += file.readline()
    return data[: data.rfind(b"\n") + 1]


def _stored_by_now(file: BinaryIO, offset: int, length: int) -> bytes:
    """Lines of so many bytes, of which some were only stored in part when they were read first.

    The kernel reads page by page, so a line may be seen before the one in front of it. All but the last were whole when
    the last was seen, and it was if another is seen behind it: then null bytes that are there again are damage.
    """
    is_last = os.pread(file.fileno(), 1, offset + length) in (b"", b"\0")
    lines = os.pread(file.fileno(), length, offset)
    begin = lines.rfind(b"\n", 0, -1) + 1
    return lines[:begin] if is_last and b"\0" in lines[begin:] else lines


def _apart(path: Path, line: bytes, damage: Damage) -> Iterator[Frame | Damage]:
    """What a damaged line holds: damage, or two frames (or damage and one) without the newline between them."""
    if cut := _inner_beginning(path, line):
        yield decode_line(path, line[: cut - 1], damage.offset)
        yield decode_line(path, line[cut:], damage.offset + cut)
    else:
        yield damage


def _inner_beginning(path: Path, line: bytes) -> int | None:
    """Where in a damaged line a sound frame begins. Few places are tried: a crafted line may have any number.

    No sound line holds another: JSON escapes the quotes within its texts, so from inside a text on they never match.
    """
    places = (match.start() for match in islice(_BEGINNING.finditer(line, 1), _MOST_BEGINNINGS))
    return next((at for at in places if isinstance(decode_line(path, line[at:], at), Frame)), None)


def decode_all(path: Path, line: bytes, start: int) -> Iterable[Frame | Damage]:
    """What one line, without its newline, holds; it may be two frames, if the newline between them is gone."""
    one = decode_line(path, line, start)
    return (one,) if isinstance(one, Frame) else _apart(path, line, one)


def decode_line(path: Path, line: bytes, start: int) -> Frame | Damage:
    """What one line, without its newline, holds; where it stands is told in what is wrong with it."""
    end = start + len(line) + 1
    checksum, mark, payload = line[:8], line[8:9], line[9:]
    if checksum != b"%08x" % crc32(payload):
        return Damage(path, start, end, "its checksum does not match")
    try:
        value = _value(mark, payload)
    except (ValueError, RecursionError) as error:
        return Damage(path, start, end, str(error))
    if not isinstance(value, dict):
        return Damage(path, start, end, "it is not a mapping")
    return Frame(value, start, end)
