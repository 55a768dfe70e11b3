"""`rolecall.integrations.torchrl`: PPO, alone and in several processes, read back from three trackers."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TorchRL 0.14.1 warns of itself while it is imported
    pytest.importorskip("torchrl.collectors")
import ray_roles
import torch
from page_blocks import ROOT
from torchrl_job import BATCHES, FRAMES, train, two_roles

import rolecall
from rolecall import ConfigError
from rolecall.integrations.torchrl import RolecallLogger
from rolecall.job.history import read_details, read_rows

# TorchRL and Ray warn of what will change in them, and leave sockets open.
pytestmark = [pytest.mark.integrations, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
SCRIPT = ROOT / "tests" / "support" / "torchrl_job.py"


@pytest.fixture(autouse=True)
def _finish() -> Iterator[None]:
    """A test's run ends with the test."""
    yield
    rolecall.init("end", "end", monitor_type="none").finish()


def shown(directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "rolecall", "show", str(directory), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_ppo_is_in_the_tracker(tracker: Any, tmp_path: Path) -> None:
    logger = RolecallLogger(
        "ppo", "cartpole", monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args, monitor_dir="job"
    )
    logger.log_hparams({"rate": 0.01})
    logged = train(logger)
    logger.shutdown()
    held = tracker.read("ppo")
    for key in ("loss_objective", "loss_critic"):
        assert held[key] == [(step, pytest.approx(found[key], rel=1e-6)) for step, found in enumerate(logged)]
    assert len(held["reward"]) == BATCHES
    assert read_details(Path("job"))["main"].config == {"rate": 0.01}


def test_collector_and_trainer_share_a_run(tracker: Any) -> None:
    given = {"monitor_type": tracker.monitor_type, "monitor_args": tracker.monitor_args, "monitor_dir": "job"}
    two_roles({"project": "cartpole", "name": "roles", **given})
    held = tracker.read("roles")
    assert held["collector/0/frames"] == [(step, FRAMES * (step + 1)) for step in range(BATCHES)]
    assert len(held["trainer/loss_critic"]) == BATCHES


@pytest.mark.parametrize("service", ["process", "ray"])
def test_clients_of_a_service(service: str, tmp_path: Path) -> None:
    """TorchRL's own services: the logger is in another process, and clients log to it."""
    folder = str(tmp_path / "job")
    with ray_roles.two_nodes() if service == "ray" else nullcontext():
        served: Any = RolecallLogger  # TorchRL's metaclass takes `service_backend`
        logger = served("served", "cartpole", monitor_dir=folder, service_backend=service)
        for client in (logger.client(), logger.client()):
            client.log_scalar("loss", 0.5, step=1)
            client.log_metrics({"a": torch.tensor(1.0), "b": 2}, step=2)
        logger.shutdown(timeout=120)
    rows = [(row.step, dict(row.metrics)) for row in read_rows(Path(folder))]
    assert sorted(rows, key=str) == [(1, {"loss": 0.5})] * 2 + [(2, {"a": 1.0, "b": 2.0})] * 2
    assert shown(Path(folder))["state"] == "finished"


def test_media_and_strings() -> None:
    logger = RolecallLogger("media", "cartpole", monitor_dir="job")
    video = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    logger.log_video("video", video, step=1, fps=10)
    logger.log_video("batch", torch.stack([video, video]), step=1)
    logger.log_histogram("weights", torch.randn(10, 10), step=2)
    logger.log_histogram("rule", [1.0, 2.0, 3.0], step=2, bins="auto")
    logger.log_str("answer", "yes", step=3)
    logger.shutdown()
    logger.shutdown()  # the second one does nothing
    rows = list(read_rows(Path("job")))
    media = [(each.key, each.kind) for row in rows for each in row.media]
    assert media == [
        ("video", "video"),
        ("batch", "video"),
        ("batch", "video"),
        ("weights", "histogram"),
        ("rule", "histogram"),
    ]
    assert [sum(each.counts) for row in rows for each in row.media if each.counts] == [100, 3]
    assert [dict(row.text) for row in rows if row.text] == [{"answer": "yes"}]


def test_exception_is_a_failed_run(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, str(SCRIPT), "an error", str(tmp_path)], capture_output=True, check=False)
    assert ran.returncode == 1
    assert shown(tmp_path / "job")["state"] == "failed"


def test_a_run_is_continued() -> None:
    for step in range(2):
        logger = RolecallLogger("again", "cartpole", monitor_dir="job", resume="allow")
        logger.log_scalar("loss", 0.5, step=step)
        logger.shutdown()
    assert [row.step for row in read_rows(Path("job"))] == [0, 1]


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    train(RolecallLogger("off", "cartpole", monitor_dir="job"))
    assert not Path("job").exists()


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="monitor: str is not"):
        RolecallLogger("bad", monitor="x")  # type: ignore[arg-type]
    with rolecall.init("p", "n") as monitor, pytest.raises(ConfigError, match="project, tags: not allowed"):
        RolecallLogger("bad", "cartpole", tags=["a"], monitor=monitor)
