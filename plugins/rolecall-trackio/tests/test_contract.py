"""The contract that every backend must pass; `test_run` reads with trackio itself, which takes a second a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, ClassVar

import pytest

from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

KINDS = ("image", "histogram", "html", "audio", "video", "figure")
Find = Callable[[Any, str], Any]


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "trackio"
    patience = 60.0  # each process imports trackio, which takes seconds of CPU
    preload: ClassVar[tuple[str, ...]] = ("trackio.sqlite_storage",)
    can = frozenset(
        {"shared", "times", "text", "tables", "config", "tags", "status", "end_time", "progress", "readback"}
    ) | {f"media:{kind}" for kind in KINDS}
    cannot: ClassVar[Mapping[str, str]] = {
        "axes": "each row has its step, and the dashboard takes any metric as an axis",
        "media:file": "trackio has no place for files of a run",
        "summary": "trackio has none",
    }

    @pytest.fixture
    def monitor_args(self) -> dict[str, str]:
        return {"dir": "."}

    def points(self, run: HeldRun) -> Points:
        return series(run, lambda value, _: number(value))

    def times(self, run: HeldRun) -> Points:
        return series(
            run, lambda value, stamp: None if number(value) is None else datetime.fromisoformat(stamp).timestamp()
        )

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        return series(run, lambda value, _: value if isinstance(value, str) and number(value) is None else None)

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        for name, entries in series(run, lambda value, _: typed(value, "trackio.table")).items():
            for step, held in entries:
                rows = held["_value"]
                found.setdefault(name, []).append(HeldTable(step, [*rows[0]], [[*cells.values()] for cells in rows]))
        return found

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        """The items of a list have keys of their own."""
        found: dict[str, list[tuple[int, Any]]] = {}
        for key, entries in series(run, lambda value, _: value if isinstance(value, dict) else None).items():
            name = key[:-2] if key.endswith(("/0", "/1")) else key
            found.setdefault(name, []).extend((step, medium(run, held)) for step, held in entries)
        return found

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        query = "SELECT config FROM configs WHERE run_id = ?"
        ((text,),) = ask(run, query)
        found: Mapping[str, Any] = json.loads(text)
        return found

    def tags(self, run: HeldRun) -> list[str]:
        return list(self.config(run).get("tags", ()))

    def status(self, run: HeldRun) -> str:
        return str(self.config(run)["status"])

    def end_time(self, run: HeldRun) -> float:
        return datetime.fromisoformat(self.config(run)["ended"]).timestamp()


def ask(run: HeldRun, query: str) -> list[Any]:
    (path,) = (path for path in run.directory.glob("*.db"))
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query, (run.id,)).fetchall()


def rows(run: HeldRun) -> Iterator[tuple[int, str, dict[str, Any]]]:
    query = "SELECT step, timestamp, metrics FROM metrics WHERE run_id = ? ORDER BY id"
    return ((step, stamp, json.loads(held)) for step, stamp, held in ask(run, query))


def series(run: HeldRun, find: Find) -> dict[str, list[tuple[int, Any]]]:
    """Of each key the steps, and what is found of its values."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for step, stamp, held in rows(run):
        for key, value in held.items():
            if (what := find(value, stamp)) is not None:
                found.setdefault(key, []).append((step, what))
    return found


def number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return value
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None


def typed(value: Any, kind: str) -> Any:
    return value if isinstance(value, dict) and value.get("_type") == kind else None


def medium(run: HeldRun, held: Mapping[str, Any]) -> Any:
    if held["_type"] == "trackio.histogram":
        return {"counts": held["values"], "edges": held["bins"]}
    return {"data": (run.directory / "media" / held["file_path"]).read_bytes(), "caption": held["caption"]}
