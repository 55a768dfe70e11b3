"""`RolecallCallback` in trainings of transformers and TRL, beside transformers' own callbacks."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import transformers_job as job
import wandb
from page_blocks import ROOT, blocks
from transformers.integrations import rewrite_logs

from rolecall import ConfigError, UnknownBackend, open_monitor
from rolecall.integrations.transformers import RolecallCallback
from rolecall.job.history import read_configs, read_history

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),  # what a framework warns of is its own affair
]
ONCE = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
TIMED = ("runtime", "per_second")
"""What two trainings never have in common."""


def ours(tracker: Any, **settings: Any) -> RolecallCallback:
    return RolecallCallback(monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args, **settings)


def own(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a `Trainer` with transformers' own callback for the tracker."""
    match tracker.monitor_type:
        case "mlflow":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.monitor_args["uri"])
        case "tensorboard":
            monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", f"{tracker.monitor_args['log_dir']}/theirs")
        case _:
            pass
    return {"report_to": tracker.monitor_type, "run_name": "theirs"}


def expected_of(points: dict[str, Any], tracker: Any) -> dict[str, Any]:
    """What transformers' own callback logged, under our keys and at the trainer's steps, without times."""
    if tracker.monitor_type == "mlflow":
        points = rewrite_logs(points)
    # `WandbCallback` logs at steps of wandb's own, and the trainer's as this metric, which it declares to be the axis.
    at = dict(points.get("train/global_step", []))
    return {
        key: [
            (step, pytest.approx(value, rel=1e-4)) for step, value in once((at.get(step, step), v) for step, v in found)
        ]
        for key, found in points.items()
        if not key.endswith(TIMED)
    }


def once(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those that are there twice: `train/epoch` is logged with the loss and with the evaluation."""
    return sorted(set(points))


def test_same_points_as_its_own_callback(tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that transformers' own callback logs; the rest is what it has in the summary, or is its own step."""
    callback = ours(tracker, name="ours")
    job.trainer(tmp_path / "a", [callback]).train()
    callback.finish()
    reference = job.trainer(tmp_path / "b", [], **own(tracker, monkeypatch))
    reference.train()
    if tracker.monitor_type == "wandb":
        wandb.finish()  # `WandbCallback` leaves it open
    found, expected = tracker.read("ours"), expected_of(tracker.read("theirs"), tracker)
    assert {"train/loss", "train/grad_norm", "train/learning_rate", "train/epoch", "eval/loss"} <= set(expected)
    assert {key: once(found.get(key, [])) for key in expected} == expected
    more = {key.rpartition("/")[2] for key in set(found) - set(expected) if not key.endswith(TIMED)}
    assert more <= {*ONCE, "global_step"}


def train_locally(directory: Path, callback: RolecallCallback, **settings: Any) -> Any:
    """Train, and return the trainer."""
    trainer = job.trainer(directory, [callback], **settings)
    trainer.train()
    return trainer


def program(*arguments: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `transformers_job.py`, in as many processes as torchrun starts if there are to be several."""
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    command = [sys.executable, *(several if processes else ()), job.__file__, *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)


def test_config_is_arguments_and_model(tmp_path: Path) -> None:
    callback = RolecallCallback(monitor_dir=tmp_path / "run")
    train_locally(tmp_path / "out", callback)
    callback.finish()
    config = read_configs(tmp_path / "run")[""]
    expected = {"max_steps": 4, "n_embd": 16, "pad_token_id": 0, "model/num_parameters": job.model().num_parameters()}
    assert {key: config[key] for key in expected} == expected


def test_run_goes_on_until_finish(tmp_path: Path) -> None:
    """Evaluations after training, predictions and a second training are in it; after `finish` there is another run."""
    callback = RolecallCallback(monitor_dir=tmp_path / "run")
    trainer = train_locally(tmp_path / "out", callback)
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    trainer.train()
    callback.finish()
    first = read_history(tmp_path / "run")
    assert str(first.state) == "finished"
    (main,) = first.writers
    assert main.metrics["train/loss"].steps == [1, 2, 3, 4, 1, 2, 3, 4]
    assert main.metrics["eval/loss"].steps == [2, 4, 4, 2, 4]
    assert main.metrics["test/loss"].steps == [4]
    assert set(main.details.summary) == ONCE
    trainer.train()
    callback.finish()
    assert read_history(tmp_path / "run").record.run_id != first.record.run_id


def test_resume_from_checkpoint(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"monitor_dir": tmp_path / "run", "resume": "allow"}
    saves = {"save_strategy": "steps", "save_steps": 2}
    first = RolecallCallback(**settings)
    train_locally(tmp_path / "out", first, **saves, max_steps=2)
    first.finish()
    second = RolecallCallback(**settings)
    job.trainer(tmp_path / "out", [second], **saves).train(resume_from_checkpoint=True)
    second.finish()
    (main,) = read_history(tmp_path / "run").writers
    assert (main.sessions, main.metrics["train/loss"].steps) == (2, [1, 2, 3, 4])


def test_grpo_logs_rewards_and_completions(tmp_path: Path) -> None:
    callback = RolecallCallback(monitor_dir=tmp_path / "run")
    job.grpo(tmp_path / "out", [callback]).train()
    callback.finish()
    (main,) = read_history(tmp_path / "run").writers
    completions = main.last_tables["completions"]
    assert (completions.count, completions.step) == (2, 2)
    rows: list[dict[str, Any]] = [dict(zip(completions.last.columns, r, strict=True)) for r in completions.last.rows]
    assert [row["cats"] for row in rows] == [row["completion"].split().count("cat") for row in rows]
    assert main.metrics["train/reward"].values[-1] == pytest.approx(sum(row["cats"] for row in rows) / len(rows))


def test_role_of_a_job(tmp_path: Path) -> None:
    """The callback logs to a role that is there, under its prefix, and leaves it open."""
    config = {"project": "p", "name": "n", "monitor_dir": tmp_path / "run", "shared_run": True}
    with open_monitor(config, role="trainer", primary=True, prefix="trainer/") as monitor:
        callback = RolecallCallback(monitor)
        train_locally(tmp_path / "out", callback)
        callback.finish()
        assert monitor.is_open
    (trainer,) = read_history(tmp_path / "run").writers
    assert trainer.writer == "trainer"
    assert trainer.metrics["train/loss"].steps == [1, 2, 3, 4]


def test_only_rank_zero_logs(tmp_path: Path) -> None:
    ran = program(str(tmp_path / "out"), str(tmp_path / "run"), processes=2)
    assert ran.returncode == 0, ran.stderr
    history = read_history(tmp_path / "run")
    (main,) = history.writers
    assert (str(history.state), main.sessions, main.metrics["train/loss"].steps) == ("finished", 1, [1, 2, 3, 4])


def test_exception_fails_run(tmp_path: Path) -> None:
    ran = program(str(tmp_path / "out"), str(tmp_path / "run"), "--fail")
    assert "the third step fails" in ran.stderr
    history = read_history(tmp_path / "run")
    assert (str(history.state), history.writers[0].metrics["train/loss"].steps) == ("failed", [1, 2])


def test_mode_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    callback = RolecallCallback(monitor_dir=tmp_path / "run")
    train_locally(tmp_path / "out", callback)
    callback.finish()
    assert not (tmp_path / "run").exists()


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"RolecallCallback: monitor: str is not a rolecall.Monitor; give what"):
        RolecallCallback("my-project")  # type: ignore[arg-type]
    with (
        open_monitor({"project": "p", "name": "n", "monitor_dir": tmp_path}, "trainer", primary=True) as monitor,
        pytest.raises(ConfigError, match=r"RolecallCallback: name, resume: not allowed together with monitor"),
    ):
        RolecallCallback(monitor, name="n", resume="allow")
    with pytest.raises(UnknownBackend, match="wandbb"):
        train_locally(tmp_path / "out", RolecallCallback(monitor_type="wandbb"))


@pytest.mark.parametrize("tracker", ["wandb"], indirect=True)
def test_the_example_of_the_docs(tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the change that the page shows, the script logs to wandb through rolecall."""
    monkeypatch.chdir(tmp_path)
    script, change, *_ = [
        each for each in blocks(ROOT / "docs/integrations/transformers.md") if each.language != "text"
    ][1:]
    Path(script.title).write_text(script.text)
    subprocess.run(["bash", "-c", change.text], check=True)
    left = runpy.run_path("gpt.py", run_name="__main__")
    for callback in left["trainer"].callback_handler.callbacks:
        if isinstance(callback, RolecallCallback):
            callback.finish()
    found = tracker.read("tiny")
    assert [step for step, _ in found["train/loss"]] == [5, 10, 15, 20]
    assert [step for step, _ in found["eval/loss"]] == [10, 20]
