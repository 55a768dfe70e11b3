"""Whole jobs: several processes in one run, couriers that are killed, and `rolecall verify`."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from rolecall import Image, MonitorConfig, Text, launch, open_monitor
from rolecall.__main__ import main

pytestmark = pytest.mark.processes

Read = Callable[..., dict[str, Any]]
ROWS = 300
KILLS = 5
ROLE = """
import sys
from rolecall import MonitorConfig, open_monitor
config, rank = MonitorConfig.load(sys.argv[1]), int(sys.argv[2])
with open_monitor(config, "explorer", rank, run_config={"rank": rank}) as monitor:
    for step in range(1, 301):
        monitor.log({"reward": rank + step}, step=step * (rank + 1))
"""


@pytest.fixture
def config(tmp_path: Path) -> MonitorConfig:
    return MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="trackio",
        monitor_args={"trackio": {"dir": "."}},
        monitor_dir=tmp_path / "job",
        shared_run=True,
    )


def database(config: MonitorConfig) -> Path:
    return config.monitor_dir / "backends" / "trackio" / "gsm8k.db"


def points(config: MonitorConfig, key: str) -> list[tuple[int, float]]:
    """As the database has them, in the order in which they came."""
    if not database(config).exists():
        return []
    with closing(sqlite3.connect(f"{database(config).as_uri()}?mode=ro", uri=True)) as db:
        rows = [(step, json.loads(held)) for step, held in db.execute("SELECT step, metrics FROM metrics ORDER BY id")]
    return [(step, held[key]) for step, held in rows if key in held]


def couriers() -> Iterator[int]:
    """The processes that this one started."""
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended
            if f"PPid:\t{os.getpid()}\n" in path.read_text():
                yield int(path.parent.name)


def test_three_processes_write_one_run(config: MonitorConfig, tmp_path: Path, read: Read) -> None:
    """Each on its own steps; trackio's own reader finds one run with all rows, and the configs of all."""
    file = tmp_path / "config.json"
    with launch(config, run_config={"lr": 0.1}) as job:
        file.write_text(json.dumps({"monitor": json.loads(job.config.model_dump_json(exclude_unset=True))}))
        roles = [subprocess.Popen([sys.executable, "-c", ROLE, str(file), str(rank)]) for rank in range(3)]
        assert [role.wait(120) for role in roles] == [0, 0, 0]
    found = read(job.run_id, directory=database(config).parent)
    assert [run["id"] for run in found["runs"]] == [job.run_id]
    for rank in range(3):
        key = f"explorer/{rank}/reward"
        held = [(row["step"], row[key]) for row in found["rows"] if key in row]
        assert held == [(step * (rank + 1), rank + step) for step in range(1, ROWS + 1)]
        assert found["config"][f"explorer/{rank}"] == {"rank": rank}
    assert (found["config"]["lr"], found["config"]["status"]) == (0.1, "finished")


def test_rows_are_there_once_after_kills(config: MonitorConfig) -> None:
    """SIGKILL for the couriers, at any moment; a row whose acknowledgement was lost is not sent again."""
    step, key, killed = 0, "trainer/loss", set[int]()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for _ in range(KILLS):
            before = len(points(config, key))
            while len(points(config, key)) == before:
                step += 1
                monitor.log({"loss": 1 / step}, step=step)
                time.sleep(0.002)
            for pid in couriers():
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        monitor.close(timeout=120.0)
    assert len(killed) >= KILLS
    assert points(config, key) == [(at, 1 / at) for at in range(1, step + 1)]


@pytest.fixture
def verify(config: MonitorConfig, capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, Any]]:
    def run(*options: str) -> tuple[int, Any]:
        capsysbinary.readouterr()
        status = main(["verify", str(config.monitor_dir), "--json", *options])
        (report,) = json.loads(capsysbinary.readouterr().out)
        return status, [report["state"], report["points"], report["missing"], report["extra"], report["different"]]

    return run


def test_verify_finds_and_repairs(config: MonitorConfig, verify: Callable[..., tuple[int, Any]]) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 101):
            odd = float("nan" if step % 2 else "inf")
            monitor.log({"loss": 1 / step, "odd": odd, "note": Text("NaN"), "step": step}, step=step)
        monitor.log({"image": Image(b"P6 1 1 255\nabc")}, step=101)
        monitor.log_table("samples", [{"prompt": "2+2"}], 101)
    status, report = verify()
    assert (status, report[0], report[2:]) == (0, "equal", [0, 0, 0])
    with closing(sqlite3.connect(database(config))) as db, db:
        db.execute("DELETE FROM metrics WHERE step BETWEEN 11 AND 20")
        db.execute("UPDATE metrics SET metrics = json_remove(metrics, '$.\"trainer/loss\"') WHERE step = 30")
    status, report = verify()
    assert (status, report[0], report[3:]) == (1, "different", [0, 0])
    assert verify("--repair")[0] == 0
    assert verify()[0] == 0
    assert dict(points(config, "trainer/loss")) == {step: 1 / step for step in range(1, 101)}


def test_verify_of_a_deleted_run(config: MonitorConfig, verify: Callable[..., tuple[int, Any]]) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, step=1)
    database(config).unlink()
    assert (verify()[0], database(config).exists()) == (1, False)
