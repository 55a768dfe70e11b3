"""What is fuzzed: every reader of what others may have written, and the config that comes by the environment.

Each target takes any bytes. It returns, or raises what its caller is promised; anything else is a crash.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rolecall.config.model import MonitorConfig
from rolecall.delivery.cursor import Cursor
from rolecall.errors import RolecallError
from rolecall.job.history import read_history
from rolecall.job.status import read_deliveries, read_writers
from rolecall.rows import Row
from rolecall.store import lease
from rolecall.store.acks import (
    Acknowledgements,
    acknowledged,
    is_carried,
    is_left,
    read_reference,
    rejections,
    undelivered,
)
from rolecall.store.axes import AxisBook
from rolecall.store.codec import Damage, Line, encode, end_of_lines, first_line, last_line, read_lines
from rolecall.store.details import last_steps
from rolecall.store.journal import put_attachment
from rolecall.store.layout import Layout
from rolecall.store.lease import Session
from rolecall.store.reader import End, read_to_end

__all__ = ["TARGETS"]

PLACES: Final = (
    "run.json",
    "journal/explorer@0/1.jsonl",
    "journal/explorer@0/2.jsonl",
    "journal/explorer@0/1.files/3.json",
    "journal/@launch/1.jsonl",
    "axes/explorer@0.jsonl",
    "axes/trainer.jsonl",
    "delivery/mlflow/explorer@0/1.jsonl",
    "delivery/mlflow/explorer@0/run.json",
    "journal/explorer@0/1.header.json",
)
MOST: Final = 1 << 16
"""Bytes of one input: what is found is found in small ones."""


def lines(data: bytes) -> None:
    """A file of lines that anything may have happened to."""
    with _folder() as folder:
        session = _session(folder)
        path = session.path
        path.write_bytes(data[:MOST])
        end = -1
        for found in read_lines(path, seed=session.seed):
            assert isinstance(found, Line | Damage)
            assert found.offset >= end
            end = found.end
        assert end <= len(data)
        first_line(path, session.seed)
        last_line(path, session.seed)
        assert end_of_lines(path) >= end
        _read(session)
        assert path.read_bytes() == data[:MOST], "a reader wrote"


def rows(data: bytes) -> None:
    """A journal whose lines check, whatever they hold. A string under `attached` or `file` is stored beside it."""
    with _folder() as folder:
        session = _session(folder)
        content = [_attach(session, line) for line in data[:MOST].split(b"\n")]
        session.path.write_bytes(b"".join(_sound(line, session.seed) for line in content))
        _read(session)


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
            path = root / name
            seed = 0 if path.parent.name == "axes" else Session(path, int(path.stem)).seed if path.stem.isdigit() else 0
            text = content if name.endswith(".json") else b"".join(_sound(line, seed) for line in content.split(b"\n"))
            path.write_bytes(text)
        with _impatient():
            _look(root)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "lines": lines,
    "rows": rows,
    "environment": environment,
    "directory": directory,
}


@contextmanager
def _impatient() -> Iterator[None]:
    """A claim would watch an owner on another machine for a minute."""
    before = vars(lease)["STALE"]
    vars(lease)["STALE"] = 0.0
    try:
        yield
    finally:
        vars(lease)["STALE"] = before


def _session(folder: Path) -> Session:
    """One whose checksums are the same in each run."""
    (folder / "explorer").mkdir()
    return Session(folder / "explorer" / "1.jsonl", 1)


def _attach(session: Session, line: bytes) -> bytes:
    with suppress(ValueError, RecursionError):
        return json.dumps(_stored(session, json.loads(line))).encode()
    return line


def _stored(session: Session, value: Any) -> Any:
    """The same, with references to stored files in place of strings."""
    if isinstance(value, list):
        return [_stored(session, each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _stored(session, each) for key, each in value.items()}
    for key in ("attached", "file"):
        if isinstance(content := found.get(key), str):
            found[key] = put_attachment(session.attachments, f"{key}.json", content.encode("utf-8", "replace"))
    return found


def _read(session: Session) -> None:
    for entry in read_to_end("explorer", session):
        assert isinstance(entry.value, Row | End | Damage)
    session.status()
    session.owner()
    session.is_live()
    session.state()
    last_steps(session)


def _look(root: Path) -> None:
    layout = Layout(root)
    with suppress(RolecallError):
        job = read_history(root)
        json.dumps(job.summary())
        json.dumps([asdict(each) for each in read_deliveries(layout, job.record.plan)])
    for state in read_writers(layout):
        str(state)
    writer = "explorer/0"
    acknowledged(layout, "mlflow", writer)
    undelivered(layout, "mlflow", writer)
    rejections(layout, "mlflow", writer)
    read_reference(layout, "mlflow", writer)
    is_left(layout, "mlflow", writer)
    is_carried(layout, "mlflow", writer)
    AxisBook(layout, writer).bindings()
    with suppress(RolecallError):
        acks = Acknowledgements(layout, "mlflow", writer)
        cursor = Cursor(layout, writer, acks)
        for _ in range(100):
            batch = cursor.read()
            cursor.mark(batch, batch.rows[-1] if batch.rows else None)
            cursor.acknowledge()
            cursor.acknowledged()
            if cursor.status is not None or not (batch.rows or batch.damages or cursor.is_over()):
                break
        acks.release(cursor.status)


def _sound(line: bytes, seed: int) -> bytes:
    """A line with the right checksum, if it is a JSON object at all."""
    try:
        value: Any = json.loads(line)
        return encode(value, seed) if isinstance(value, dict) else line + b"\n"
    except (ValueError, RecursionError):
        return line + b"\n"


class _folder:  # noqa: N801 - a context manager that is used as a function
    """A folder in memory where there is one: a fuzzer makes thousands a second."""

    def __enter__(self) -> Path:
        memory = Path("/dev/shm")
        self._path = tempfile.mkdtemp(prefix="rolecall-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
        return Path(self._path)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
