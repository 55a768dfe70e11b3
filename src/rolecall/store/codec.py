"""The lines that every file of rolecall in `monitor_dir` is made of.

A line is one JSON object that ends with a checksum of fixed width::

    {"seq": 1, "step": 1, "time": 1764000000.5, "data": {"loss": 0.5}, "sum": "23075f93"}

`sum` is the CRC-32 of the bytes before `,"sum"`. In a journal it is seeded with the writer and the session, so that a
line of another journal does not pass for one of this. Non-finite numbers are the strings `"NaN"`, `"Infinity"` and
`"-Infinity"`: every undamaged file can be read by `jq`, pandas, DuckDB and any other reader of JSON lines.

Only the owner of a file appends to it, and a reader never writes: one that cut off a torn line would corrupt a live
writer's file. A reader stops before a last line without a newline, because the owner may be writing it. Any other line
whose checksum does not match is damage: it is reported with file and offset, and costs no other line.

Other processes, and perhaps other people, change the directory at the same time, so this module opens, writes and
replaces its files, too.
"""

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from zlib import crc32

from pydantic_core import from_json, to_json

_NO_FILE: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO])
_SUM: Final = len(b',"sum":"00000000"}')
_NEAR_END: Final = 1 << 13
# What lines begin with. JSON escapes the quotes inside a string, so this never matches within one.
_START: Final = re.compile(rb'\{"(?:seq|end|ack|axes|config|rolecall)":')
_MOST_STARTS: Final = 8


class Line(NamedTuple):
    """One sound line: what it holds, where it begins, and where the next one does."""

    value: dict[str, Any]
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that hold no sound line.

    Attributes:
        path: the file.
        offset: where they begin.
        end: where the next line begins.
        reason: what is wrong.
        lost: which rows of a journal are missing because of it, in words; empty if that is not known.
    """

    path: Path
    offset: int
    end: int
    reason: str
    lost: str = ""

    def __str__(self) -> str:
        rows = f"; {self.lost}" if self.lost else ""
        return f"{self.path}: {self.end - self.offset} bytes at offset {self.offset} are damaged ({self.reason}{rows})"


def open_own(path: Path, create: bool = False) -> int:
    """A descriptor that appends to a file of this process's own; a symlink in its place is not followed."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags | os.O_CREAT if create else flags, 0o666)


def open_regular(path: Path) -> BinaryIO | None:
    """A file to read; `None` if there is none, or if the path is a directory, a pipe or a device."""
    try:
        # Without O_NONBLOCK, opening a pipe that somebody put there would wait for a writer.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def write_whole(descriptor: int, data: bytes) -> None:
    """Write `data` with one system call.

    Raises:
        OSError: only a part of it or nothing was written.
    """
    if os.write(descriptor, data) < len(data):
        # The kernel writes less than it was given where the disk, the quota or the file size limit ends.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A name beside `path` for what will be renamed or linked to it whole; nothing is left over."""
    # The draft's name is unique: with a fixed one, two writers remove each other's drafts.
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def put_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file so that readers see the old content or the new, never a part of it.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions, less those of the umask.

    Raises:
        OSError: it was not written.
    """
    with draft_of(path) as draft:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        os.replace(draft, path)


def encode(value: Mapping[str, Any], seed: int = 0) -> bytes:
    """The line of a mapping that is ready for JSON, newline included.

    Raises:
        ValueError: it holds something that is not.
    """
    # "strings" needs pydantic 2.8. msgspec and orjson take half of the time, but write NaN as null.
    return seal(to_json(value, inf_nan_mode="strings"), seed)


def seal(text: bytes, seed: int) -> bytes:
    """The line of a JSON object: its closing brace makes room for the checksum."""
    payload = text[:-1]
    return b'%b,"sum":"%08x"}\n' % (payload, crc32(payload, seed))


def decode(line: bytes, seed: int = 0) -> dict[str, Any]:
    """What a line, without its newline, holds.

    Raises:
        ValueError: it is damaged.
    """
    payload = line[:-_SUM]
    if line[-_SUM:] != b',"sum":"%08x"}' % crc32(payload, seed):
        raise ValueError("its checksum does not match")
    value = from_json(payload + b"}")
    if not isinstance(value, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - one error for all damage
    return value


def append_line(descriptor: int, value: Mapping[str, Any], seed: int = 0) -> None:
    """Append one line with one write.

    Raises:
        OSError: it was not written, or not whole.
    """
    size = os.fstat(descriptor).st_size
    is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    # A torn line before it is closed first, so that it costs itself alone.
    write_whole(descriptor, (b"\n" if is_torn else b"") + encode(value, seed))


def read_lines(path: Path, offset: int = 0, limit: int = 1 << 20, seed: int = 0) -> Iterator[Line | Damage]:
    """The complete lines from `offset` on: about `limit` bytes of them, but at least one if there is one."""
    found = False
    while not found and (data := whole_lines(path, offset, limit)):
        for raw in data.split(b"\n")[:-1]:
            if raw:
                found = True
                yield from _decode_at(path, raw, offset, seed)
            offset += len(raw) + 1


def whole_lines(path: Path, offset: int = 0, limit: int = 1 << 20) -> bytes:
    """The bytes of the complete lines from `offset` on, about `limit` of them, but at least one line if there is one.

    Nothing if there is no such file.
    """
    file = open_regular(path)
    if file is None:
        return b""
    with file:
        file.seek(offset)
        data = file.read(limit)
        if data and not data.endswith(b"\n"):
            data += file.readline()
    return data[: data.rfind(b"\n") + 1]


def end_of_lines(path: Path) -> int:
    """Where the last complete line ends; 0 if there is none. The cost does not grow with the file."""
    for start, reach in _back_from_end(path):
        if lines := whole_lines(path, start, reach):
            return start + len(lines)
    return 0


def first_line(path: Path, seed: int = 0) -> dict[str, Any] | None:
    """What the first line holds; `None` if the file is missing or empty, or that line is damaged."""
    found = next(read_lines(path, limit=1, seed=seed), None)
    return found.value if isinstance(found, Line) else None


def last_line(path: Path, seed: int = 0) -> dict[str, Any] | None:
    """What the last sound line holds. The cost does not grow with the file."""
    return next(lines_from_end(path, seed), None)


def last_seq(value: Mapping[str, Any] | None) -> int:
    """The number of the last row, by the last line of a session."""
    seq = (value or {}).get("seq", 0)
    return seq if type(seq) is int and 0 <= seq < 1 << 63 else 0


def lines_from_end(path: Path, seed: int = 0) -> Iterator[dict[str, Any]]:
    """What the sound lines hold, the last one first; what is not asked for is not read."""
    seen = 0
    for start, reach in _back_from_end(path):
        found = [line.value for line in read_lines(path, start, reach, seed) if isinstance(line, Line)]
        # Where a read begins in the middle of a line, that line is found by the next, longer read.
        yield from reversed(found[: len(found) - seen])
        seen = max(seen, len(found))


def _back_from_end(path: Path) -> Iterator[tuple[int, int]]:
    """Offsets further and further back, and how many bytes of the file there are from there on."""
    try:
        size, reach = path.stat().st_size, _NEAR_END
    except OSError:
        return
    while size > reach:
        yield size - reach, reach
        reach *= 8
    yield 0, reach


def _decode_at(path: Path, raw: bytes, start: int, seed: int) -> Iterator[Line | Damage]:
    end = start + len(raw) + 1
    reason = ""
    # A damaged newline must not cost the next line, so look for one that begins inside of this one. A crafted line may
    # hold any number of starts: few are tried.
    inside = (match.start() for match in islice(_START.finditer(raw, 1), _MOST_STARTS))
    for cut in chain([0], inside):
        try:
            value = decode(raw[cut:], seed)
        except (ValueError, RecursionError) as error:
            reason = reason or str(error)
            continue
        if cut:
            yield Damage(path, start, start + cut, reason)
        yield Line(value, start + cut, end)
        return
    yield Damage(path, start, end, reason)
