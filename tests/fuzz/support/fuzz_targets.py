"""What is fuzzed: every reader of what others may have written, and the config that comes by the environment.

Each target takes any bytes. It returns, or raises what its caller is promised; anything else is a crash.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

from rolecall.config.model import MonitorConfig
from rolecall.delivery.cursor import Tail
from rolecall.errors import RolecallError
from rolecall.job.history import read_history
from rolecall.job.progress import read_progress
from rolecall.job.writers import read_writers
from rolecall.rows import Row
from rolecall.store import packed
from rolecall.store.acks import delivered, is_carried, is_left, read_reference, undelivered
from rolecall.store.axes import AxisBook
from rolecall.store.codec import (
    Damage,
    Frame,
    encode,
    encode_packed,
    end_of_lines,
    first_frame,
    last_frame,
    read_frames,
)
from rolecall.store.journal import End, read_to_end
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, sessions

__all__ = ["TARGETS"]

PLACES: Final = (
    "run.json",
    "journal/explorer@0/1.jsonl",
    "journal/explorer@0/2.jsonl",
    "journal/explorer@0/1.tables/3.json",
    "journal/@launch/1.jsonl",
    "axes/explorer@0.jsonl",
    "axes/trainer.jsonl",
    "delivery/mlflow/explorer@0/1.jsonl",
    "delivery/mlflow/explorer@0/run.json",
)
MOST: Final = 1 << 16
"""Bytes of one input: what is found is found in small ones."""


def frames(data: bytes) -> None:
    """A file of frames that anything may have happened to."""
    with _folder() as folder:
        path = folder / "1.jsonl"
        path.write_bytes(data[:MOST])
        end = -1
        for found in read_frames(path, limit=1 << 20):
            assert isinstance(found, Frame | Damage)
            assert found.offset >= end
            end = found.end
        assert end <= len(data)
        first_frame(path)
        last_frame(path)
        assert end_of_lines(path) >= end
        _read(Session(path, 1))
        assert path.read_bytes() == data[:MOST], "a reader wrote"


def rows(data: bytes) -> None:
    """A journal whose lines check, whatever they hold."""
    with _folder() as folder:
        path = folder / "1.jsonl"
        path.write_bytes(b"".join(map(_sound, data[:MOST].split(b"\n"))))
        _read(Session(path, 1))


def environment(data: bytes) -> None:
    """The variable that a launcher hands on, as any text, and as the encoding of any JSON."""
    text = data[:MOST].decode("utf-8", "surrogateescape")
    for value in (text, base64.b64encode(data[:MOST]).decode("ascii")):
        with suppress(RolecallError):
            MonitorConfig.from_env({"ROLECALL_CONFIG": value})


def directory(data: bytes) -> None:
    """A `monitor_dir` in which any file may hold anything: NUL-separated contents, one for each of `PLACES`."""
    with _folder() as root:
        for name, content in zip(PLACES, data[:MOST].split(b"\0"), strict=False):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if name.endswith(".json") else b"".join(map(_sound, content.split(b"\n")))
            (root / name).write_bytes(text)
        _look(root)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "frames": frames,
    "rows": rows,
    "environment": environment,
    "directory": directory,
}


def _read(session: Session) -> None:
    entries = list(read_to_end("explorer", session))
    for entry in entries:
        assert isinstance(entry.value, Row | End | Damage)
    with mock.patch.object(packed, "_unpack", packed._unpack_none):
        assert repr(entries) == repr(list(read_to_end("explorer", session))), "C reads it another way"
    session.status()
    session.owner()
    session.is_live()


def _look(root: Path) -> None:
    layout = Layout(root)
    with suppress(RolecallError):
        job = read_history(root)
        json.dumps(job.summary())
        json.dumps([one.summary() for one in read_progress(layout, job.record.plan)])
    for state in read_writers(layout):
        str(state)
    writer = "explorer/0"
    place = delivered(layout, "mlflow", writer).place
    undelivered(layout, "mlflow", writer)
    read_reference(layout, "mlflow", writer)
    is_left(layout, "mlflow", writer)
    is_carried(layout, "mlflow", writer)
    AxisBook(layout, writer).bindings()
    tail = Tail(writer, layout.journal(writer), place)
    while sessions(layout.journal(writer)) and (tail.read() or tail.status is None):
        if not tail.over():
            break


def _sound(line: bytes) -> bytes:
    """A line with the right checksum, if it is JSON at all, or begins as a packed one does."""
    if line.startswith(b"="):
        return encode_packed(line[1:])
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return line + b"\n"
    try:
        return encode(value)
    except (TypeError, ValueError, RecursionError):
        return line + b"\n"


class _folder:  # noqa: N801 - a context manager that is used as a function
    """A folder in memory where there is one: a fuzzer makes thousands a second."""

    def __enter__(self) -> Path:
        memory = Path("/dev/shm")
        self._path = tempfile.mkdtemp(
            prefix="rolecall-fuzz-", dir=memory if os.access(memory, os.W_OK) else None
        )
        return Path(self._path)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
