"""What holds in every store: a sqlite file, a directory of files, servers on sqlite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall import (
    BackendRefused,
    MonitorConfig,
    Rejected,
    Row,
    RunTicket,
    SupportsConfig,
    SupportsTables,
    Table,
    TableData,
    Unavailable,
    launch,
    open_monitor,
)
from rolecall.__main__ import main
from rolecall.store.acks import undelivered
from rolecall.store.layout import Layout
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import prepare

if TYPE_CHECKING:
    from conftest import Job

MakeRow = Callable[..., Row]
RunRoles = Callable[..., list[str]]
SERVERS = [pytest.param(name, marks=pytest.mark.servers) for name in ("served", "produced")]
STORES = ["sqlite", "files", *SERVERS]
DATABASES = ["sqlite", *SERVERS]


@pytest.fixture(params=STORES)
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_roles_join_run_that_launcher_opened(job: Job, row: MakeRow) -> None:
    primary = job.open(config={"optim": {"lr": 0.1}, "seed": 7})
    explorer, trainer = job.join("explorer/0"), job.join("trainer")
    explorer.log([row(seq, {"explorer/0/reward": seq / 2}) for seq in range(1, 4)])
    trainer.log([row(seq, {"trainer/loss": 1 / seq}, writer="trainer") for seq in range(1, 3)])
    assert {run.id for run in job.runs} == {primary.id}
    assert job.points("explorer/0/reward") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert job.points("trainer/loss") == [(1, 1.0), (2, 0.5)]
    stored = job.stored()
    assert stored.info.run_name == "grpo-1"
    assert stored.data.params == {"optim.lr": "0.1", "seed": "7"}
    assert job.client.get_experiment(stored.info.experiment_id).name in {"gsm8k", job.ticket().project}


def test_row_keeps_the_time_of_logging(job: Job, row: MakeRow) -> None:
    job.open().log([row(1, {"a": 1.0}, time=1_600_000_000.1234)])
    (metric,) = job.client.get_metric_history(job.runs[0].id, "a")
    assert metric.timestamp == 1_600_000_000_123


def test_many_rows_go_in_batches(job: Job, row: MakeRow) -> None:
    run = job.open()
    run.log([row(seq, {f"m{number}": seq * 1.0 for number in range(30)}) for seq in range(1, 81)])
    run.log([row(81, {f"wide{number}": 1.0 for number in range(1100)})])
    assert job.points("m29") == [(step, float(step)) for step in range(1, 81)]
    assert len(job.stored().data.metrics) == 30 + 1100


def test_the_primary_alone_ends_the_run(job: Job) -> None:
    primary, role = job.open(), job.join("explorer")
    role.close("failed")
    assert job.stored().info.status == "RUNNING"
    primary.close("killed")
    stored = job.stored()
    assert stored.info.status == "KILLED"
    assert stored.info.end_time


@pytest.mark.parametrize(("status", "stored"), [("finished", "FINISHED"), ("failed", "FAILED")])
def test_the_status_is_the_jobs(sqlite: Job, status: Any, stored: str) -> None:
    sqlite.open().close(status)
    assert sqlite.stored().info.status == stored


def test_resuming_goes_on_with_same_run(job: Job, row: MakeRow) -> None:
    first = job.open()
    first.log([row(1, {"a": 1.0})])
    first.close("failed")
    again = job.open(backend_run_id=first.id)
    again.log([row(1, {"a": 2.0}, session=2, step=2, time=1_700_000_009.0)])
    assert again.id == first.id
    assert job.points("a") == [(1, 1.0), (2, 2.0)]
    assert job.stored().info.status == "RUNNING"


def test_ended_run_keeps_its_times(job: Job, row: MakeRow) -> None:
    """Its rows come late: it is not set to running again, and its end is the job's."""
    began, ended = 1_700_000_000.5, 1_700_000_060.25
    job.open(created=began).close("finished")
    late = job.open(backend_run_id=job.runs[0].id, created=began, ended=ended)
    late.log([row(1, {"a": 1.0})])
    assert job.stored().info.status == "FINISHED"
    late.close("failed")
    info = job.stored().info
    assert (info.status, info.start_time, info.end_time) == ("FAILED", 1_700_000_000_500, 1_700_000_060_250)
    assert job.points("a") == [(1, 1.0)]


@pytest.mark.parametrize("shared", [True, False])
def test_job_delivered_later_keeps_its_times(database: Job, tmp_path: Path, shared: bool) -> None:
    """Also if a courier died and left the run running."""
    args: dict[str, Any] = {"uri": database.uri, "experiment": f"late {database.ticket().project}"}
    config = MonitorConfig(project="p", name="n", monitor_type="local", shared_run=shared, monitor_dir=tmp_path / "job")
    with launch(config) as job, contextlib.suppress(ZeroDivisionError), open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, step=1)
        monitor.log({"loss": 1 / 0}, step=2)
    opened, ended = (_line(config, *place) for place in (("@launch", 0), ("@launch" if shared else "trainer", -1)))
    for _ in range(2):
        assert main(["deliver", str(config.monitor_dir), "--to", "mlflow", "--args", json.dumps({"mlflow": args})]) == 0
        experiment = database.client.get_experiment_by_name(args["experiment"])
        (run,) = database.client.search_runs([experiment.experiment_id])
        assert run.info.status == ("FINISHED" if shared else "FAILED")
        assert run.info.start_time == round(opened["opened"] * 1000)
        assert run.info.end_time == round(ended["time"] * 1000)
        assert database.points("trainer/loss" if shared else "loss", run.info.run_id) == [(1, 1.0)]
        database.client.update_run(run.info.run_id, "RUNNING")
        shutil.rmtree(config.monitor_dir / "delivery")


@pytest.mark.parametrize("shared", [True, False])
def test_job_ended_late_keeps_its_end(sqlite: Job, tmp_path: Path, shared: bool) -> None:
    """By the courier that has had the run open since before: the store was away when the job ended."""
    database, aside = tmp_path / "mlflow.db", tmp_path / "aside.db"
    config = MonitorConfig(
        project="p",
        name="n",
        monitor_type="mlflow",
        monitor_args={"uri": sqlite.uri},
        shared_run=shared,
        courier="thread",
        monitor_dir=tmp_path / "job",
    )
    job = launch(config)
    monitor = open_monitor(job.config, "trainer")
    monitor.log({"loss": 1.0})
    sqlite.wait(lambda: sqlite.points("trainer/loss" if shared else "loss", _run_of(sqlite)) == [(1, 1.0)])
    database.rename(aside)
    monitor.close(timeout=0.1)
    job.close(timeout=0.1)
    shutil.move(aside, database)
    sqlite.wait(lambda: sqlite.stored(_run_of(sqlite)).info.status == "FINISHED")
    end = _line(config, "@launch" if shared else "trainer", -1)
    assert sqlite.stored(_run_of(sqlite)).info.end_time == round(end["time"] * 1000)


def _run_of(job: Job) -> str:
    experiment = job.client.get_experiment_by_name("p")
    (run,) = job.client.search_runs([experiment.experiment_id])
    return str(run.info.run_id)


def _line(config: MonitorConfig, writer: str, number: int) -> dict[str, Any]:
    lines = (config.monitor_dir / "journal" / writer / "1.jsonl").read_text().splitlines()
    return dict(json.loads(lines[number]))


def test_run_with_lost_id_is_resumed(job: Job) -> None:
    lost = job.open().id
    assert job.open().id == lost
    assert job.open(run_id="r-2").id != lost


def test_separate_runs_named_like_trinity_rft(job: Job) -> None:
    given: dict[str, Any] = {
        "shared": False,
        "group": "grpo-1",
        "writer": "explorer",
        "role": "explorer",
        "name": "grpo-1_explorer",
    }
    explorer = job.open({"tags": {"team": "rl"}}, **given, run_id="r-1-explorer")
    trainer = job.open(**{**given, "writer": "trainer", "role": "trainer"}, run_id="r-1-trainer")
    assert explorer.id != trainer.id
    stored = job.stored(explorer.id)
    assert stored.info.run_name == "grpo-1_explorer"
    assert {"group": "grpo-1", "role": "explorer", "team": "rl"}.items() <= stored.data.tags.items()
    explorer.close("finished")
    assert [job.stored(run.id).info.status for run in (explorer, trainer)] == ["FINISHED", "RUNNING"]


def test_runs_of_a_role_can_be_grouped(job: Job) -> None:
    """By the tag `role`: the metrics of all ranks have the same keys, so one chart has all of their lines."""
    given: dict[str, Any] = {"shared": False, "role": "explorer"}
    for rank in ("0", "1"):
        job.open(**given, writer=f"explorer/{rank}", run_id=f"r-1-explorer-{rank}")
    experiment = job.client.get_experiment_by_name(job.ticket().project).experiment_id
    found = job.client.search_runs([experiment], filter_string="tags.role = 'explorer'")
    assert sorted(run.data.tags["rank"] for run in found) == ["0", "1"]


def growing(row: MakeRow, seq: int, *, columns: tuple[str, ...] = ("n",), writer: str = "explorer/0") -> Row:
    table = TableData(name="samples", columns=columns, rows=((seq,) * len(columns),), append=True)
    return row(seq, writer=writer, table=table)


def chunks(job: Job, writer: str = "explorer/0") -> dict[str, Any]:
    """The chunks of a growing table: their names, and what MLflow's own client reads in them."""
    run_id = job.runs[0].id
    found = job.client.list_artifacts(run_id, f"tables/{writer}/samples")
    return {
        Path(each.path).stem: json.loads(Path(job.client.download_artifacts(run_id, each.path)).read_text())["data"]
        for each in found
    }


def test_growing_table_is_stored_in_chunks(sqlite: Job, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows, and those behind them, are acknowledged with their chunk, which is complete after a minute."""
    run = sqlite.open()
    run.log([row(1, {"reward": 0.5}, writer="explorer/0")])
    assert run.confirmed("explorer/0", 1) == 1
    for seq in (2, 3, 4):
        run.log_table(growing(row, seq))
    run.log([row(5, {"reward": 0.5}, writer="explorer/0")])
    run.tend()
    assert (chunks(sqlite), run.confirmed("explorer/0", 1)) == ({}, 1)
    monkeypatch.setattr("rolecall_mlflow.artifacts.growing.CHUNK_EVERY", 0.0)
    run.tend()
    assert (chunks(sqlite), run.confirmed("explorer/0", 1)) == ({"00000002-1-2": [[2], [3], [4]]}, 5)
    run.log_table(growing(row, 6))
    run.flush(1.0)
    assert (chunks(sqlite)["00000006-1-6"], run.confirmed("explorer/0", 1)) == ([[6]], 6)


def test_chunk_that_comes_again_is_there_once(sqlite: Job, row: MakeRow) -> None:
    """A courier that died after it stored a chunk, and before that was acknowledged."""
    for more in (3, 5):
        run = sqlite.open()
        for seq in range(2, more):
            run.log_table(growing(row, seq))
            run.log_table(growing(row, seq))
        run.flush(1.0)
    assert chunks(sqlite) == {"00000002-1-2": [[2], [3], [4]]}


def test_rows_of_a_chunk_may_differ_in_columns(sqlite: Job, row: MakeRow) -> None:
    run = sqlite.open()
    run.log_table(growing(row, 1))
    run.log_table(growing(row, 2, columns=("m", "n")))
    run.log_table(growing(row, 3, writer="explorer/1"))
    run.flush(1.0)
    assert chunks(sqlite) == {"00000001-1-1": [[1, None], [2, 2]]}
    assert chunks(sqlite, "explorer/1") == {"00000003-1-3": [[3]]}


def test_many_rows_do_not_wait_for_a_chunk(sqlite: Job, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rolecall_mlflow.artifacts.growing.MOST_ROWS", 3)
    run = sqlite.open()
    run.log_table(growing(row, 1))
    run.tend()
    assert chunks(sqlite) == {}
    run.log([row(seq, {"reward": 0.5}, writer="explorer/0") for seq in (2, 3, 4)])
    run.tend()
    assert chunks(sqlite) == {"00000001-1-1": [[1]]}


def test_refused_chunk_is_stored_row_by_row(sqlite: Job, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may take no requests as large as a chunk."""
    from mlflow.exceptions import MlflowException

    def refuse(*_: object) -> None:
        raise MlflowException("too large", 1000)  # `INVALID_PARAMETER_VALUE`

    run = sqlite.open()
    rows = [growing(row, seq) for seq in (1, 2)]
    for each in rows:
        run.log_table(each)
    with monkeypatch.context() as patched:
        patched.setattr(type(sqlite.client), "log_text", refuse)
        with pytest.raises(Unavailable, match="its rows are tried one by one"):
            run.flush(1.0)
    for each in rows:
        run.log_table(each)
    assert chunks(sqlite) == {"00000001-1-1": [[1]], "00000002-1-2": [[2]]}
    assert run.confirmed("explorer/0", 1) == 2


def test_growing_table_of_a_job(sqlite: Job, tmp_path: Path) -> None:
    """All rows are held when the role has closed."""
    config = MonitorConfig(
        project="gsm8k",
        name="n",
        monitor_type="mlflow",
        monitor_args={"uri": sqlite.uri},
        monitor_dir=tmp_path / "job",
        shared_run=True,
        courier="thread",
    )
    with launch(config) as job, open_monitor(job.config, "explorer", 0) as monitor:
        for step in range(1, 21):
            monitor.log({"reward": 0.5, "samples": Table([{"n": step}], append=True)}, step)
    assert undelivered(Layout(config.monitor_dir), "mlflow", "explorer/0") == 0
    (run,) = sqlite.client.search_runs([sqlite.client.get_experiment_by_name("gsm8k").experiment_id])
    found = sqlite.client.list_artifacts(run.info.run_id, "tables/explorer/0/samples")
    paths = [sqlite.client.download_artifacts(run.info.run_id, each.path) for each in found]
    assert len(paths) == 1
    assert json.loads(Path(paths[0]).read_text())["data"] == [[step] for step in range(1, 21)]


def test_run_has_source_user_and_commit(job: Job) -> None:
    source = {"name": "train.py", "user": "ada", "commit": "0" * 40}
    tags = job.stored(job.open(source=source).id).data.tags
    assert {tag: value for tag, value in tags.items() if tag.startswith(("mlflow.source", "mlflow.user"))} == {
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "0" * 40,
        "mlflow.user": "ada",
    }


def test_preparing_creates_the_experiment_once(job: Job, ticket: Callable[..., RunTicket]) -> None:
    args = MlflowArgs(uri=job.uri, experiment=f"prepared {job.ticket().project}")
    prepare(ticket(shared=False), args)
    prepare(ticket(shared=False), args)
    assert job.client.get_experiment_by_name(args.experiment or "").lifecycle_stage == "active"


def test_rows_that_come_again_count_once(database: Job, row: MakeRow) -> None:
    run = database.open()
    wide = [row(seq, {f"m{number}": seq * 0.5 for number in range(150)}) for seq in range(1, 11)]
    odd = [row(seq, {"nan": math.nan, "inf": math.inf, "ten": 10.0}) for seq in range(11, 14)]
    for _ in range(3):
        run.log([*wide, *odd])
    run.log([*wide[5:], *odd, row(14, {"m0": 14.0})])
    again = database.join("explorer", backend_run_id=run.id)
    again.log([*odd, row(15, {"nan": 15.0})])
    assert database.points("m149") == [(step, step * 0.5) for step in range(1, 11)]
    assert [step for step, _ in database.points("m0")] == [*range(1, 11), 14]
    assert [step for step, _ in database.points("nan")] == [11, 12, 13, 15]
    assert [step for step, _ in database.points("inf")] == [11, 12, 13]


def test_nan_is_kept_and_infinity_clipped(database: Job, row: MakeRow) -> None:
    database.open().log([row(1, {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "int": 2**53})])
    ((_, nan),) = database.points("nan")
    assert math.isnan(nan)
    assert database.points("inf") == [(1, 1.7976931348623157e308)]
    assert database.points("minus") == [(1, -1.7976931348623157e308)]
    assert database.points("int") == [(1, 2.0**53)]


def test_the_file_store_keeps_infinity(files: Job, row: MakeRow) -> None:
    files.open().log([row(1, {"inf": math.inf, "minus": -math.inf})])
    assert files.points("inf") + files.points("minus") == [(1, math.inf), (1, -math.inf)]


def test_invalid_keys_change_and_stay_distinct(job: Job, row: MakeRow) -> None:
    run = job.open()
    run.log([row(1, {"pass@1": 1.0, "acc%": 2.0, "acc#": 3.0, "/x//y": 4.0, "k" * 400: 5.0, "é" * 200: 6.0})])
    stored = job.stored().data.metrics
    assert len(stored) == 6
    assert stored["pass_at_1"] == 1.0
    assert sorted(stored.values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_collision_is_remembered_over_restart(job: Job, row: MakeRow) -> None:
    first = job.open()
    first.log([row(1, {"a@b": 1.0})])
    first.log([row(2, {"a_at_b": 2.0})])
    second = job.open(backend_run_id=first.id)
    second.log([row(3, {"a_at_b": 3.0})])
    second.log([row(4, {"a@b": 4.0})])
    (changed,) = set(job.stored().data.metrics) - {"a_at_b"}
    assert job.points("a_at_b") == [(1, 1.0), (4, 4.0)]
    assert job.points(changed) == [(2, 2.0), (3, 3.0)]


def test_only_step_beyond_64_bits_rejected(job: Job, row: MakeRow) -> None:
    run = job.open()
    bad = row(2, {"a": 2.0}, step=2**63)
    with pytest.raises(Rejected) as caught:
        run.log([row(1, {"a": 1.0}), bad, row(3, {"a": 3.0})])
    assert caught.value.rows == (bad,)
    assert job.points("a") == [(1, 1.0), (3, 3.0)]


def test_file_store_rejects_only_unusable_names(files: Job, row: MakeRow) -> None:
    run = files.open()
    run.log([row(1, {"a": 1.0, "d/e": 1.0})])
    bad = row(3, {"fine": 1.0, "a/b": 3.0})
    with pytest.raises(Rejected, match="a/b") as caught:
        run.log([row(2, {"a": 2.0}), bad, row(4, {"a": 4.0})])
    assert caught.value.rows == (bad,)
    assert files.points("a") == [(1, 1.0), (2, 2.0), (4, 4.0)]


def test_deleted_run_keeps_rows_in_journal(job: Job, row: MakeRow) -> None:
    run = job.open()
    job.client.delete_run(run.id)
    with pytest.raises(Unavailable, match="mlflow runs restore"):
        run.log([row(seq, {"a": 1.0}) for seq in range(1, 4)])
    with pytest.raises(BackendRefused, match="was deleted"):
        job.open(backend_run_id=run.id)
    job.client.restore_run(run.id)
    run.log([row(seq, {"a": 1.0}) for seq in range(1, 4)])
    assert [step for step, _ in job.points("a")] == [1, 2, 3]


def test_missing_run_is_refused(job: Job) -> None:
    job.open()
    with pytest.raises(BackendRefused, match="has no run"):
        job.join("explorer", backend_run_id="0" * 32)


def test_a_deleted_experiment_is_refused(job: Job) -> None:
    run = job.open()
    job.client.delete_experiment(job.stored(run.id).info.experiment_id)
    with pytest.raises(BackendRefused, match="mlflow experiments restore"):
        job.open(run_id="r-2")


def test_strings_are_left_out(job: Job, row: MakeRow, caplog: pytest.LogCaptureFixture) -> None:
    run = job.open()
    run.log([row(1, {"a": 1.0}, text={"note": "x"}), row(2, text={"note": "y"}), row(3, {"a": 3.0})])
    run.flush(1.0)
    stored = job.stored().data
    assert stored.metrics == {"a": 3.0}
    assert job.points("a") == [(1, 1.0), (3, 3.0)]
    assert "note" not in stored.params.keys() | stored.tags.keys()
    assert caplog.messages == []


def test_tables_are_written_once_and_listed(job: Job, row: MakeRow) -> None:
    run = job.open()
    assert isinstance(run, SupportsTables)
    table = TableData(name="samples", columns=("prompt", "score"), rows=(("a", 0.5), ("b", math.nan), ("ü", math.inf)))
    logged = row(3, step=12, table=table, writer="explorer/0")
    run.log_table(logged)
    run.log_table(logged)
    path = "tables/explorer/0/samples/00000012-1-3.json"
    assert json.loads(job.stored().data.tags["mlflow.loggedArtifacts"]) == [{"path": path, "type": "table"}]
    stored = json.loads(_artifact(job, run.id, path))
    assert stored == {"columns": ["prompt", "score"], "data": [["a", 0.5], ["b", None], ["ü", "inf"]]}


def _artifact(job: Job, run_id: str, path: str) -> str:
    return Path(job.client.download_artifacts(run_id, path)).read_text(encoding="utf-8")


@pytest.mark.parametrize("shared", [True, False])
def test_tables_path_names_writer_once(sqlite: Job, tmp_path: Path, shared: bool) -> None:
    config = MonitorConfig(
        project="p",
        name="n",
        monitor_type="mlflow",
        monitor_args={"uri": sqlite.uri},
        shared_run=shared,
        courier="thread",
        monitor_dir=tmp_path / "job",
    )
    with launch(config) as job, open_monitor(job.config, "explorer", 0) as monitor:
        monitor.log_table("samples", [{"score": 0.5}], step=12)
    listed = json.loads(sqlite.stored(_run_of(sqlite)).data.tags["mlflow.loggedArtifacts"])
    assert [each["path"] for each in listed] == ["tables/explorer/0/samples/00000012-1-1.json"]


def test_list_of_tables_stays_within_tag(sqlite: Job, row: MakeRow) -> None:
    run = sqlite.open()
    for seq in range(1, 21):
        run.log_table(row(seq, table=TableData(name="long" * 60, columns=("a",), rows=((seq,),))))
    listed = json.loads(sqlite.stored().data.tags["mlflow.loggedArtifacts"])
    assert listed[-1]["path"].endswith("00000020-1-20.json")
    assert 10 < len(listed) < 20


def test_configs_are_merged_by_the_primary(job: Job) -> None:
    primary, role = job.open(config={"seed": 1}), job.join("explorer/0")
    assert isinstance(primary, SupportsConfig)
    role.merge_config({"explorer/0": {"lr": 0.5}})
    assert job.stored().data.params == {"seed": "1"}
    primary.merge_config({"explorer/0": {"lr": 0.5, "layers": [1, 2]}})
    primary.merge_config({"explorer/0": {"lr": 0.5, "layers": [1, 2]}, "trainer": {"model": {"name": None}}})
    assert job.stored().data.params == {
        "seed": "1",
        "explorer/0.lr": "0.5",
        "explorer/0.layers": "[1, 2]",
        "trainer.model.name": "None",
    }


def test_config_with_odd_characters_is_stored(job: Job) -> None:
    """PostgreSQL holds no NUL, and no database half of a surrogate pair."""
    job.open(config={"nul": "a\0b", "half": "a\ud800b", "list": ["\0"], "key\0": 1, "lr": 0.1})
    params = job.stored().data.params
    assert len(params) == 5
    assert params.items() >= {"nul": r"a\x00b", "half": r"a\ud800b", "list": r'["\u0000"]', "lr": "0.1"}.items()


def test_param_keeps_first_value_and_warns(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    first = job.open(config={"lr": 0.1})
    again = job.open(config={"lr": 0.2, "new": True}, backend_run_id=first.id)
    again.add_params({"lr": 0.2})
    assert job.stored().data.params == {"lr": "0.1", "new": "True"}
    assert [record.getMessage() for record in caplog.records if "first value" in record.getMessage()] == [
        "MLflow keeps the first value of a param; what the config has now is in tags, such as config.lr, for: lr"
    ]
    assert job.stored().data.tags["config.lr"] == "0.2"
    again.add_params({"lr": 0.1})
    assert job.stored().data.tags["config.lr"] == "0.1", "also if it is as it was"


def test_a_large_config_is_stored(job: Job) -> None:
    job.open(config={"many": {f"k{number}": number for number in range(250)}, "long": "x" * 7000, "a@b": 1, "": {}})
    params = job.stored().data.params
    assert len(params) == 252
    assert len(params["long"]) == 6000
    assert params["a_at_b"] == "1"


@pytest.mark.processes
def test_several_processes_write_one_run(job: Job, run_roles: RunRoles) -> None:
    run = job.open()
    tickets = [job.ticket(**_role(writer), backend_run_id=run.id) for writer in "ab"]
    errand = {"uri": job.uri, "rows": 300, "metrics": 5}
    ids = run_roles(*({**errand, "ticket": ticket, "prefix": f"{ticket.writer}/"} for ticket in tickets))
    assert ids == [run.id, run.id]
    for key in (f"{writer}/m{number}" for writer in "ab" for number in (0, 4)):
        assert job.points(key) == [(step, step / 10) for step in range(1, 301)]
    assert job.stored().info.status == "RUNNING"


@pytest.mark.servers  # as test_processes_open_one_new_file_together, which makes the experiment too
@pytest.mark.processes
def test_processes_create_one_experiment_together(database: Job, run_roles: RunRoles) -> None:
    changes = [{**_role(writer), "shared": False, "primary": True, "run_id": writer} for writer in "ab"]
    ids = set(run_roles(*({"uri": database.uri, "ticket": database.ticket(**each), "rows": 3} for each in changes)))
    assert len(ids) == 2
    for run_id in ids:
        assert database.points("m0", run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def _role(writer: str) -> dict[str, Any]:
    return {"primary": False, "writer": writer, "role": writer}


def test_system_metrics_are_each_roles_own(database: Job) -> None:
    pytest.importorskip("psutil")
    args = {"system_metrics": True, "system_metrics_interval": 0.05}
    primary = database.open(args)
    roles = [database.open(args, **_role(writer), backend_run_id=primary.id) for writer in ("explorer/0", "trainer")]
    wanted = {f"system/{writer}/cpu_utilization_percentage" for writer in ("explorer/0", "trainer")}
    database.wait(lambda: wanted <= set(database.stored().data.metrics))
    for run in [*roles, primary]:
        run.close("finished")
    seen = len(database.points("system/trainer/cpu_utilization_percentage"))
    late = {**_role("evaluator"), "shared": False, "primary": True, "run_id": "r-2", "ended": 1_700_000_060.0}
    assert database.open(args, **late)._system is None
    assert {key.split("/")[1] for key in database.stored().data.metrics} == {"explorer", "trainer"}
    assert len(database.points("system/trainer/cpu_utilization_percentage")) == seen
