"""Reads the files of offline runs with the SDK's own reader, which `swanlab sync` uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.sdk.internal.core_python.store import DataStoreReader

FOLDERS = {2: "image", 3: "audio", 4: "text", 6: "echarts", 9: "html"}


@dataclass
class Held:
    """What the files of one run hold.

    Attributes:
        starts: the records with which it was opened, oldest first.
        points: step, value and time of each metric; the first value of a step, as `swanlab sync` takes no other.
        media: step, and the contents and captions of the files, of each key.
        axes: the axis of each key that has one.
        states: how it ended, each time that it was closed.
        folders: the folders of the processes that wrote it, oldest first.
    """

    starts: list[Any] = field(default_factory=list)
    points: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    media: dict[str, dict[int, list[tuple[bytes, str]]]] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    states: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def steps(self, key: str) -> list[tuple[int, float]]:
        """Steps and values of a metric, in the order of steps."""
        return [(step, value) for step, (value, _) in sorted(self.points.get(key, {}).items())]


def read_run(directory: Path, run_id: str) -> Held:
    """A run, from the folders of all processes that wrote it."""
    held = Held()
    for folder in sorted(directory.glob("run-*")):
        records = [record for file in folder.glob("run-*.swanlab") for record in _records(file)]
        if records and records[0].start.id == run_id:
            held.folders.append(folder)
            for record in records:
                _add(held, folder, record)
    return held


def _records(file: Path) -> list[Any]:
    reader, found = DataStoreReader(), []
    if file.stat().st_size == 0:  # it was killed before it wrote anything
        return []
    reader.open(file)
    for data in reader:
        record = Record()
        record.ParseFromString(data)
        found.append(record)
    reader.close()
    return found


def _add(held: Held, folder: Path, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "start":
        held.starts.append(record.start)
    elif kind == "finish":
        held.states.append(record.finish.state)
    elif kind == "column" and record.column.HasField("x_axis"):
        held.axes[record.column.column_key] = record.column.x_axis
    elif kind == "scalar":
        point = record.scalar.value.number, record.scalar.timestamp.ToMicroseconds() / 1e6
        held.points.setdefault(record.scalar.key, {}).setdefault(record.scalar.step, point)
    elif kind == "media":
        base = folder / "media" / FOLDERS[record.media.type]
        files = [((base / item.filename).read_bytes(), item.caption) for item in record.media.value.items]
        held.media.setdefault(record.media.key, {}).setdefault(record.media.step, files)
