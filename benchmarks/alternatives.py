"""Other ways to keep a row, each as bare as the limit: what rolecall could have been, measured beside what it is.

All hand a whole row to the kernel before they return. None checks what it is given. `packed` is what rolecall stores,
`JSON` what it stored before.
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

from rolecall.store.codec import encode
from rolecall.store.packed import Form, Forms

__all__ = ["ALTERNATIVES", "form_of"]

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


def form_of(metrics: Mapping[str, float]) -> Form:
    """What rows like this one have in common, after two of them."""
    forms = Forms()
    forms.learn(metrics, 1)
    forms.learn(metrics, 2)
    form = forms.find(tuple(metrics), [type(value) for value in metrics.values()])
    if form is None:
        raise AssertionError("it was learnt twice")
    return form


_forms: dict[int, Form] = {}


def _packed(seq: int, step: int, metrics: Mapping[str, float]) -> bytes:
    """As rolecall stores it. Rows of so many metrics are all alike here."""
    form = _forms.get(len(metrics)) or _forms.setdefault(len(metrics), form_of(metrics))
    return form.frame(seq, time.time(), step, [*metrics.values()])


def _json(seq: int, step: int, metrics: Mapping[str, float]) -> bytes:
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
    "packed, mapped": _alternative(_packed, _mapped),
    "JSON": _alternative(_json, _written),
    "JSON, mapped": _alternative(_json, _mapped),
    "orjson": _alternative(_orjson, _written),
    "orjson, mapped": _alternative(_orjson, _mapped),
    "bare numbers": _alternative(_binary, _written),
    "bare numbers, mapped": _alternative(_binary, _mapped),
}
