"""Whether a job goes over Ray: what is decided without it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rolecall import ConfigError, Job, MonitorConfig, launch, open_monitor, resolve
from rolecall.delivery.relay.transport import is_away

MakeConfig = Callable[..., MonitorConfig]


@pytest.fixture
def launched(job: Job) -> Callable[..., MonitorConfig]:
    """The config of a role whose launcher has a hub."""

    def make(**settings: Any) -> MonitorConfig:
        hand_over = job.config.hand_over
        assert hand_over is not None
        return job.config.model_copy(update=settings).handed(replace(hand_over, hub="node"))

    return make


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has imported Ray, and initialised it."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))


def test_a_shared_run_over_ray_is_a_relay(make_config: MakeConfig) -> None:
    plan = resolve(make_config(transport="ray", shared_run=True))
    (each,) = plan.backends
    assert each.relayed
    assert not each.shared
    (downgrade,) = plan.downgrades
    assert downgrade.setting == "shared_run"
    assert "shared_run: relay" in downgrade.reason


@pytest.mark.parametrize(("shared_run", "relayed"), [("relay", True), (False, False)])
def test_other_runs_are_as_asked_for(make_config: MakeConfig, shared_run: Any, relayed: bool) -> None:
    plan = resolve(make_config(transport="ray", shared_run=shared_run))
    assert [each.relayed for each in plan.backends] == [relayed]
    assert not plan.downgrades


def test_auto_without_ray_is_files(make_config: MakeConfig) -> None:
    assert resolve(make_config(transport="auto", shared_run=True)).shared("lines")


@pytest.mark.usefixtures("ray_here")
def test_auto_beside_ray_is_ray(make_config: MakeConfig) -> None:
    assert not resolve(make_config(transport="auto", shared_run=True)).shared("lines")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed; tests/ray has what happens then")
def test_ray_that_is_not_installed(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'ray"):
        launch(make_config(transport="ray"))


def test_a_role_needs_its_launchers_config(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"pass it job\.config"):
        open_monitor(make_config(transport="ray"), "explorer")


def test_roles_cannot_find_one_another_over_ray(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"use rolecall\.launch"):
        open_monitor(make_config(transport="ray"), "explorer", primary="auto")


def test_a_role_sees_whether_it_is_away(launched: MakeConfig, tmp_path: Path) -> None:
    assert is_away(launched(transport="ray"))
    assert not is_away(launched(transport="auto"))
    assert is_away(launched(transport="auto", monitor_dir=tmp_path / "elsewhere"))


def test_where_the_hub_is_goes_to_roles(launched: MakeConfig) -> None:
    config = MonitorConfig.from_env(launched(transport="auto").to_env())
    assert config.transport == "auto"
    assert config.spec().hub == "node"


def test_ray_of_a_role_alone_changes_nothing(job: Job, ray_here: None) -> None:
    config = job.config.model_copy(update={"transport": "auto"})
    hand_over = job.config.hand_over
    assert hand_over is not None
    with open_monitor(config.handed(hand_over), "explorer") as monitor:
        monitor.log({"x": 1.0})
    assert monitor.lost == 0
