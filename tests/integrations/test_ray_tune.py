"""`rolecall.integrations.ray`: a search of four trials and a training of two workers, read back from three trackers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.tune")
import ray_roles
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray_tune_job import STEPS, descend, search, worker

from rolecall import ConfigError, launch
from rolecall.integrations.ray import RolecallLoggerCallback, open_train_monitor
from rolecall.job.history import read_details, read_history

# Ray warns of what will change in it, and leaves files and sockets open.
pytestmark = [pytest.mark.integrations, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
RATES = [0.1, 0.2, -0.3, 0.4]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_roles.two_nodes():
        yield


def settings(folder: Path, **more: Any) -> Mapping[str, Any]:
    return {"project": "rays", "name": "search", "monitor_dir": folder / "job", **more}


def shown(directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rolecall", "show", str(directory), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_each_trial_is_a_run(tracker: Any, tmp_path: Path) -> None:
    """Of four trials one fails; each has its own config and status."""
    given = settings(tmp_path, monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args)
    results = search(tmp_path, [RolecallLoggerCallback(given)], RATES)
    assert len(results.errors) == 1
    details = read_details(tmp_path / "job")
    rates = {writer: found.config["rate"] for writer, found in details.items() if found.config}
    assert sorted(rates.values()) == sorted(RATES)
    states = {each.writer: str(each.state) for each in read_history(tmp_path / "job").writers}
    assert states == {writer: "failed" if rate < 0 else "finished" for writer, rate in rates.items()}
    for writer, rate in rates.items():
        losses = descend(rate, 2 if rate < 0 else STEPS)
        held = tracker.read(writer)
        assert held["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(losses, 1)]
        assert [value for _, value in held["nested/step"]] == list(range(len(losses)))
        assert "pid" not in held


def test_one_run_and_a_second_search(tracker: Any, tmp_path: Path) -> None:
    """With `shared_run`, trials are parts of one run; a callback serves a second search."""
    given = settings(tmp_path, monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args)
    callback = RolecallLoggerCallback({**given, "shared_run": "relay", "resume": "allow"})
    for name, rate in (("one", 0.1), ("two", -0.3)):
        search(tmp_path / name, [callback], [rate])
    details = read_details(tmp_path / "job")
    found = {writer: each for writer, each in details.items() if each.config}
    assert {each.config["rate"]: each.summary["trial_status"] for each in found.values()} == {
        0.1: "finished",
        -0.3: "failed",
    }
    held = tracker.read("search")
    for writer, each in found.items():
        rate = each.config["rate"]
        losses = descend(rate, 2 if rate < 0 else STEPS)
        assert [value for _, value in held[f"{writer}/loss"]] == [pytest.approx(loss) for loss in losses]


def test_two_workers_of_train(tracker: Any, tmp_path: Path) -> None:
    """Each worker is a rank; their rows go over Ray to one run."""
    given = settings(tmp_path, monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args)
    with launch({**given, "transport": "ray", "shared_run": "relay", "open_timeout": 120.0}) as job:
        TorchTrainer(
            worker,
            train_loop_config={"monitor": job.config, "rate": 0.1},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name="train", storage_path=str(tmp_path)),
        ).fit()
    expected = [(step, pytest.approx(loss)) for step, loss in enumerate(descend(0.1, STEPS), 1)]
    held = tracker.read("search")
    assert [held[f"trainer/{rank}/loss"] for rank in range(2)] == [expected, expected]
    assert shown(tmp_path / "job")["state"] == "finished"


def test_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    search(tmp_path, [RolecallLoggerCallback(settings(tmp_path))], [0.1])
    assert not (tmp_path / "job").exists()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="monitor_typ"):
        RolecallLoggerCallback(settings(tmp_path, monitor_typ="local"))
    with pytest.raises(ConfigError, match="no worker of Ray Train"):
        open_train_monitor(settings(tmp_path))


def test_callbacks_can_be_pickled(tmp_path: Path) -> None:
    callback = RolecallLoggerCallback(settings(tmp_path))
    callback.setup()
    copy = pickle.loads(pickle.dumps(callback))
    assert copy._config == callback._config
    assert copy._job is None
    callback.on_experiment_end([])


def test_ray_without_tune() -> None:
    code = "import sys; sys.modules['ray.tune'] = None; import rolecall.integrations.ray"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'ray[train,tune]'" in ran.stderr
