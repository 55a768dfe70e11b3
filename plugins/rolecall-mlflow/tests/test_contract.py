"""The contract that every backend must pass, in a sqlite store, read with MLflow's own client."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

from rolecall import MediaKind
from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

FOLDERS = ("histograms", "html", "markdown", "audio", "videos", "figures")


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "mlflow"
    patience = 60.0
    preload: ClassVar[tuple[str, ...]] = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
    can = frozenset(
        {"shared", "times", "tables", "table_media", "config", "summary", "tags", "status", "end_time"}
        | {"confirmation", "readback"}
    ) | {f"media:{kind}" for kind in get_args(MediaKind)}
    cannot: ClassVar[Mapping[str, str]] = {
        "axes": "each metric has its own steps",
        "text": "MLflow has no series of strings",
        "removal": "MLflow has no way to remove a metric, and numbers of the summary are metrics",
        "progress": "MLflow knows rows by their points, and stores equal ones once",
    }

    @pytest.fixture
    def monitor_args(self, tmp_path: Path, migrated: Path) -> Mapping[str, Any]:
        shutil.copy(migrated, tmp_path / "mlflow.db")
        return {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}

    @pytest.fixture
    def unavailable_args(self) -> Mapping[str, Any]:
        return {"uri": "http://127.0.0.1:9", "retries": 0}

    def test_writes_in_its_folder_only(self, stage: Any) -> None:
        if version("mlflow-skinny").startswith("2."):
            pytest.skip("MLflow 2 makes an empty folder `mlruns` where the process was started")
        super().test_writes_in_its_folder_only(stage)

    def expected_value(self, value: float) -> float:
        """Databases hold infinities as the largest numbers, and sqlite has no -0.0."""
        number = float(value) + 0.0
        return number if math.isnan(number) else max(-sys.float_info.max, min(sys.float_info.max, number))

    def points(self, run: HeldRun) -> Points:
        return {key: [(point.step, point.value) for point in points] for key, points in histories(run)}

    def times(self, run: HeldRun) -> Points:
        return {key: [(point.step, point.timestamp / 1000) for point in points] for key, points in histories(run)}

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        found: dict[str, list[HeldTable]] = {}
        for path in paths(run, "tables"):
            folder, _, name = path.removeprefix("tables/").rpartition("/")
            table = json.loads(artifact(run, path))
            rows = [[cell(run, each) for each in cells] for cells in table["data"]]
            found.setdefault(folder, []).append(HeldTable(int(name.split("-")[0]), table["columns"], rows))
        return found

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        found: dict[str, list[tuple[int, Any]]] = {}
        for path in sorted(paths(run)):
            key, step = moment(path)
            if key is not None:
                data = artifact(run, path)
                found.setdefault(key, []).append((step, json.loads(data) if "histograms/" in path else data))
        return found

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        return dict(stored(run).data.params)

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        data = stored(run).data
        held = {**data.metrics, **data.tags}
        return {key.removeprefix("summary/"): value for key, value in held.items() if key.startswith("summary/")}

    def tags(self, run: HeldRun) -> list[str]:
        return str(stored(run).data.tags.get("tags", "")).split(", ")

    def status(self, run: HeldRun) -> str:
        return str(stored(run).info.status).lower()

    def end_time(self, run: HeldRun) -> float:
        return float(stored(run).info.end_time) / 1000


def client(run: HeldRun) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=run.args["uri"])


def stored(run: HeldRun) -> Any:
    return client(run).get_run(run.id)


def histories(run: HeldRun) -> Iterator[tuple[str, Any]]:
    """Every point that the store holds, repeated ones too."""
    for key in stored(run).data.metrics:
        if not key.startswith("summary/"):
            yield key, client(run).get_metric_history(run.id, key)


def paths(run: HeldRun, folder: str | None = None) -> Iterator[str]:
    for found in client(run).list_artifacts(run.id, folder):
        if found.is_dir:
            yield from paths(run, found.path)
        else:
            yield found.path


def artifact(run: HeldRun, path: str) -> bytes:
    # The folder, and not the file: MLflow 2 decodes `%17` in the name of an image, which it has written itself, and so
    # does not find it (`validate_path_is_safe`, 2.16.0).
    folder, _, name = path.rpartition("/")
    return Path(client(run).download_artifacts(run.id, folder), name).read_bytes()


def cell(run: HeldRun, held: Any) -> Any:
    return artifact(run, held["filepath"]) if isinstance(held, dict) else held


def moment(path: str) -> tuple[str | None, int]:
    """The key and the step of a file, as MLflow's UI shows them, or as its path says."""
    folder, *middle, name = path.split("/")
    if folder == "images" and "compressed" not in name:
        separator = "+" if "+" in name else "%"
        key, _, step, *_ = name.split(separator)
        return key.replace("~", "/").removesuffix("/0").removesuffix("/1"), int(step)
    if folder == "files":
        return "/".join(middle[:-1]), int(middle[-1].split("-")[0])
    return ("/".join(middle), int(name.split("-")[0])) if folder in FOLDERS else (None, 0)
