"""Tables that grow over steps are the SDK's incremental tables: one table in wandb, with each row once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from wandb_core import courier_of
from wandb_emulator import WandbServer
from wandb_scene import Scene, kill_tree

from rolecall import MonitorConfig, Table, launch, open_monitor
from rolecall.store.acks import rejections, undelivered
from rolecall.store.layout import Layout
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.growing import MOST, GrowingTables, has_increments
from rolecall_wandb.server import server_of

Make = Callable[..., MonitorConfig]

needs_increments = pytest.mark.skipif(not has_increments(), reason="this SDK has no incremental tables")


def entries(server: WandbServer, key: str) -> list[Mapping[str, Any]]:
    """What the lines of a run's history have of a table, in order."""
    return [e.line[key] for run in server.runs.values() if run.upserts for e in run.history if key in e.line]


def shown(server: WandbServer, entry: Mapping[str, Any]) -> list[list[Any]]:
    """The rows that wandb shows for a line: those of the increments that it names, and its own."""
    paths = [*entry["previous_increments_paths"], entry["artifact_path"]]
    files = [json.loads(server.artifacts[path.split("/", 3)[3]]) for path in paths]
    assert [file["increment_num"] for file in files] == sorted({file["increment_num"] for file in files})
    return [row for file in files for row in file["data"]]


def increments(steps: range) -> Iterator[tuple[int, dict[str, Any]]]:
    for step in steps:
        rows = [{"step": step, "text": f"{step}.{number}"} for number in range(2)]
        yield step, {"loss": 1 / step, "samples": Table(rows, append=True)}


def rows_of(steps: range) -> list[list[Any]]:
    return [[step, f"{step}.{number}"] for step in steps for number in range(2)]


@pytest.mark.processes
@pytest.mark.parametrize("shared", [True, False])
def test_growing_table_is_one_table(server: WandbServer, make_config: Make, shared: bool) -> None:
    """Also after a restart of the job, whose increments go on from those that the run holds."""
    config = make_config(shared_run=shared, resume="allow")
    for steps in (range(1, 4), range(4, 6)):
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            for step, values in increments(steps):
                monitor.log(values, step)
    found = entries(server, "trainer/samples" if shared else "samples")
    assert undelivered(Layout(config.monitor_dir), "wandb", "trainer") == 0
    if not has_increments():
        assert [(entry["_type"], entry["nrows"]) for entry in found] == [("table-file", 2)] * 5
        return
    assert [(entry["_type"], entry["increment_num"]) for entry in found] == [
        ("incremental-table-file", number) for number in range(5)
    ]
    for step, entry in enumerate(found, start=1):
        assert shown(server, entry) == rows_of(range(1, step + 1))


@pytest.mark.processes
@pytest.mark.parametrize(("version", "is_shown"), [(None, True), ("0.70.1", True), ("1.2", True), ("0.69.4", False)])
def test_servers_that_show_increments(server: WandbServer, version: str | None, is_shown: bool) -> None:
    """An older one would show nothing of such a table: there each step has a table of its own."""
    server.state.version = version
    assert server_of(WandbArgs()).shows_increments() is is_shown


@pytest.mark.processes
def test_older_server_gets_a_table_a_step(server: WandbServer, make_config: Make) -> None:
    server.state.version = "0.69.4"
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step, values in increments(range(1, 3)):
            monitor.log(values, step)
    found = entries(server, "trainer/samples")
    assert [(entry["_type"], entry["nrows"]) for entry in found] == [("table-file", 2)] * 2


@needs_increments
@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shared", [True, False])
def test_killed_courier_doubles_no_increment(scene: Scene, shared: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What it had uploaded without the line that names it is sent again, and the table names one of the two."""
    caplog.set_level(logging.INFO, "rolecall")
    config = scene.config.model_copy(update={"shared_run": shared})
    key = "trainer/samples" if shared else "samples"
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for steps in (range(1, 16), range(16, 21)):
            for step, values in increments(steps):
                monitor.log(values, step)
            if steps.start == 1:
                scene.wait(lambda: entries(scene.server, key))
                courier = courier_of(config.monitor_dir, "trainer")
                assert courier is not None
                kill_tree(courier)
        monitor.close(timeout=200.0)
    scene.wait_for_end()
    found = entries(scene.server, key)
    assert len(found) == 20
    assert sorted(shown(scene.server, found[-1])) == rows_of(range(1, 21))
    assert rejections(Layout(config.monitor_dir), "wandb", "trainer") == set()


class Increment:
    """What `GrowingTables` uses of a `wandb.Table`."""

    log_mode = "INCREMENTAL"

    def __init__(self, name: str, columns: int = 1) -> None:
        self.columns = ["n"] * columns
        self.name = name
        self._increment_num = -1
        self._previous_increments_paths: list[str] = []

    def to_json(self, run: object) -> dict[str, Any]:
        return {
            "_type": "incremental-table-file",
            "artifact_path": self.name,
            "increment_num": self._increment_num,
            "ncols": len(self.columns),
        }


def log(growing: GrowingTables, table: Any, key: str = "samples") -> tuple[int, list[str]]:
    growing.recall({key: table})
    growing.link({key: table})
    growing.add({key: table}, None)  # type: ignore[arg-type]
    return table._increment_num, table._previous_increments_paths


def test_increments_go_on_from_the_history() -> None:
    """By the lines that the run holds, whatever their own lists say; the history is read once."""
    reads: list[int] = []

    def history() -> list[dict[str, Any]]:
        reads.append(1)
        held = {"_type": "incremental-table-file", "ncols": 1, "previous_increments_paths": ["lost"]}
        first, second = ({**held, "increment_num": number, "artifact_path": f"held-{number}"} for number in (0, 2))
        return [{"samples": first, "loss": 1.0}, {"samples": second}, {"other": {"_type": "table-file"}}]

    growing = GrowingTables(history)
    assert log(growing, Increment("a")) == (3, ["held-0", "held-2"])
    assert log(growing, Increment("b")) == (4, ["held-0", "held-2", "a"])
    assert log(growing, Increment("c"), "other") == (0, [])
    assert reads == [1]


def test_increments_of_other_columns_begin_anew() -> None:
    growing = GrowingTables(list)
    assert log(growing, Increment("a")) == (0, [])
    assert log(growing, Increment("b", columns=2)) == (1, [])
    assert log(growing, Increment("c", columns=2)) == (2, ["b"])


def test_increments_name_the_last_ones() -> None:
    growing = GrowingTables(list)
    for number in range(MOST + 5):
        log(growing, Increment(str(number)))
    assert log(growing, Increment("last")) == (MOST + 5, [str(number) for number in range(5, MOST + 5)])


def test_other_tables_read_no_history() -> None:
    growing = GrowingTables(lambda: pytest.fail("it was read"))
    growing.recall({"samples": object()})  # type: ignore[dict-item]
    growing.link({"samples": object(), "loss": 1.0})
    growing.add({"samples": object(), "loss": 1.0}, None)  # type: ignore[arg-type]
