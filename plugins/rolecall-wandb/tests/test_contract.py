"""The contract that every backend must pass, with the real SDK and a server on loopback, read from the server."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, get_args

import pytest
from wandb_emulator import WandbServer
from wandb_emulator.server import KEY

from rolecall import MediaKind
from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

LISTS = {"audio": "audio", "videos": "videos", "html": "html"}


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "wandb"
    patience = 60.0  # the SDK sends what it has every few seconds
    preload: ClassVar[tuple[str, ...]] = ("wandb", "wandb.sdk.launch")
    can = frozenset(
        {"shared", "times", "axes", "text", "tables", "config", "summary", "tags", "status", "progress"}
        | {"confirmation", "readback"}
        | {f"media:{kind}" for kind in get_args(MediaKind) if kind != "markdown"}
    )
    cannot: ClassVar[Mapping[str, str]] = {
        "table_media": "its images are files of an artifact, which test_media reads",
        "end_time": "the server takes the time at which the run is ended",
        "removal": "the server on loopback keeps what a summary had",
        "killed": "wandb knows an exit code alone: 0 or not",
    }

    @pytest.fixture
    def monitor_args(self, server: WandbServer) -> Mapping[str, Any]:
        return {}

    @pytest.fixture
    def unavailable_args(self, server: WandbServer) -> Mapping[str, Any]:
        return {"base_url": "http://127.0.0.1:9"}

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        return [KEY]

    def expected_value(self, value: float) -> float:
        """The SDK writes -0.0 as 0."""
        return value or 0

    def points(self, run: HeldRun) -> Points:
        return series(run, lambda value, _: number(value))

    def times(self, run: HeldRun) -> Points:
        return series(run, lambda value, line: line["_timestamp"] if number(value) is not None else None)

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        return series(run, lambda value, _: value if isinstance(value, str) and number(value) is None else None)

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        found: Mapping[str, str] = stored(run)["bindings"]
        return found

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        # A growing table has a file for each increment.
        kinds = ("table-file", "incremental-table-file")
        for key, entries in series(run, lambda value, _: entry(value, *kinds)).items():
            for step, held in entries:
                table = json.loads(file(run, held["path"]))
                found.setdefault(key, []).append(HeldTable(step, table["columns"], table["data"]))
        return found

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        found = series(run, lambda value, _: value if isinstance(value, dict) else None)
        return {
            key: [(step, each) for step, held in entries for each in media_of(run, held)]
            for key, entries in found.items()
        }

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        return {key: value["value"] for key, value in stored(run)["config"].items() if key != "_wandb"}

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        found: Mapping[str, float | str] = stored(run)["summary"]
        return found

    def tags(self, run: HeldRun) -> list[str]:
        return list(stored(run)["named"].get("tags") or ())

    def status(self, run: HeldRun) -> str:
        return str(stored(run)["state"])


def ask(path: str) -> bytes:
    with urllib.request.urlopen(f"{os.environ['WANDB_BASE_URL']}/{path}") as reply:
        return bytes(reply.read())


def stored(run: HeldRun) -> Any:
    return json.loads(ask(f"_runs/{run.id}"))


def file(run: HeldRun, path: str) -> bytes:
    return ask(f"upload/{run.id}/{path}")


def series(run: HeldRun, find: Any) -> dict[str, list[tuple[int, Any]]]:
    """Of each key the steps, on the axis that its line has for it, and what is found of its values."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for step, line in lines(run):
        axes = {key.removesuffix("step"): value for key, value in line.items() if key.endswith("/step")}
        for key, value in line.items():
            if not key.startswith("_") and (held := find(value, line)) is not None:
                own = next((at for prefix, at in axes.items() if key.startswith(prefix)), step)
                found.setdefault(key, []).append((own, held))
    return found


def lines(run: HeldRun) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((line["step"], line["line"]) for line in stored(run)["history"])


def number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return value
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None


def entry(value: Any, *kinds: str) -> Any:
    return value if isinstance(value, dict) and value.get("_type") in kinds else None


def media_of(run: HeldRun, held: Mapping[str, Any]) -> Iterator[Any]:
    kind = str(held["_type"])
    if kind == "histogram":
        yield {"counts": held["values"], "edges": held["bins"]}
    elif kind == "images/separated":
        for name, caption in zip(held["filenames"], held["captions"], strict=True):
            yield {"data": file(run, name), "caption": caption}
    elif kind in LISTS:
        for each in held[LISTS[kind]]:
            yield from media_of(run, each)
    else:
        more = {"caption": held["caption"]} if "caption" in held else {}
        yield {"data": file(run, held["path"]), **more}
