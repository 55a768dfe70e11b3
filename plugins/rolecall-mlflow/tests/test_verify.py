"""`rolecall verify` finds what happened to a store behind rolecall's back, and puts back what is missing."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall import MonitorConfig, Row, RunGone, RunTicket, Unavailable, launch, open_monitor
from rolecall.__main__ import main
from rolecall_mlflow import run as run_module
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import open_readback, open_run
from rolecall_mlflow.run import MlflowReadback

if TYPE_CHECKING:
    from conftest import Job

MakeRow = Callable[..., Row]
Verify = Callable[..., tuple[int, dict[str, Any]]]
STEPS = range(1, 201)
LOSS = "trainer/loss"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "mlflow.db"))


@pytest.fixture
def finished(tmp_path: Path, database: Path) -> Path:
    """The directory of a finished job of one shared run."""
    config = MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="mlflow",
        monitor_args={"uri": f"sqlite:///{database}"},
        monitor_dir=tmp_path / "job",
        shared_run=True,
        courier="thread",
    )
    odd = {"nan": math.nan, "inf": math.inf, "pass@1": 0.5, "acc%": 1.0, "same": 0}
    with launch(config) as job:
        for role in ("trainer", "evaluator"):
            with open_monitor(job.config, role) as monitor:
                for step in STEPS:
                    monitor.log({"loss": 1 / step}, step)
                monitor.log(odd, 1)
                monitor.log(odd, 1)
    return config.monitor_dir


@pytest.fixture
def verify(finished: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Verify:
    """Run the command; returns its status and what it reports of the only run."""

    def run(*options: str) -> tuple[int, dict[str, Any]]:
        capsysbinary.readouterr()
        status = main(["verify", str(finished), "--json", *options])
        (report,) = json.loads(capsysbinary.readouterr().out)
        return status, report

    return run


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        for statement in statements:
            db.execute(statement)


def fetch(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


def counts(report: dict[str, Any]) -> tuple[str, int, int, int]:
    return report["state"], report["missing"], report["extra"], report["different"]


def test_deleted_altered_and_doubled_rows(database: Path, verify: Verify) -> None:
    """Found, and what is missing is put back; the run keeps its status and its times."""
    status, report = verify()
    assert (status, counts(report)) == (0, ("equal", 0, 0, 0))
    assert report["points"] >= 2 * len(STEPS) + 10

    change(
        database,
        f"DELETE FROM metrics WHERE key = '{LOSS}' AND step BETWEEN 21 AND 60",
        f"UPDATE metrics SET value = 7 WHERE key = '{LOSS}' AND step BETWEEN 101 AND 110",
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
        f"SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics WHERE key = '{LOSS}' AND step BETWEEN "
        "121 AND 130",
    )
    status, report = verify()
    assert (status, counts(report)) == (1, ("different", 40, 10, 10))
    assert report["metrics"] == {LOSS: {"missing": 40, "extra": 10, "different": 10}}

    runs = fetch(database, "SELECT run_uuid, status, start_time, end_time FROM runs")
    status, report = verify("--repair")
    assert (status, counts(report), report["sent"]) == (1, ("different", 0, 10, 10), 40)
    assert fetch(database, "SELECT run_uuid, status, start_time, end_time FROM runs") == runs
    assert [(run[1], run[3] is not None) for run in runs] == [("FINISHED", True)]
    (found,) = fetch(database, f"SELECT COUNT(DISTINCT step), COUNT(*) FROM metrics WHERE key = '{LOSS}'")
    assert found == (200, 210)


@pytest.mark.parametrize("fault", ["deleted", "purged", "store"])
def test_run_that_is_gone(finished: Path, database: Path, verify: Verify, fault: str) -> None:
    """Also if it was purged after delivery; everything goes to a new run if the user says so."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    old = json.loads((finished / "delivery" / "mlflow" / "@launch" / "run.json").read_text())["id"]
    if fault == "store":
        database.unlink()
    else:
        client.delete_run(old)
    if fault == "purged":
        change(database, *(f"DELETE FROM {table}" for table in ("metrics", "latest_metrics", "tags", "params", "runs")))
    status, report = verify()
    assert (status, report["state"]) == (1, "gone")
    words = {"deleted": f"mlflow runs restore --run-id {old}", "purged": f"has no run {old}", "store": "is not there"}
    assert words[fault] in report["problem"]
    assert database.exists() is (fault != "store")
    assert verify("--repair")[0] == 1

    if fault == "store":
        return  # this process still has the deleted file open
    status, report = verify("--repair", "--new-run")
    assert (status, report["state"], report["new_run"]) == (0, "equal", True)
    assert report["id"] != old
    assert client.get_run(report["id"]).info.status == "FINISHED"
    assert len(client.get_metric_history(report["id"], LOSS)) == 200
    assert verify()[0] == 0


def test_store_that_cannot_be_read(database: Path, verify: Verify) -> None:
    database.write_bytes(b"no sqlite file" * 100)
    status, report = verify()
    assert (status, report["state"]) == (3, "unreadable")
    assert "is not a sqlite file" in report["problem"]


def readback_of(job: Job, **args: Any) -> MlflowReadback:
    args = {"uri": job.uri, **args}
    return open_readback(job.ticket(primary=False, backend_run_id=job.runs[0].id), MlflowArgs.model_validate(args))


@pytest.fixture(params=["sqlite", "files", pytest.param("served", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_readback_agrees_with_what_is_expected(store: Job, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every store, a page at a time, for what MLflow renames, clips, rounds, or stores once."""
    monkeypatch.setattr(run_module, "_PAGE", 2)
    odd = {"a@b": 1.0, "a_at_b": 2.0, "acc%": 3.0, "nan": math.nan, "inf": math.inf, "minus": -math.inf}
    rows = [row(seq, odd, time=1_700_000_000.0004 + seq // 3 / 1000, step=seq // 4) for seq in range(1, 12)]
    run = store.open()
    for each in rows:
        run.log([each])
    readback = readback_of(store)

    def plain(key: str, step: int, value: float, time: float) -> tuple[str, int, str, float]:
        return key, step, repr(value), time

    held = sorted(plain(key, *point) for key in readback.keys() for point in readback.points(key))  # noqa: SIM118
    expected = [readback.expected(each) for each in rows]
    wanted = sorted(plain(key, each.step, value, each.time) for each in expected for key, value in each.metrics.items())
    assert held == wanted
    readback.close()


def test_readback_changes_nothing(sqlite: Job, row: MakeRow) -> None:
    run = sqlite.open()
    run.log([row(1, {"a": 1.0})])
    run.close("failed")
    before = sqlite.stored().to_dictionary()
    readback = readback_of(sqlite)
    assert list(readback.points("a")) == [(1, 1.0, 1_700_000_000.001)]
    readback.close()
    assert sqlite.stored().to_dictionary() == before


def test_system_metrics_are_not_read_back(sqlite: Job, row: MakeRow) -> None:
    sqlite.open().log([row(1, {"system/trainer/cpu_utilization_percentage": 1.0, "system/mine": 2.0})])
    assert list(readback_of(sqlite, system_metrics=True).keys()) == ["system/mine"]
    assert len(list(readback_of(sqlite).keys())) == 2


def test_repair_leaves_run_as_it_is(sqlite: Job, row: MakeRow) -> None:
    """Also where it is the writer's own, so that its courier would end it."""
    run = sqlite.open(shared=False, writer="trainer", role="trainer")
    run.close("failed")
    before = sqlite.stored().info.to_proto()
    repair = sqlite.open(
        {"system_metrics": True}, shared=False, primary=False, writer="trainer", repair=True, backend_run_id=run.id
    )
    repair.log([row(1, {"a": 1.0})])
    repair.close("finished")
    assert sqlite.stored().info.to_proto() == before
    assert sqlite.points("a") == [(1, 1.0)]


def test_dead_server_is_unavailable(ticket: Callable[..., RunTicket]) -> None:
    args = MlflowArgs.model_validate({"uri": "http://127.0.0.1:9", "timeout": 1})
    with pytest.raises(Unavailable):
        open_readback(ticket(primary=False, backend_run_id="0" * 32), args)


def test_missing_run_is_gone(sqlite: Job) -> None:
    with pytest.raises(RunGone, match="has no run"):
        open_run(sqlite.ticket(primary=False, writer="trainer", backend_run_id="0" * 32), MlflowArgs(uri=sqlite.uri))
