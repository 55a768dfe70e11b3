"""The contracts of the reference backends: what each can, and how what it holds is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args
from urllib.request import Request, urlopen

import pytest
from service_server import API_KEY, Server

from rolecall import MediaKind
from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

MEDIA = frozenset(f"media:{kind}" for kind in get_args(MediaKind))
NO_AXES = "each row has its own step"
NO_MEMORY = "it does not know which rows it holds"


class FilesContract(BackendContract):
    """A run is a file of JSON lines, whichever process wrote them."""

    monitor_type = "files"
    can = MEDIA | {
        *("times", "text", "tables", "table_media", "config", "summary", "tags", "status", "end_time"),
        *("progress", "readback"),
    }
    cannot: ClassVar[Mapping[str, str]] = {
        "shared": "one process writes a run's file",
        "axes": "each row has its own step",
    }

    def points(self, run: HeldRun) -> Points:
        return _by_key((key, line["step"], value) for line in _lines(run) for key, value in _items(line, "metrics"))

    def times(self, run: HeldRun) -> Points:
        return _by_key((key, line["step"], line["time"]) for line in _lines(run) for key, _ in _items(line, "metrics"))

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        return dict(item for line in _lines(run) for item in _items(line, "axes"))

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        return _by_key((key, line["step"], text) for line in _lines(run) for key, text in _items(line, "text"))

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        for line in _lines(run):
            if "table" in line:
                rows = [[_cell(cell, run) for cell in cells] for cells in line["rows"]]
                found.setdefault(line["table"], []).append(HeldTable(line["step"], line["columns"], rows))
        return found

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        held = ((line["step"], media) for line in _lines(run) for media in line.get("media", ()))
        return _by_key((media["key"], step, _content(media, run)) for step, media in held)

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        return dict(item for line in _lines(run) for item in _items(line, "config"))

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        newest = {line["by"]: line["summary"] for line in _lines(run) if "summary" in line}
        return dict(item for summary in newest.values() for item in summary.items())

    def tags(self, run: HeldRun) -> Sequence[str]:
        return list(_last(run, "tags", []))

    def status(self, run: HeldRun) -> str:
        return str(_last(run, "status", "missing"))

    def end_time(self, run: HeldRun) -> float:
        return float(_last(run, "ended", 0.0))


class SharedContract(FilesContract):
    """The same files, which many processes write."""

    monitor_type = "shared-files"
    can = FilesContract.can | {"shared", "axes"}
    cannot: ClassVar[Mapping[str, str]] = {}


class QueueContract(FilesContract):
    """The same files, which an SDK writes in its own time."""

    monitor_type = "queue"
    can = frozenset({"shared", "times", "text", "config", "status", "confirmation", "readback"})
    cannot: ClassVar[Mapping[str, str]] = {"progress": NO_MEMORY, "axes": NO_AXES}


class ServiceContract(BackendContract):
    """Runs on a server, which answers what it holds."""

    monitor_type = "service"
    can = frozenset({"shared", "times", "axes", "config", "summary", "status", "readback"})
    cannot: ClassVar[Mapping[str, str]] = {"progress": "a row that comes again counts once"}

    @pytest.fixture
    def monitor_args(self) -> Iterator[Mapping[str, Any]]:
        with Server() as server:
            yield {"url": server.url, "api_key": API_KEY}

    @pytest.fixture
    def unavailable_args(self) -> Mapping[str, Any]:
        with Server() as server:
            return {"url": server.url, "api_key": API_KEY}  # it is gone when they are used

    def points(self, run: HeldRun) -> Points:
        return _by_key((key, row["step"], value) for row in _rows(run) for key, value in row["metrics"].items())

    def times(self, run: HeldRun) -> Points:
        return _by_key((key, row["step"], row["time"]) for row in _rows(run) for key in row["metrics"])

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        return dict(_asked(run)["axes"])

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        return dict(_asked(run)["config"])

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        return dict(item for summary in _asked(run)["summary"].values() for item in summary.items())

    def status(self, run: HeldRun) -> str:
        return str(_asked(run)["status"])


def _file(run: HeldRun) -> Path:
    return run.directory / Path(run.args.get("path", "runs")) / f"{run.id}.jsonl"


def _lines(run: HeldRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _file(run).read_text(encoding="utf-8").splitlines() if line]


def _items(line: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    yield from line.get(name, {}).items()


def _last(run: HeldRun, name: str, default: Any) -> Any:
    return next((line[name] for line in reversed(_lines(run)) if name in line), default)


def _cell(cell: Any, run: HeldRun) -> Any:
    return _content(cell, run)["data"] if isinstance(cell, dict) else cell


def _content(media: Mapping[str, Any], run: HeldRun) -> Any:
    if "file" in media:
        data = (_file(run).with_suffix(".media") / media["file"]).read_bytes()
        return {"data": data, "mime": media["mime"], "caption": media["caption"]}
    return {"counts": media["counts"], "edges": media["edges"]}


def _asked(run: HeldRun) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {run.args['api_key']}"}
    with urlopen(Request(f"{run.args['url']}/runs/{run.id}", headers=headers)) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _rows(run: HeldRun) -> list[dict[str, Any]]:
    return list(_asked(run)["rows"].values())


def _by_key(found: Iterator[tuple[str, int, Any]]) -> dict[str, list[tuple[int, Any]]]:
    held: dict[str, list[tuple[int, Any]]] = {}
    for key, step, value in found:
        held.setdefault(key, []).append((step, value))
    return held
