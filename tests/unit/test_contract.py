"""The contract for backends, held by the tests' own backend: so the contract itself is tried, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from lines_server import LinesServer

from rolecall.testing import BackendContract, HeldRun, HeldTable, Points


@pytest.mark.processes
class TestLinesContract(BackendContract):
    monitor_type = "lines"
    can = frozenset(
        {"shared", "times", "axes", "tables", "config", "summary", "tags", "status", "end_time", "readback"}
    )
    cannot: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def monitor_args(self, tmp_path: Path, server: LinesServer) -> Mapping[str, Any]:
        return {"path": str(server.path)}

    @pytest.fixture
    def unavailable_args(self, tmp_path: Path) -> Mapping[str, Any]:
        down = tmp_path / "down"
        down.mkdir()
        (down / "down").touch()
        return {"path": str(down)}

    def points(self, run: HeldRun) -> Points:
        found: dict[str, list[tuple[int, float]]] = {}
        for line in lines(run):
            for key, value in line.get("metrics", {}).items():
                found.setdefault(key, []).append((line["step"], value))
        return found

    def times(self, run: HeldRun) -> Points:
        found: dict[str, list[tuple[int, float]]] = {}
        for line in lines(run):
            for key in line.get("metrics", {}):
                found.setdefault(key, []).append((line["step"], line["time"]))
        return found

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        return {key: axis for line in lines(run) for key, axis in line.get("axes", {}).items()}

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        for line in said(run, "table"):
            found.setdefault(line["table"], []).append(HeldTable(line["step"], line["columns"], line["rows"]))
        return found

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        merged: dict[str, Any] = {}
        for line in lines(run):
            merged |= line.get("run_config", {}) | line.get("config", {})
        return merged

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        last = {line["by"]: line["summary"] for line in said(run, "summary")}
        return {key: value for summary in last.values() for key, value in summary.items()}

    def tags(self, run: HeldRun) -> list[str]:
        found = [line.get("tags", line.get("run_tags")) for line in lines(run)]
        tags: list[str] = [each for each in found if each][-1]
        return tags

    def status(self, run: HeldRun) -> str:
        states = [line.get("closed", "running") for line in lines(run) if line.get("primary")]
        return str(states[-1])

    def end_time(self, run: HeldRun) -> float:
        return [float(line["ended"]) for line in said(run, "ended")][-1]


def lines(run: HeldRun) -> list[dict[str, Any]]:
    return LinesServer(Path(run.args["path"])).lines(run.id)


def said(run: HeldRun, what: str) -> Iterator[dict[str, Any]]:
    return (line for line in lines(run) if what in line)
