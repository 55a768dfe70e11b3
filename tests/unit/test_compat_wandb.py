"""`rolecall.compat.wandb`: wandb's names, without wandb. `tests/compat` compares it with wandb itself."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from copy import copy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rolecall.compat import wandb
from rolecall.job.history import read_rows
from rolecall.store.details import config_now, details_now
from rolecall.store.layout import Layout


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which has no settings of wandb's or of ours."""
    for name in (
        "WANDB_MODE",
        "WANDB_PROJECT",
        "WANDB_NAME",
        "WANDB_RUN_ID",
        "WANDB_DIR",
        "WANDB_RESUME",
        "WANDB_TAGS",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("ROLECALL_DIR", "ROLECALL_MONITOR_TYPE", "ROLECALL_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def ended() -> Any:
    """No run is left over for the next test."""
    yield
    wandb.finish()


def job_of(run: wandb.Run) -> Path:
    return Path(run.dir).parent


def rows(run: wandb.Run) -> list[tuple[str | None, int, dict[str, Any]]]:
    found = read_rows(job_of(run))
    return [(row.axis, row.step, {**row.metrics, **row.text}) for row in found]


def test_steps_count_from_zero() -> None:
    run = wandb.init(project="p")
    wandb.log({"loss": 1.0})
    wandb.log({"a": 1}, commit=False)
    wandb.log({"b": 2})
    wandb.log({"c": 3}, step=10)
    wandb.log({"d": 4})
    wandb.log({"e": 5})
    wandb.finish()
    expected = [(0, {"loss": 1.0}), (1, {"a": 1}), (1, {"b": 2}), (10, {"c": 3}), (10, {"d": 4}), (11, {"e": 5})]
    assert [(step, data) for _, step, data in rows(run)] == expected


def test_lower_step_is_kept() -> None:
    """wandb drops it."""
    with wandb.init() as run:
        run.log({"a": 1}, step=5)
        run.log({"a": 2}, step=3)
        assert run.step == 5
    assert [(step, data["a"]) for _, step, data in rows(run)] == [(5, 1), (3, 2)]


def test_glob_has_an_axis() -> None:
    with wandb.init() as run:
        run.define_metric("train/*", step_metric="train/step")
        run.define_metric("val/*", step_metric="epoch")
        run.log({"train/step": 64, "train/loss": 0.5, "other": 1})
        run.log({"val/acc": 0.7, "epoch": 2})
        run.log({"val/acc": 0.8})
    assert rows(run) == [
        ("train", 64, {"train/step": 64, "train/loss": 0.5}),
        (None, 0, {"other": 1}),
        ("epoch", 2, {"val/acc": 0.7}),
        (None, 1, {"epoch": 2}),
        ("epoch", 2, {"val/acc": 0.8}),
    ]


def test_step_that_is_no_whole_number(caplog: pytest.LogCaptureFixture) -> None:
    with wandb.init() as run:
        run.define_metric("x", step_metric="hours")
        run.log({"hours": 0.5, "x": 1})
    assert rows(run) == [(None, 0, {"hours": 0.5, "x": 1})]
    assert "hours is not a whole number" in caplog.text


def test_nested_keys_have_dots() -> None:
    with wandb.init() as run:
        run.log({"loss": {"policy": 1, "value": {"max": 2}}, "nothing": None})
    assert rows(run) == [(None, 0, {"loss.policy": 1, "loss.value.max": 2})]


def test_config_by_item_and_attribute() -> None:
    run = wandb.init(config=Namespace(lr=0.1, layers=2))
    assert (run.config.lr, wandb.config["layers"], "lr" in run.config) == (0.1, 2, True)
    run.config.seed = 7
    run.config.update({"lr": 0.2}, allow_val_change=True)
    with pytest.raises(wandb.Error, match="allow_val_change=True"):
        run.config["lr"] = 0.3
    run.config.setdefaults({"lr": 1, "new": 2})
    wandb.finish()
    assert dict(copy(run.config)) == {"lr": 0.2, "layers": 2, "seed": 7, "new": 2}
    assert config_now(Layout(job_of(run)), "main") == dict(run.config)


def test_summary_of_each_kind() -> None:
    with wandb.init() as run:
        run.define_metric("acc", summary="max,mean")
        run.define_metric("hidden", summary="none")
        for value in (1, 3, 2):
            run.log({"acc": value, "hidden": value, "plain": value})
        run.summary["best"] = 9
        run.summary.note = "done"
        assert dict(run.summary) == {"acc": {"max": 3, "mean": 2}, "plain": 2, "best": 9, "note": "done"}
    summary = details_now(Layout(job_of(run)), "main").summary
    assert summary == {"acc.max": 3, "acc.mean": 2, "best": 9, "note": "done"}


def test_logged_value_replaces_set_one() -> None:
    with wandb.init() as run:
        run.summary["loss"] = 5
        run.log({"loss": 1})
    assert details_now(Layout(job_of(run)), "main").summary == {"loss": 1}


def test_growing_table_logs_new_rows() -> None:
    table = wandb.Table(columns=["a"], log_mode="INCREMENTAL")
    with wandb.init() as run:
        for number in range(2):
            table.add_data(number)
            run.log({"t": table})
    found = [row.table for row in read_rows(job_of(run)) if row.table]
    assert [(each.rows, each.append) for each in found] == [(((0,),), True), (((1,),), True)]


def test_artifact_is_copied(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"old")
    artifact = wandb.Artifact("model", type="model", metadata={"steps": 2})
    artifact.add_file("model.bin", name="weights/last.bin")
    with wandb.init() as run:
        run.log({"loss": 1})
        run.log_artifact(artifact).wait()
        (folder / "model.bin").write_bytes(b"new")
    ((media,),) = (row.media for row in read_rows(job_of(run)) if row.media)
    assert media.path is not None
    assert (media.key, media.path.read_bytes()) == ("model/weights/last.bin", b"old")
    about = {"type": "model", "description": None, "steps": 2}
    assert config_now(Layout(job_of(run)), "main") == {"artifact/model": about}


def test_log_raises_nothing() -> None:
    data: Any = {1: 2, "x": object(), "loss": 1}
    with wandb.init() as run:
        run.define_metric("train/*", step_metric="train/step")
        run.log(data)
        run.log(data, step=data)
        run.log(data["x"])
    assert [data for _, _, data in rows(run)] == [{"loss": 1}, {"loss": 1}]
    assert run.monitor.dropped > 0


def test_id_without_resume_begins_anew() -> None:
    with wandb.init(project="p", id="abc") as first:
        first.log({"loss": 1})
    with wandb.init(project="p", id="abc") as run:
        run.log({"loss": 2})
    assert rows(run) == [(None, 0, {"loss": 2})]


def test_array_is_copied_at_once() -> None:
    np = pytest.importorskip("numpy")
    pixels = np.zeros((2, 2), dtype="uint8")
    image = wandb.Image(pixels)
    pixels[:] = 255
    assert image.boxed.data.max() == 0


def test_run_goes_on_by_id() -> None:
    with wandb.init(project="p", id="abc") as first:
        first.log({"loss": 1.0})
    with wandb.init(project="p", id="abc", resume="allow") as second:
        assert (second.resumed, second.step) == (True, 1)
        second.log({"loss": 0.5})
    assert [(step, data["loss"]) for _, step, data in rows(second)] == [(0, 1.0), (1, 0.5)]


def test_init_returns_the_open_run() -> None:
    first = wandb.init()
    assert wandb.init() is first is wandb.run
    second = wandb.init(reinit="finish_previous")
    assert first.is_finished
    assert wandb.run is second


def test_init_of_a_program_that_executes_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has imported ipykernel, as a kernel has, and IPython, but no shell runs it."""
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    first = wandb.init()
    assert wandb.init() is first


def test_disabled_run_records_nothing(folder: Path) -> None:
    with wandb.init(mode="disabled", config={"a": 1}) as run:
        run.log({"loss": 1})
        assert (run.disabled, run.summary["loss"], run.config.a) == (True, 1, 1)
    assert wandb.run is None
    assert not list(folder.iterdir())


def test_without_a_run() -> None:
    assert wandb.run is None
    with pytest.raises(wandb.Error, match="call wandb"):
        wandb.log({"loss": 1})
    with pytest.raises(wandb.Error, match="call wandb"):
        _ = wandb.config


@pytest.mark.parametrize(
    ("name", "advice"),
    [("sweep", "wandb itself"), ("alert", "no messages"), ("plot", "figure"), ("nonsense", "no 'nonsense'")],
)
def test_what_is_absent_says_so(name: str, advice: str) -> None:
    with pytest.raises(AttributeError, match=advice):
        getattr(wandb, name)


def test_run_says_what_is_absent() -> None:
    run = wandb.init(mode="disabled")
    with pytest.raises(AttributeError, match=r"wandb\.Histogram"):
        run.watch(object())
    with pytest.raises(wandb.UnsupportedError, match=r"init\(name="):
        run.name = "other"


@pytest.mark.parametrize(
    "arguments",
    [{"fork_from": "abc?_step=1"}, {"sync_tensorboard": True}, {"reinit": "create_new"}, {"resume": "must"}],
)
def test_refused_argument_of_init(arguments: dict[str, Any]) -> None:
    wandb.init(mode="disabled")
    if "reinit" not in arguments:
        wandb.finish()
    with pytest.raises(wandb.UnsupportedError):
        wandb.init(**arguments)


def test_environment_names_the_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-env")
    monkeypatch.setenv("WANDB_NAME", "name-env")
    monkeypatch.setenv("WANDB_DIR", str(folder / "elsewhere"))
    with wandb.init(tags=["a"]) as run:
        assert (run.project, run.name, run.tags) == ("from-env", "name-env", ("a",))
        assert job_of(run).is_relative_to(folder / "elsewhere" / "rolecall" / "from-env")


def test_nothing_imports_wandb() -> None:
    code = "import sys, rolecall.compat.wandb; sys.exit('wandb' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, rolecall; sys.exit('rolecall.compat' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


SHARED = """
import sys
from rolecall.compat import wandb

rank = int(sys.argv[1])
settings = wandb.Settings(mode="shared", x_primary=rank == 0, x_label=f"rank-{rank}")
run = wandb.init(project="p", id="shared-1", settings=settings)
for step in range(3):
    run.log({f"loss-{rank}": step})
run.finish()
"""


@pytest.mark.processes
def test_shared_mode_is_one_job(folder: Path) -> None:
    script = folder / "shared.py"
    script.write_text(SHARED)
    started = [subprocess.Popen([sys.executable, script.name, str(rank)]) for rank in (0, 1)]
    for process in started:
        assert process.wait(timeout=200) == 0
    found = list(read_rows(folder / "rolecall" / "p" / "shared-1"))
    for rank in (0, 1):
        own = [(row.step, dict(row.metrics)) for row in found if row.writer == f"rank-{rank}"]
        assert own == [(step, {f"loss-{rank}": step}) for step in range(3)]
