"""`RolecallTracker` in trainings with Accelerate, beside Accelerate's own trackers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
import accelerate_job as job
from page_blocks import ROOT, blocks

from rolecall import ConfigError, UnknownBackend, open_monitor
from rolecall.integrations.accelerate import RolecallTracker
from rolecall.job.history import read_configs, read_history

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),  # what a framework warns of is its own affair
]
STEPS = list(range(1, job.STEPS + 1))


def program(*command: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script as `accelerate launch` does, or in as many processes as torchrun starts."""
    # `accelerate launch --cpu` starts several processes by mpirun alone (1.15.0, `commands/launch.py`)
    several = ("torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    launch = several if processes else ("accelerate.commands.launch", "--cpu")
    return subprocess.run([sys.executable, "-m", *launch, *command], check=False, stderr=subprocess.PIPE, text=True)


def theirs(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Accelerate's own tracker, for the same place."""
    from accelerate import tracking

    match tracker.monitor_type:
        case "mlflow":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.monitor_args["uri"])
            return tracking.MLflowTracker("lines", run_name="theirs")
        case "tensorboard":
            return tracking.TensorBoardTracker("theirs", tracker.monitor_args["log_dir"])
        case _:
            return tracking.WandBTracker("lines", name="theirs")


def test_same_points_as_its_own_tracker(tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = RolecallTracker(
        "lines", "ours", monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args, tags=["a"]
    )
    job.train(ours).end_training()
    job.train(theirs(tracker, monkeypatch)).end_training()
    found, expected = tracker.read("ours"), tracker.read("theirs")
    assert set(expected) == {"loss", "processes"}
    approximately = {key: [(step, pytest.approx(value)) for step, value in points] for key, points in expected.items()}
    assert found == approximately
    assert [step for step, _ in found["loss"]] == STEPS


def test_config_images_and_tables(tmp_path: Path) -> None:
    accelerator = job.train(RolecallTracker(monitor_dir=tmp_path / "run"))
    job.log_more(accelerator)
    accelerator.end_training()
    history = read_history(tmp_path / "run")
    (main,) = history.writers
    assert str(history.state) == "finished"
    assert read_configs(tmp_path / "run")[""] == {"lr": 0.1, "model": "line"}
    assert main.last_tables["guesses"].last.rows == ((0, 1.0), (1, 3.0))
    assert [media.kind for media in main.last_media["squares"].last] == ["image"]


def test_next_accelerator_begins_another_run(tmp_path: Path) -> None:
    tracker = RolecallTracker(monitor_dir=tmp_path / "run")
    job.train(tracker).end_training()
    first = read_history(tmp_path / "run").record.run_id
    job.train(tracker).end_training()
    second = read_history(tmp_path / "run")
    assert second.record.run_id != first
    assert second.writers[0].metrics["loss"].steps == STEPS


def test_tracker_by_name() -> None:
    from accelerate import tracking

    if not hasattr(tracking, "register_tracker_class"):
        pytest.skip("this release of Accelerate takes trackers alone")
    job.train("rolecall").end_training()
    (directory,) = Path("rolecall", "lines").iterdir()
    assert read_history(directory).writers[0].metrics["loss"].steps == STEPS


def test_role_of_a_job(tmp_path: Path) -> None:
    """The tracker logs to a role that is there, and leaves it open."""
    config = {"project": "p", "name": "n", "monitor_dir": tmp_path / "run"}
    with open_monitor(config, role="trainer", primary=True) as monitor:
        job.train(RolecallTracker(monitor=monitor)).end_training()
        assert monitor.is_open
    (trainer,) = read_history(tmp_path / "run").writers
    assert (trainer.writer, trainer.metrics["loss"].steps) == ("trainer", STEPS)


def test_main_process_logs_for_all(tmp_path: Path) -> None:
    ran = program(job.__file__, str(tmp_path / "run"), processes=2)
    assert ran.returncode == 0, ran.stderr
    history = read_history(tmp_path / "run")
    (main,) = history.writers
    assert (str(history.state), main.sessions, main.metrics["loss"].steps) == ("finished", 1, STEPS)
    assert set(main.metrics["processes"].values) == {2}


def test_exception_fails_run(tmp_path: Path) -> None:
    ran = program(job.__file__, str(tmp_path / "run"), "--fail")
    assert "the fourth step fails" in ran.stderr
    history = read_history(tmp_path / "run")
    assert (str(history.state), history.writers[0].metrics["loss"].steps) == ("failed", STEPS[:3])


def test_mode_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    job.train(RolecallTracker(monitor_dir=tmp_path / "run")).end_training()
    assert not (tmp_path / "run").exists()


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"RolecallTracker: monitor: str is not a rolecall.Monitor; give what"):
        RolecallTracker(monitor="lines")  # type: ignore[arg-type]
    with (
        open_monitor({"project": "p", "name": "n", "monitor_dir": tmp_path}, "trainer", primary=True) as monitor,
        pytest.raises(ConfigError, match=r"RolecallTracker: project: not allowed together with monitor"),
    ):
        RolecallTracker("lines", monitor=monitor)
    with pytest.raises(UnknownBackend, match="wandbb"):
        job.train(RolecallTracker(monitor_type="wandbb"))


def test_the_example_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the change that the page shows, the script logs through rolecall, here to its files alone."""
    monkeypatch.chdir(tmp_path)
    found = [each for each in blocks(ROOT / "docs/integrations/accelerate.md") if each.language != "text"]
    script = next(each for each in found if each.title)
    Path(script.title).write_text(script.text)
    change = next(each for each in found if each.text.startswith("sed"))
    subprocess.run(["bash", "-c", change.text], check=True)
    changed = Path("line.py").read_text().replace('monitor_type="wandb"', 'monitor_dir="run"')
    Path("line.py").write_text(changed)
    ran = program("line.py")
    assert ran.returncode == 0, ran.stderr
    assert read_history(tmp_path / "run").writers[0].metrics["loss"].steps == list(range(10))
