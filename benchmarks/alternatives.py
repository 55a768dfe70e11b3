"""Other ways to keep a row, each as bare as the limit: what rolecall could have been, measured beside what it is.

All hand a whole row to the kernel before they return. None checks what it is given.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from zlib import crc32

__all__ = ["ALTERNATIVES"]

Log = Callable[[Mapping[str, float], int], object]
Encode = Callable[[int, int, Mapping[str, float]], bytes]
Put = Callable[[bytes], object]
ROOM = 64 << 20
"""Bytes of a mapped file; its blocks are allotted at once, as a page without one kills the process (SIGBUS)."""


def _alternative(encode: Encode, put: Callable[[Path], Put]) -> Callable[[Path], AbstractContextManager[Log]]:
    @contextmanager
    def peer(folder: Path) -> Iterator[Log]:
        place, seq = put(folder / "rows"), 0

        def log(metrics: Mapping[str, float], step: int) -> None:
            nonlocal seq
            seq += 1
            place(encode(seq, step, metrics))

        yield log

    return peer


def _json(seq: int, step: int, metrics: Mapping[str, float]) -> bytes:
    from rolecall.frames import encode

    return encode({"n": seq, "s": step, "t": time.time(), "m": metrics})


def _orjson(seq: int, step: int, metrics: Mapping[str, float]) -> bytes:
    """As `_json`, by another encoder, which turns NaN into null."""
    import orjson

    payload = orjson.dumps({"n": seq, "s": step, "t": time.time(), "m": metrics})
    return b"%08x %s\n" % (crc32(payload), payload)


def _binary(seq: int, step: int, metrics: Mapping[str, float]) -> bytes:
    """Numbers as they are in memory; keys are named once elsewhere, so that one damaged byte there costs many rows."""
    payload = struct.pack(f"<QqdI{len(metrics)}d", seq, step, time.time(), 1, *metrics.values())
    return b"%08x%s\n" % (crc32(payload), payload)


def _written(path: Path) -> Put:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda row: os.write(descriptor, row)


def _mapped(path: Path) -> Put:
    """The last byte goes in last, as a reader may look at any time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, ROOM)
    pages, end = mmap.mmap(descriptor, ROOM), 0

    def put(row: bytes) -> None:
        nonlocal end
        start, end = end, end + len(row)
        pages[start : end - 1] = row[:-1]
        pages[end - 1] = row[-1]

    return put


ALTERNATIVES: Mapping[str, Callable[[Path], AbstractContextManager[Log]]] = {
    "mapped file": _alternative(_json, _mapped),
    "orjson": _alternative(_orjson, _written),
    "orjson, mapped file": _alternative(_orjson, _mapped),
    "binary rows": _alternative(_binary, _written),
    "binary rows, mapped file": _alternative(_binary, _mapped),
}
