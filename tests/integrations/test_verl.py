"""verl's loggers by way of rolecall, called as verl's trainer calls them, hold what verl's own hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rolecall import UnknownBackend

pytest.importorskip("verl", reason="`nox -s verl` installs it")
from verl.utils import tracking as own

from rolecall.integrations import verl as ours

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(900)]

SAMPLES = [("1 + 1", "2", 1.0), ("2 + 2", "ünï", 0.0)]


def fit(
    classes: Any,
    name: str,
    loggers: Sequence[str],
    *,
    steps: range = range(5),
    resume_mode: str = "auto",
    fails: bool = False,
) -> None:
    """The calls of `PPOTrainer.fit` and `TaskRunnerV1.run` (0.9.1, `ppo/v1/trainer_base.py`, `main_ppo.py`)."""
    config = {"trainer": {"resume_mode": resume_mode, "logger": list(loggers)}, "data": {"seed": None}}
    tracking = classes.Tracking(
        project_name="gsm8k", experiment_name=name, default_backend=list(loggers), config=config
    )
    generations = classes.ValidationGenerationsLogger(project_name="gsm8k", experiment_name=name)
    filtered = classes.DapoFilteredRewardTableLogger(project_name="gsm8k", experiment_name=name)
    if 0 in steps:
        generations.log(list(loggers), SAMPLES, 0)
        tracking.log(data={"val-core/math/acc@4": 0.25}, step=0)
    for step in steps[1:]:
        tracking.log(data={"actor/pg_loss": -1 / step, "perf/throughput": 1e4 + step}, step=step)
        filtered.log(list(loggers), {0.0: 3, 1.0: step}, step)
    tracking.finish(exit_code=1 if fails else 0)


def log_where(tracker: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say in verl's own variables where the tracker is."""
    match tracker.monitor_type:
        case "mlflow":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.monitor_args["uri"])
        case "tensorboard":
            # verl's has no directory for each run
            folder = Path(tracker.monitor_args["log_dir"])
            monkeypatch.setenv("TENSORBOARD_DIR", str(folder / name if name == "own" else folder))
        case _:
            pass  # wandb's own variables are set


def rounded(points: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """As float32, which event files hold."""
    numpy = pytest.importorskip("numpy")
    return {key: [(step, numpy.float32(value).item()) for step, value in found] for key, found in points.items()}


def test_points_are_those_of_verls_own(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in {"own": own, "ours": ours}.items():
        log_where(tracker, name, monkeypatch)
        fit(classes, name, ["console", tracker.monitor_type])
    expected = {
        "val-core/math/acc@4": [(0.0, 0.25)],
        "actor/pg_loss": [(float(step), -1 / step) for step in range(1, 5)],
        "perf/throughput": [(float(step), 1e4 + step) for step in range(1, 5)],
    }
    if tracker.monitor_type == "mlflow":
        expected = {key.replace("@", "_at_"): points for key, points in expected.items()}
    assert rounded(tracker.read("own")) == rounded(tracker.read("ours")) == rounded(expected)


def test_resumed_training_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is not resumed has a new one; a training that raised is failed; tables are rows of samples."""
    import json

    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = MlflowClient(tracking_uri=uri)

    def runs() -> list[Any]:
        experiment = client.get_experiment_by_name("gsm8k")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    fit(ours, "grpo-1", ["mlflow"], steps=range(3), fails=True)
    assert [run.info.status for run in runs()] == ["FAILED"]
    fit(ours, "grpo-1", ["mlflow"], steps=range(2, 5))
    (run,) = runs()
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "actor/pg_loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]
    tables = [entry["path"] for entry in json.loads(run.data.tags["mlflow.loggedArtifacts"])]
    (path,) = [path for path in tables if "generations" in path]
    table = json.loads(Path(client.download_artifacts(run.info.run_id, path)).read_text())
    assert table == {"columns": ["step", "input", "output", "score"], "data": [[0, *sample] for sample in SAMPLES]}
    assert any("filtered_reward_counts" in path for path in tables)
    fit(ours, "grpo-1", ["mlflow"], resume_mode="disable")
    assert len(runs()) == 2


def test_only_named_backend_gets_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROLECALL_DIR", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "events"))
    tracking = ours.Tracking("gsm8k", "grpo-1", ["local", "tensorboard", "console"])
    tracking.log({"both": 1.0}, 1)
    tracking.log({"local_only": 1.0}, 2, backend=["local"])
    tracking.log({"printed": 1.0}, 3, backend="console")
    tracking.finish()
    command = [sys.executable, "-m", "rolecall", "show", str(tmp_path / "gsm8k/grpo-1"), "--csv"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.findall("both|local_only|printed", shown) == ["both", "local_only"]


def test_run_of_a_failed_program_is_failed(tmp_path: Path) -> None:
    """Nobody called `finish`: verl's own runs are finished then."""
    program = "from rolecall.integrations.verl import Tracking\nt = Tracking('gsm8k', 'grpo-1', 'local')\n"
    program += "t.log({'loss': 1.0}, 1)\nraise RuntimeError\n"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "ROLECALL_DIR": str(tmp_path)}, check=False
    )
    assert done.returncode == 1
    command = [sys.executable, "-m", "rolecall", "show", str(tmp_path / "gsm8k/grpo-1")]
    assert " failed " in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_unknown_backend_is_named() -> None:
    with pytest.raises(UnknownBackend, match="'wandbb' is not installed"):
        ours.Tracking("gsm8k", "grpo-1", ["console", "wandbb"])


def test_table_without_tracking_is_reported(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours._CURRENT, "tracking", None)
    monkeypatch.setattr(ours._CURRENT, "is_reported", False)
    logger = ours.ValidationGenerationsLogger("gsm8k", "grpo-1")
    logger.log(["console"], SAMPLES, 1)
    assert caplog.records == []
    for step in range(2):
        logger.log(["console", "wandb"], SAMPLES, step)
    assert [record.getMessage()[:25] for record in caplog.records] == ["val/generations: left out"]


def test_rolecall_mode_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    monkeypatch.setenv("ROLECALL_DIR", str(tmp_path))
    fit(ours, "grpo-1", ["mlflow"])
    assert list(tmp_path.glob("gsm8k*")) == []
