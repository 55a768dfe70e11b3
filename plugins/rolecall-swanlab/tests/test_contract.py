"""The contract that every backend must pass, with offline runs; `test_online` has a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml

from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

if TYPE_CHECKING:
    from swanlab_files import Held

KINDS = ("image", "histogram", "html", "audio", "video", "figure")
Media = Mapping[str, list[tuple[int, Any]]]


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "swanlab"
    patience = 120.0  # each process imports swanlab, which takes a second of CPU
    preload: ClassVar[tuple[str, ...]] = ("swanlab.sdk.cmd.init",)
    can = frozenset({"shared", "times", "axes", "text", "tables", "config", "tags"}) | {
        f"media:{kind}" for kind in KINDS
    }
    cannot: ClassVar[Mapping[str, str]] = {
        "steps": "the first value of a step of a key is kept",
        "media:file": "swanlab has no type for files of a run",
        "summary": "swanlab has none",
        "status": "each process has a folder with a status of its own, of which `swanlab sync` takes the last one",
        "end_time": "the server takes its own",
        "readback": "it is not written yet",
    }

    @pytest.fixture
    def monitor_args(self) -> dict[str, str]:
        return {"mode": "offline"}

    def expected_value(self, value: float) -> float:
        return float(value)

    def points(self, run: HeldRun) -> Points:
        return {key: [(step, value) for step, (value, _) in held.items()] for key, held in read(run).points.items()}

    def times(self, run: HeldRun) -> Points:
        return {key: [(step, time) for step, (_, time) in held.items()] for key, held in read(run).points.items()}

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        return read(run).axes

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        return {key: [(step, data.decode()) for step, (data, _) in held] for key, held in files(run).items()}

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        for key, held in files(run).items():
            for step, (data, _) in held:
                table = json.loads(data)
                columns = [each["field"] for each in table["colDefs"]]
                rows = [[cells[name] for name in columns] for cells in table["rowData"]]
                found.setdefault(key, []).append(HeldTable(step, columns, rows))
        return found

    def media(self, run: HeldRun) -> Media:
        return {key: [(step, medium(*each)) for step, each in held] for key, held in files(run).items()}

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        held = yaml.safe_load((read(run).folders[-1] / "files" / "config.yaml").read_text())
        return {key: each["value"] for key, each in held.items()}

    def tags(self, run: HeldRun) -> list[str]:
        return list(read(run).starts[-1].tags)


def read(run: HeldRun) -> Held:
    sys.path.insert(0, str(Path(__file__).parent / "support"))
    from swanlab_files import read_run

    return read_run(run.directory, run.id)


def files(run: HeldRun) -> Mapping[str, list[tuple[int, tuple[bytes, str]]]]:
    """Of each key the steps, and each file with its caption."""
    return {
        key: [(step, each) for step, some in held.items() for each in some] for key, held in read(run).media.items()
    }


def medium(data: bytes, caption: str) -> Any:
    if not data.startswith(b"{"):
        return {"data": data, "caption": caption}
    chart = json.loads(data)
    bins = [[float(edge) for edge in name.split(" to ")] for name in chart["xAxis"][0]["data"]]
    return {"counts": chart["series"][0]["data"], "edges": [bins[0][0], *(high for _, high in bins)]}
