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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar
from zlib import crc32

from pydantic_core import from_json, to_json

from rolecall.rows import DETAILS

_NO_FILE: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO])
DEFAULT_AXIS: Final = ""
"""The name of the axis of a line that names none."""
LINE: Final = b'%b,"sum":"%08x"}\n'
"""A line, of a JSON object without its closing brace and the checksum of that."""
_SUM: Final = len(b',"sum":"00000000"}')
_DIGITS: Final = len(b'00000000"}')
_NO_MATCH: Final = "its checksum does not match"
_NEAR_END: Final = 1 << 13
_PIECE: Final = 1 << 20
_LONGEST_LINE: Final = 32 << 20
"""What is longer is damage: rows of over 4 MiB are attachments, and a config has a limit, too."""
LARGEST_ATTACHMENT: Final = 1 << 30
# What lines begin with. JSON escapes the quotes inside a string, so this never matches within one.
_START: Final = re.compile(rb'\{"(?:seq|end|ack|axes|config|rolecall)":')
_MOST_STARTS: Final = 8
LONGEST_SHORT_KEY: Final = 58
"""In bytes of JSON, with its quotes."""
PER_NUMBER: Final = LONGEST_SHORT_KEY + 26
"""Bytes of a line for a number and its key, if that is a short one."""
_LITTLE: Final = 8 << 10
_PathT = TypeVar("_PathT", Path, str)


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


def refuse_link(path: _PathT) -> _PathT:
    """The path, unless it is a symlink: somebody else may have put it there, to lead rolecall elsewhere.

    Raises:
        OSError: it is one.
    """
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "is a symlink, and rolecall follows none in a monitor_dir", str(path))
    return path


def make_folder(path: Path) -> None:
    """Make a directory of rolecall's own, if there is none; a symlink in its place is not followed."""
    # One look where it is there, as each image that is logged asks for its directory.
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
    refuse_link(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def folder_below(root: Path, *names: str) -> Iterator[int]:
    """A descriptor of a directory below `root`, which itself may be a symlink.

    What is done with it is done in that directory, even if somebody puts a symlink in its place meanwhile.

    Raises:
        OSError: there is none, or a symlink leads there.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(root, flags)
    try:
        for name in names:
            above, descriptor = descriptor, os.open(name, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def open_own(path: Path, create: bool = False) -> int:
    """A descriptor that appends to a file of this process's own; a symlink in its place is not followed."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags | os.O_CREAT if create else flags, 0o666)


def open_regular(path: Path) -> BinaryIO | None:
    """A file to read; `None` if there is none, or if the path is a symlink, a directory, a pipe or a device."""
    # Without O_NONBLOCK, opening a pipe that somebody put there would wait for a writer.
    careful = os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | careful))  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def read_small(path: Path, limit: int) -> bytes:
    """The content of a small file; of a longer one, `limit` bytes and one more. Nothing if there is none."""
    file = open_regular(path)
    if file is None:
        return b""
    with file:
        return file.read(limit + 1)


def read_end(path: Path, limit: int) -> bytes:
    """The last `limit` bytes of a file; nothing if there is none."""
    file = open_regular(path)
    if file is None:
        return b""
    with file:
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), limit, max(0, size - limit))


def write_whole(descriptor: int, data: bytes) -> None:
    """Write `data` with one system call.

    Raises:
        OSError: only a part of it or nothing was written.
    """
    if os.write(descriptor, data) < len(data):
        # The kernel writes less than it was given where the disk, the quota or the file size limit ends.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _draft_name(path: Path | str) -> str:
    # It is unique: with a fixed one, two writers remove each other's drafts.
    return os.path.join(os.path.dirname(path), f".{os.urandom(16).hex()}")


@contextmanager
def draft_of(path: Path, folder: int | None = None) -> Iterator[Path]:
    """A name beside `path` for what will be renamed or linked to it whole; nothing is left over.

    Args:
        path: the file.
        folder: a descriptor of the directory that `path` is relative to.
    """
    draft = Path(_draft_name(path))
    try:
        yield draft
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)


def put_whole(path: Path | str, data: bytes, mode: int = 0o666, folder: int | None = None) -> None:
    """Replace a file so that readers see the old content or the new, never a part of it.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions, less those of the umask.
        folder: a descriptor of the directory that `path` is relative to.

    Raises:
        OSError: it was not written.
    """
    draft = _draft_name(path)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    # By hand, as each image that is logged comes this way: a file object and a needless look for the draft cost 30 µs.
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        os.replace(draft, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        raise


def put_copy(path: Path, source: Path) -> tuple[int, int]:
    """Make a copy of a file, as `put_whole` does with bytes; returns its size and CRC-32.

    Raises:
        OSError: it was not written.
    """
    size = checksum = 0
    with source.open("rb") as given, draft_of(path) as draft, draft.open("xb") as file:
        while piece := given.read(_PIECE):
            file.write(piece)
            size, checksum = size + len(piece), crc32(piece, checksum)
        file.flush()
        os.replace(draft, path)
    return size, checksum


def encode(value: Mapping[str, Any], seed: int = 0) -> bytes:
    """The line of a mapping that is ready for JSON, newline included.

    Raises:
        ValueError: it holds something that is not.
    """
    ensure_memory()
    # "strings" needs pydantic 2.8. msgspec and orjson take half of the time, but write NaN as null.
    return seal(to_json(value, inf_nan_mode="strings"), seed)


def ensure_memory(content: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Make sure that there is memory to encode something that is ready for JSON.

    Where pydantic_core gets none, it ends the process (2.46, as Rust does by default). `bytes` raises, and touches no
    page of a large piece.

    Raises:
        MemoryError: there is not enough.
    """
    # The encoder's buffer doubles as it grows, and then it is copied.
    bytes(_LITTLE + 4 * _size_of(content))


def _size_of(value: Any) -> int:
    match value:
        case str():
            return len(value) if value.isascii() else 4 * len(value)
        case dict() | MappingProxyType():
            return sum(len(key) + _size_of(item) for key, item in value.items())
        case list() | tuple():
            return sum(map(_size_of, value))
        case _:
            return PER_NUMBER


def seal(text: bytes, seed: int) -> bytes:
    """The line of a JSON object: its closing brace makes room for the checksum."""
    payload = text[:-1]
    return LINE % (payload, crc32(payload, seed))


def decode(line: bytes, seed: int = 0) -> dict[str, Any]:
    """What a line, without its newline, holds.

    Raises:
        ValueError: it is damaged.
    """
    payload = line[:-_SUM]
    if line[-_SUM:] != b',"sum":"%08x"}' % crc32(payload, seed):
        raise ValueError(_NO_MATCH)
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
    """The complete lines from `offset` on: about `limit` bytes of them, but at least one if there is one.

    Damaged lines that follow one another are one damage.
    """
    found = False
    while not found:
        data = _read_some(path, offset, limit)
        for entry in _interpret(path, data, offset, seed):
            found = True
            yield entry
        size = data.rfind(b"\n") + 1
        offset += size
        if not size:
            if (end := _behind_overlong(path, offset)) > offset:
                yield Damage(path, offset, end, "it is longer than any line")
            return


def whole_lines(path: Path, offset: int = 0, limit: int = 1 << 20) -> bytes:
    """The bytes of the complete lines from `offset` on, about `limit` of them, but at least one line if there is one.

    Nothing if there is no such file, or if the line there is longer than any of ours.
    """
    data = _read_some(path, offset, limit)
    return data[: data.rfind(b"\n") + 1]


def _read_some(path: Path, offset: int, limit: int) -> bytes:
    """About `limit` bytes from `offset` on, or one whole line if that is longer; the last line may be cut off."""
    file = open_regular(path)
    if file is None:
        return b""
    with file:
        file.seek(offset)
        data = file.read(limit)
        if data and b"\n" not in data:
            data += file.readline(_LONGEST_LINE)
    return data


def end_of_lines(path: Path) -> int:
    """Where the last complete line ends; 0 if there is none. The cost does not grow with the file."""
    return next((offset + len(data) for offset, data in _blocks_from_end(path)), 0)


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


def rows_of(value: Mapping[str, Any]) -> int:
    """How many rows a line of a journal holds."""
    rows = value.get("rows", 1)
    return rows if type(rows) is int and 1 < rows <= last_seq(value) else 1


def lines_from_end(
    path: Path, seed: int = 0, words: Sequence[bytes] = (b"",), stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """What the sound lines hold, the last one first; what is not asked for is not read.

    Args:
        path: the file.
        seed: of its checksums.
        words: only of the lines with one of these: what is not decoded is passed 100 times as fast.
        stop: where to begin, instead of at the end.
    """
    for _, data in _blocks_from_end(path, stop):
        if not any(word in data for word in words):
            continue
        for raw in reversed(data.split(b"\n")[:-1]):
            if any(word in raw for word in words) and (value := _find_line(raw, seed)[1]) is not None:
                yield value


def _blocks_from_end(path: Path, until: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Where some complete lines begin, and their bytes: the last of the file, or before `until`, first."""
    file = open_regular(path)
    if file is None:
        return
    with file:
        size, reach = os.fstat(file.fileno()).st_size, _NEAR_END
        stop = size if until is None else min(size, until)
        while stop > 0:
            start = max(0, stop - reach)
            data = _read_data(file.fileno(), start, stop)
            # What begins before this block is for the next one.
            begin = data.find(b"\n") + 1 if start else 0
            end = data.rfind(b"\n") + 1
            if begin < end or not start:
                yield start + begin, data[begin:end]
                stop, reach = start + begin, min(reach * 8, _PIECE)
            elif reach < _LONGEST_LINE:
                reach *= 8
            else:
                stop = start  # no line of ours is as long


def _read_data(descriptor: int, start: int, stop: int) -> bytes:
    """The bytes from `start` to `stop`; nothing if the file has no blocks there."""
    return b"" if _next_data(descriptor, start) >= stop else os.pread(descriptor, stop - start, start)


def _behind_overlong(path: Path, offset: int) -> int:
    """Where to read on behind what is longer than any line and has no newline; `offset` if there is no such thing."""
    file = open_regular(path)
    if file is None:
        return offset
    with file:
        size = os.fstat(file.fileno()).st_size
        if size - offset <= _LONGEST_LINE:
            return offset
        return min(size, max(offset + _LONGEST_LINE, _next_data(file.fileno(), offset)))


def _next_data(descriptor: int, offset: int) -> int:
    """Where the file has blocks from `offset` on: a sparse one of any size is passed in no time."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: none up to its end. Others: the filesystem cannot tell.
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else offset


def _interpret(path: Path, data: bytes, offset: int, seed: int) -> Iterator[Line | Damage]:
    """What complete lines hold, of which the first begins at `offset`; what is behind the last newline is left out."""
    begin, until, why = -1, -1, ""
    # One by one: a list of them all would be a second copy of the data.
    for whole in BytesIO(data):
        if not whole.endswith(b"\n"):
            break
        raw, end = whole[:-1], offset + len(whole)
        cut, value, reason = _find_line(raw, seed) if raw else (0, None, "")
        if raw and (cut or value is None):
            begin, why = (offset, reason) if begin < 0 else (begin, why)
            until = end if value is None else offset + cut
        if value is not None:
            if begin >= 0:
                yield Damage(path, begin, until, why)
                begin = -1
            yield Line(value, offset + cut, end)
        offset = end
    if begin >= 0:
        yield Damage(path, begin, until, why)


def _find_line(raw: bytes, seed: int) -> tuple[int, dict[str, Any] | None, str]:
    """Where the sound line in these bytes begins and what it holds, if there is one; what is wrong before it."""
    # What does not end like a line holds none. A file may have millions of those, so this is quick.
    if raw[-_SUM:-_DIGITS] != b',"sum":"':
        return 0, None, _NO_MATCH
    try:
        return 0, decode(raw, seed), ""
    except (ValueError, RecursionError) as error:
        reason = str(error)
    # A damaged newline must not cost the next line, so look for one that begins inside of this one. A crafted line may
    # hold any number of starts: few are tried.
    for match in islice(_START.finditer(raw, 1), _MOST_STARTS):
        cut = match.start()
        with suppress(ValueError, RecursionError):
            return cut, decode(raw[cut:], seed), reason
    return 0, None, reason


def is_change(line: Mapping[str, Any]) -> bool:
    """Whether a line of a journal changes the details, and holds no row."""
    return "seq" in line and "end" not in line and any(kind in line for kind in DETAILS)


def only_for(line: Mapping[str, Any]) -> str | None:
    """The names of the only backends that get what a line of a journal holds; `""` for none, `None` for all."""
    if is_change(line):
        return ""
    backends = line.get("backends")
    # A row for no backend is a row all the same, which no change is; `none` is the name of no backend.
    return None if backends is None else ",".join(map(str, backends)) or "none"
