"""Runs a script with wandb itself, offline, and with `rolecall.compat.wandb`, and reads back what each has recorded."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rolecall.job.history import read_rows
from rolecall.rows import Media, TableData
from rolecall.store.details import config_now, details_now
from rolecall.store.layout import Layout

SCRIPTS = Path(__file__).parent / "scripts"
IMPORT = "\nimport wandb\n"
KINDS = {
    "audio-file": "audio",
    "histogram": "histogram",
    "html-file": "html",
    "image-file": "image",
    "images/separated": "image",
    "video-file": "video",
}
BLOCK = 32768
"""Bytes of a block of a `.wandb` file, which is a log of LevelDB's."""
PARTS_OF_LAST = (1, 4)
"""What a whole record is, and the last part of one."""


@dataclass
class Recorded:
    """What one run of one side has: of each key its points, each with the value of its step."""

    points: dict[str, list[tuple[float, Any]]] = field(default_factory=dict)
    media: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    tables: dict[str, list[tuple[float, list[str], list[list[Any]]]]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    about: dict[str, str] = field(default_factory=dict)


def execute(script: str, folder: Path, **environ: str) -> None:
    """Run a script in a folder of its own."""
    folder.mkdir(parents=True)
    path = folder / "script.py"
    path.write_text(script)
    ran = subprocess.run(
        [sys.executable, path.name],
        cwd=folder,
        env={**os.environ, "WANDB_SILENT": "true", "WANDB_DATA_DIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


# ----------------------------------------------------------------- wandb itself


def with_wandb(name: str, folder: Path) -> list[Recorded]:
    """The runs of a script, in the order in which they began."""
    execute((SCRIPTS / f"{name}.py").read_text(), folder, WANDB_MODE="offline")
    found = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_ctime_ns)
    return [_read_theirs(path) for path in found]


def _records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in PARTS_OF_LAST:
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(parts)
            yield record
            parts = b""


def _read_theirs(path: Path) -> Recorded:
    found = Recorded()
    steps: dict[str, str] = {}
    for record in _records(path):
        match record.WhichOneof("record_type"):
            case "run":
                found.about = {"project": record.run.project, "name": record.run.display_name}
                found.tags = sorted(record.run.tags)
                _put(found.config, record.run.config.update)
            case "config":
                _put(found.config, record.config.update)
            case "metric" if record.metric.step_metric:
                steps[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            case "summary":
                _put(found.summary, record.summary.update)
            case "history":
                line: dict[str, Any] = {}
                _put(line, record.history.item)
                _take_line(found, line, steps, path.parent / "files")
            case "artifact" if record.artifact.type != "run_table":
                names = [entry.path for entry in record.artifact.manifest.contents]
                found.files |= {f"{record.artifact.name}/{name}" for name in names}
    found.config.pop("_wandb", None)
    found.summary = _scalars(found.summary)
    return found


def _put(into: dict[str, Any], items: Any) -> None:
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = into
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)


def _take_line(found: Recorded, line: dict[str, Any], steps: Mapping[str, str], files: Path) -> None:
    scalars = _scalars(line)
    for key, value in scalars.items():
        found.points.setdefault(key, []).append((_x(key, line, scalars, steps), value))
    for key, value in line.items():
        kind = value.get("_type") if isinstance(value, dict) else None
        x = _x(key, line, scalars, steps)
        if kind == "table-file":
            table = json.loads((files / value["path"]).read_text())
            found.tables.setdefault(key, []).append((x, table["columns"], table["data"]))
        elif kind is not None:
            found.media.setdefault(key, []).extend([(x, KINDS[kind])] * value.get("count", 1))


def _x(key: str, line: Mapping[str, Any], scalars: Mapping[str, Any], steps: Mapping[str, str]) -> float:
    """What a point is over: its step metric, or the line's step. What is a step itself is over itself."""
    if key in steps.values() and key.endswith("/step"):
        return float(scalars[key])
    globs = (step for name, step in steps.items() if name.endswith("*") and key.startswith(name[:-1]))
    step = steps.get(key) or (None if key in steps.values() else next(globs, None))
    return float(line["_step"] if step is None or step not in scalars else scalars[step])


def _scalars(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= {} if "_type" in value else _scalars(value, f"{prefix}{key}.")
        elif value is not None and not key.startswith("_"):
            found[f"{prefix}{key}"] = _spelled(value)
    return {key: value for key, value in found.items() if not key.startswith("_wandb.")}


# ------------------------------------------------------------------------- ours


def with_rolecall(name: str, folder: Path, backends: str) -> list[Recorded]:
    """The same, with rolecall's module instead of wandb's."""
    script = (SCRIPTS / f"{name}.py").read_text()
    assert script.count(IMPORT) == 1
    script = script.replace(IMPORT, "\nimport rolecall.compat.wandb as wandb\n")
    execute(script, folder, ROLECALL_MONITOR_TYPE=backends, WANDB_MODE="offline")
    return [_read_ours(directory) for directory in directories(folder)]


def directories(folder: Path) -> list[Path]:
    """The directories of the jobs of a script, in the order in which they began."""
    found = folder.glob("rolecall/*/*/run.json")
    return [path.parent for path in sorted(found, key=_began)]


def _began(path: Path) -> float:
    return min(row.time for row in read_rows(path.parent))


def _read_ours(directory: Path) -> Recorded:
    found = Recorded(about={key: json.loads((directory / "run.json").read_text())[key] for key in ("project", "name")})
    for row in read_rows(directory):
        x = float(row.step)
        for key, value in {**row.metrics, **row.text}.items():
            found.points.setdefault(key, []).append((x, _spelled(value)))
            found.summary[key] = _spelled(value)
        if row.table is not None:
            found.tables.setdefault(row.table.name, []).append((x, [*row.table.columns], _cells(row.table)))
        for media in row.media:
            _take_media(found, media, x)
    layout = Layout(directory)
    details = details_now(layout, "main")
    found.summary |= details.summary
    found.tags = sorted(details.tags)
    config = config_now(layout, "main")
    found.config = {key: value for key, value in config.items() if key != "wandb" and not key.startswith("artifact/")}
    return found


def _take_media(found: Recorded, media: Media, x: float) -> None:
    if media.kind == "file":
        found.files.add(media.key)
    else:
        found.media.setdefault(media.key, []).append((x, media.kind))


def _cells(table: TableData) -> list[list[Any]]:
    return [[*row] for row in table.rows]


def _spelled(value: Any) -> Any:
    """A value to compare: a flag as 0 or 1, and what is not finite by its name, as NaN is equal to nothing."""
    names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    if isinstance(value, bool):
        return int(value)
    return names.get(str(value), value) if isinstance(value, float) else value
