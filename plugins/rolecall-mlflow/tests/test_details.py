"""The config, summary and tags of a run that is open, and runs that exist before the job."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rolecall
from rolecall import (
    BackendRefused,
    MonitorConfig,
    Row,
    SupportsSummary,
    SupportsTags,
    Unavailable,
    launch,
    open_monitor,
    resolve,
)
from rolecall.__main__ import main
from rolecall_mlflow.args import MlflowArgs

if TYPE_CHECKING:
    from conftest import Job

MakeRow = Callable[..., Row]


@pytest.fixture(params=["sqlite", "files", pytest.param("served", marks=pytest.mark.servers)])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def here(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The uri of a store, for a job that is launched in this process; the process has no active run."""
    shutil.copy(migrated, tmp_path / "here.db")
    uri = f"sqlite:///{tmp_path / 'here.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLECALL_MONITOR_TYPE", raising=False)
    yield uri
    import mlflow

    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


# ------------------------------------------------------------- an open run


def test_summary_is_metrics_and_tags(job: Job) -> None:
    run = job.open()
    assert isinstance(run, SupportsSummary)
    run.merge_summary({"best": 0.5, "note": "first", "a@b": 1})
    run.merge_summary({"best": 0.9, "note": "ok", "a@b": 1})
    run.merge_summary({"best": 0.7, "a@b": 1})
    data = job.stored().data
    assert data.metrics == {"summary/best": 0.7, "summary/a_at_b": 1.0}, "the last, and not the greatest"
    assert not any(tag.startswith("summary/") for tag in data.tags), "the string was removed"
    assert job.points("summary/a_at_b") == [(0, 1.0)], "an equal value is stored once"


def test_summary_comes_again(job: Job) -> None:
    """To another process that opens the run: it stores what is missing, and leaves what others have set."""
    first = job.open()
    first.merge_summary({"best": 0.9, "note": "ok", "nan": math.nan, "inf": math.inf})
    again = job.open(backend_run_id=first.id)
    again.merge_summary({"best": 0.9, "note": "ok", "new": 1.0})
    assert job.points("summary/best") == [(0, 0.9)]
    assert job.points("summary/new") == [(0, 1.0)]
    assert job.stored().data.tags["summary/note"] == "ok"


def test_long_summary_is_stored(job: Job) -> None:
    values: dict[str, float | str] = {f"k{number}": float(number) for number in range(250)}
    job.open().merge_summary(values | {"text": "x" * 9000})
    data = job.stored().data
    assert len(data.metrics) == 250
    assert len(data.tags["summary/text"]) == 5000


def test_labels_are_one_tag(job: Job) -> None:
    run = job.open()
    assert isinstance(run, SupportsTags)
    run.set_tags(["baseline", "debug"])
    run.set_tags(["baseline"])
    assert job.stored().data.tags["tags"] == "baseline"


def test_changed_config_is_a_tag(job: Job) -> None:
    run = job.open(config={"lr": 0.1, "optim": {"name": "adam"}})
    run.merge_config({"lr": 0.05, "optim": {"name": "adam"}, "seed": 0})
    run.merge_config({"lr": 0.01, "optim": {"name": "adam"}, "seed": 0})
    data = job.stored().data
    assert data.params == {"lr": "0.1", "optim.name": "adam", "seed": "0"}
    assert {tag: value for tag, value in data.tags.items() if tag.startswith("config.")} == {"config.lr": "0.01"}


def test_dead_server_is_unavailable(sqlite: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sqlite.open(args={"retries": 0})

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(type(run._client), "log_batch", refuse)
    monkeypatch.setattr(type(run._client), "set_tag", refuse)
    with pytest.raises(Unavailable):
        run.merge_summary({"a": 1.0})
    with pytest.raises(Unavailable):
        run.set_tags(["a"])
    with pytest.raises(Unavailable):
        run.merge_config({"a": 1})
    monkeypatch.undo()
    run.merge_summary({"a": 1.0})
    assert sqlite.points("summary/a") == [(0, 1.0)]


@pytest.mark.parametrize("shared", [False, True])
def test_job_tells_its_run(here: str, tmp_path: Path, shared: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """From `Monitor` to the store, and `verify` takes none of it for a point."""
    config = MonitorConfig(
        project="p",
        name="n",
        monitor_type="mlflow",
        monitor_args={"uri": here},
        monitor_dir=tmp_path / "job",
        shared_run=shared,
        courier="thread",
    )
    with launch(config, run_config={"seed": 1}) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.update_config({"lr": 0.1})
        monitor.update_config({"lr": 0.2})
        monitor.summary["best"] = 0.9
        monitor.tags.add("baseline")
    (run,) = client(here).search_runs([client(here).get_experiment_by_name("p").experiment_id])
    prefix, param = ("trainer/", "trainer.lr") if shared else ("", "lr")
    assert run.data.metrics == {f"{prefix}loss": 1.0, f"summary/{prefix}best": 0.9}
    assert run.data.tags["tags"] == "baseline"
    assert run.data.params["seed"] == "1"
    assert run.data.tags.get(f"config.{param}", run.data.params[param]) == "0.2"
    assert main(["verify", str(config.monitor_dir)]) == 0, capsys.readouterr().out


# ------------------------------------------------- a run that exists already


def test_attached_run_stays_its_makers(job: Job, row: MakeRow) -> None:
    """It keeps its name, its status and its params; also if it has ended."""
    experiment = job.client.create_experiment("theirs")
    theirs = job.client.create_run(experiment, run_name="mine")
    job.client.log_param(theirs.info.run_id, "lr", 0.1)
    job.client.log_metric(theirs.info.run_id, "old", 1.0)
    for status, is_ended in (("RUNNING", False), ("FINISHED", True)):
        if is_ended:
            job.client.set_terminated(theirs.info.run_id)
        before = job.client.get_run(theirs.info.run_id).info
        for _ in range(2):  # a later process does the same
            run = job.open(run_id=theirs.info.run_id, attached=True, shared=False, config={"lr": 0.2, "new": 1})
            run.log([row(1, {"loss": 0.5})])
            run.close("failed")
        stored = job.client.get_run(theirs.info.run_id)
        assert (stored.info.run_name, stored.info.status, stored.info.end_time) == ("mine", status, before.end_time)
        assert stored.data.params == {"lr": "0.1", "new": "1"}
        assert stored.data.metrics == {"old": 1.0, "loss": 0.5}


def test_unknown_run_is_refused(job: Job) -> None:
    job.open()
    with pytest.raises(BackendRefused, match=r"has no run 0a; correct monitor_args.run_id or MLFLOW_RUN_ID"):
        job.open(run_id="0a", attached=True, shared=False)


def test_init_attaches_to_the_active_run(here: str, tmp_path: Path) -> None:
    """And to where that is, if nothing else is said."""
    import mlflow

    mlflow.set_tracking_uri(here)
    with mlflow.start_run(run_name="mine") as active:
        mlflow.log_metric("loss", 1.0, step=1)
        with rolecall.init("p", monitor_type="mlflow", tags=["baseline"]) as monitor:
            monitor.log({"loss": 0.5}, 2)
        assert client(here).get_run(active.info.run_id).info.status == "RUNNING"
    run = client(here).get_run(active.info.run_id)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.tags["tags"] == "baseline"
    points = [(point.step, point.value) for point in client(here).get_metric_history(run.info.run_id, "loss")]
    assert points == [(1, 1.0), (2, 0.5)]
    (record,) = tmp_path.glob("rolecall/*/*/run.json")
    assert main(["verify", str(record.parent)]) == 0, "what others log is not extra"


def test_run_id_of_the_environment(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert MlflowArgs.model_validate({"uri": here}).run_id == "abc"
    assert MlflowArgs.model_validate({"uri": here, "run_id": "def"}).run_id == "def"
    assert MlflowArgs.model_validate({"uri": here, "run_id": None}).run_id is None
    args = MlflowArgs.model_validate({"uri": here})
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert MlflowArgs.model_validate(args.model_dump(exclude_unset=True)).run_id == "abc", "other processes get it"


def test_active_run_of_another_store(here: str, tmp_path: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(here)
    with mlflow.start_run() as active:
        assert MlflowArgs.model_validate({}).run_id == active.info.run_id
        assert MlflowArgs.model_validate({"uri": f"sqlite:///{tmp_path / 'other.db'}"}).run_id is None


def test_separate_runs_do_not_attach(here: str, tmp_path: Path) -> None:
    """It is said at launch; a shared run of the same job attaches."""
    given: dict[str, Any] = {"project": "p", "name": "n", "monitor_type": "mlflow", "monitor_dir": tmp_path / "job"}
    config = MonitorConfig(**given, monitor_args={"uri": here, "run_id": "abc"})
    (downgrade,) = resolve(config).downgrades
    assert str(downgrade).startswith("mlflow: run_id: an existing run can only be the one run of a job")
    shared = resolve(config.model_copy(update={"shared_run": True}))
    assert (shared.downgrades, shared.backends[0].attaches) == ((), True)
