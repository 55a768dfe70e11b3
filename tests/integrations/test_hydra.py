"""`rolecall.integrations.hydra`: jobs that Hydra composes and starts, read back from three trackers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra")
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra_job import losses
from omegaconf import OmegaConf
from page_blocks import ROOT, run_page

from rolecall import ConfigError, MonitorConfig
from rolecall.integrations.hydra import MonitorSettings, register
from rolecall.job.history import read_details

pytestmark = pytest.mark.integrations
SCRIPT = ROOT / "tests" / "support" / "hydra_job.py"
CONF = ROOT / "tests" / "support" / "hydra_conf"


def job(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def composed(*overrides: str) -> Any:
    register()
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("config", overrides=list(overrides))


def test_a_sweep_is_in_the_tracker(tracker: Any) -> None:
    """Two jobs of one process, whose names are interpolated; each has its own config."""
    args = [f"monitor.monitor_args.{key}={json.dumps(value)}" for key, value in tracker.monitor_args.items()]
    args = [f"+{each}" for each in args]
    ran = job("--multirun", "model.rate=0.1,0.2", f"monitor.monitor_type={tracker.monitor_type}", *args)
    assert ran.returncode == 0, ran.stderr
    for rate in (0.1, 0.2):
        held = tracker.read(f"rate-{rate}")
        assert held["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(losses(rate), 1)]
        details = read_details(Path("runs", f"rate-{rate}"))
        assert [each.config for each in details.values() if each.config] == [{"rate": rate}]


def test_the_page_runs(tmp_path: Path) -> None:
    ran = run_page(ROOT / "docs" / "integrations" / "hydra.md", tmp_path)
    assert "parabola / rate-0.3 in " in ran
    assert "10 rows: mlflow 10" in ran


def test_check_of_a_composed_config() -> None:
    """What Hydra prints is what `rolecall check` takes."""
    Path("composed.yaml").write_text(job("--cfg", "job", "--resolve", "monitor.shared_run=relay").stdout)
    check = [sys.executable, "-m", "rolecall", "check", "composed.yaml"]
    ran = subprocess.run(check, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("parabola / rate-0.1 in ")
    assert "runs/rate-0.1" in ran.stdout


def test_composed_is_the_same_as_in_code() -> None:
    """A default that is composed is the default of `MonitorConfig`."""
    loaded = MonitorConfig.load(composed("monitor.monitor_type=[local,console]"))
    made = MonitorConfig(
        project="parabola", name="rate-0.1", monitor_dir="runs/rate-0.1", monitor_type=["local", "console"]
    )
    assert loaded == made
    assert MonitorConfig.load(OmegaConf.create({"monitor": MonitorSettings("p", "n")})) == MonitorConfig(
        project="p", name="n"
    )
    assert [each.name for each in dataclasses.fields(MonitorSettings)] == list(MonitorConfig.model_fields)


def test_bad_input() -> None:
    with pytest.raises(ConfigCompositionException, match="monitor_typ"):
        composed("monitor.monitor_typ=local")
    with pytest.raises(ConfigError, match=r"monitor\.resume"):
        MonitorConfig.load(composed("monitor.resume=sometimes"))
    with pytest.raises(ConfigError, match="Missing mandatory value: project"):
        MonitorConfig.load(OmegaConf.structured(MonitorSettings))
    with pytest.raises(ConfigError, match="group: '': must be a name"):
        register(group="")


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    ran = job()
    assert ran.returncode == 0, ran.stderr
    assert not Path("runs").exists()
