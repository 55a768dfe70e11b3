"""`rolecall.integrations.lightning` beside Lightning's own CSVLogger: real trainings, read back from three trackers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_job import STEPS, TrainingError, classifier, points, trainer
from page_blocks import ROOT, run_page

import rolecall
from rolecall import ConfigError
from rolecall.integrations.lightning import RolecallLogger
from rolecall.job.history import read_details, read_rows

# Lightning warns of small data, few workers and what will change in torch.
pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
SCRIPT = ROOT / "tests" / "support" / "lightning_job.py"
Points = dict[str, list[tuple[float, float]]]


@pytest.fixture(autouse=True)
def _finish() -> Any:
    """A test's run ends with the test, and not with the next one's."""
    yield
    rolecall.init("end", "end", monitor_type="none").finish()


def logged_by(logger: CSVLogger) -> Points:
    """What Lightning's own logger has."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines()):
        for key, value in line.items():
            if key != "step" and value:
                found[key].append((float(line["step"]), float(value)))
    return {key: sorted(values) for key, values in found.items()}


def recorded(directory: Path) -> Points:
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_rows(directory):
        for key, value in row.metrics.items():
            found[key].append((row.step, value))
    return {key: sorted(values) for key, values in found.items()}


def shown(directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rolecall", "show", str(directory), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_training_is_in_the_tracker(tracker: Any, tmp_path: Path) -> None:
    own = CSVLogger(tmp_path, name="csv")
    logger = RolecallLogger(
        "points", "sgd", monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args, monitor_dir="job"
    )
    job, model = trainer([logger, own], tmp_path), classifier()
    job.fit(model, points(), points(2))
    job.test(model, points(2), verbose=False)
    logger.experiment.finish()
    expected = logged_by(own)
    assert [step for step, _ in expected["train/loss"]] == list(range(2 * STEPS))
    assert expected.keys() == {"epoch", "train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy"}
    held = tracker.read("sgd")
    for key, values in expected.items():
        # Lightning logs `epoch` twice at the last step of an epoch, and wandb keeps one value of a step.
        assert sorted(set(held[key])) == [(step, pytest.approx(value, rel=1e-6)) for step, value in sorted(set(values))]
    assert read_details(Path("job"))["main"].config == {"lr": 0.1}


def test_other_package_and_second_fit(tmp_path: Path) -> None:
    """`pytorch_lightning` has classes of its own; a run goes on with what a checkpoint had, and in another trainer."""
    package = "pytorch_lightning"
    logger = RolecallLogger("points", "sgd", monitor_dir="job", log_model="all")
    job = trainer(logger, tmp_path, package, enable_checkpointing=True, max_epochs=1)
    job.fit(classifier(package), points())
    assert Path(job.checkpoint_callback.dirpath) == tmp_path / "points" / "sgd" / "checkpoints"
    again = trainer(logger, tmp_path, package, max_epochs=2)
    again.fit(classifier(package), points(), ckpt_path=job.checkpoint_callback.best_model_path)
    logger.experiment.finish()
    assert [step for step, _ in recorded(Path("job"))["train/loss"]] == list(range(2 * STEPS))


def test_failed_training_is_continued(tmp_path: Path) -> None:
    logger = RolecallLogger("points", "sgd", monitor_dir="job")
    with pytest.raises(TrainingError):
        trainer(logger, tmp_path, max_epochs=1).fit(classifier(fails_at=3), points())
    assert shown(Path("job"))["state"] == "failed"
    trainer(logger, tmp_path, max_epochs=1).fit(classifier(), points())
    logger.experiment.finish()
    steps = [step for step, _ in recorded(Path("job"))["train/loss"]]
    assert steps == sorted([*range(3), *range(STEPS)])
    assert shown(Path("job"))["state"] == "finished"


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
@pytest.mark.parametrize("fails_at", [None, 3])
def test_two_processes_are_one_run(strategy: str, fails_at: int | None, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), strategy, str(tmp_path)]
    command += [] if fails_at is None else [f"--fails-at={fails_at}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (ran.returncode == 0) == (fails_at is None), ran.stderr
    assert "ResourceWarning" not in ran.stderr
    found = shown(tmp_path / "job")
    assert found["state"] == ("finished" if fails_at is None else "failed")
    held = recorded(tmp_path / "job")
    # Half of 16 batches of an epoch are rank 0's.
    assert [step for step, _ in held["train/loss"]] == list(range(2 * STEPS if fails_at is None else fails_at))
    assert ("test/accuracy" in held) == (fails_at is None)


@pytest.mark.parametrize("log_model", [True, "all"])
def test_checkpoints_are_files(log_model: Any, tmp_path: Path) -> None:
    logger = RolecallLogger("points", "sgd", monitor_dir="job", log_model=log_model)
    best = ModelCheckpoint(monitor="train/loss", filename="{step}", save_top_k=1, every_n_train_steps=2)
    job = trainer(logger, tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[best])
    job.fit(classifier(lr=1.0), points())
    logger.experiment.finish()
    media = [media for row in read_rows(Path("job")) for media in row.media]
    saved = Path(best.best_model_path)
    assert media[-1].key == f"checkpoint/{saved.stem}"
    assert media[-1].path is not None
    assert Path(media[-1].path).read_bytes() == saved.read_bytes()
    assert len(media) == 1 if log_model is True else len(media) > 1
    summary = read_details(Path("job"))["main"].summary
    assert summary["checkpoint/best"] == saved.name
    assert summary["checkpoint/best_score"] == pytest.approx(float(best.best_model_score))


def test_media_and_hyperparameters(tmp_path: Path) -> None:
    import torch

    logger = RolecallLogger("points", "sgd", config={"seed": 7}, monitor_dir="job", tags=["small"])
    logger.log_image("samples", [torch.rand(3, 8, 8, requires_grad=True), np.zeros((8, 8))], 1, ["noise", "nothing"])
    logger.log_table("guesses", ["class", "guess"], [[0, 1], [1, 1]], step=2)
    logger.log_hyperparams({"lr": 0.1}, {"hp/metric": 0.5})
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        logger.log_image("samples", [np.zeros((8, 8))] * 2, 1, ["both"])
    assert logger.experiment.dropped == 0
    logger.experiment.finish()
    rows = list(read_rows(Path("job")))
    assert [(media.key, media.caption) for media in rows[0].media] == [("samples", "noise"), ("samples", "nothing")]
    table = rows[1].table
    assert table is not None
    assert (table.columns, table.rows) == (("class", "guess"), ((0, 1), (1, 1)))
    details = read_details(Path("job"))["main"]
    assert (details.config, details.summary) == ({"seed": 7, "lr": 0.1}, {"hp/metric": 0.5})
    assert details.tags == ("small",)


def test_role_of_a_job(tmp_path: Path) -> None:
    with (
        rolecall.launch({"project": "points", "name": "job", "monitor_dir": "job", "shared_run": True}) as job,
        rolecall.open_monitor(job.config, "trainer", run_config={"seed": 7}) as monitor,
    ):
        logger = RolecallLogger(monitor=monitor)
        trainer(logger, tmp_path, max_epochs=1).fit(classifier(), points())
        assert monitor.is_open
        with pytest.raises(ConfigError, match="belongs to the process"):
            logger.__getstate__()
    assert [step for step, _ in recorded(Path("job"))["train/loss"]] == list(range(STEPS))


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    os.environ["ROLECALL_MODE"] = "disabled"
    logger = RolecallLogger("points", "sgd", monitor_dir="job", log_model=True)
    trainer(logger, tmp_path, max_epochs=1).fit(classifier(), points())
    assert not logger.experiment.is_open
    assert not Path("job").exists()


def test_bad_input_says_what_is_valid() -> None:
    wrong: Any = "best"
    with pytest.raises(ConfigError, match="log_model: 'best': must be False, True, or 'all'"):
        RolecallLogger(log_model=wrong)
    with pytest.raises(ConfigError, match="RolecallLogger: monitor: str is not"):
        RolecallLogger(monitor=wrong)
    with (
        rolecall.init("points", monitor_dir="job") as monitor,
        pytest.raises(ConfigError, match="project: not allowed"),
    ):
        RolecallLogger("points", monitor=monitor)


def test_pages_scripts_run(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "integrations" / "lightning.md", tmp_path)
    # Of 160 steps, Lightning logs each 50th. TensorBoard takes no file, such as the checkpoint.
    assert "rolecall: 4 rows: tensorboard 3 (1 rejected)" in printed
    assert "rolecall: 3 rows: local 3" in printed
