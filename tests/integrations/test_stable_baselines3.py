"""`rolecall.integrations.stable_baselines3` beside SB3's own CSV format: CartPole, read back from three trackers."""

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

pytest.importorskip("stable_baselines3")
import numpy as np
import torch
from page_blocks import ROOT, run_page
from stable_baselines3 import PPO
from stable_baselines3.common import logger as sb3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

import rolecall
from rolecall import ConfigError
from rolecall.integrations.stable_baselines3 import RolecallCallback, RolecallWriter
from rolecall.job.history import read_details, read_rows

# gymnasium and torch warn of what will change in them
pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
Points = dict[str, list[tuple[float, float]]]


def ppo(**settings: Any) -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", n_steps=256, device="cpu", seed=0, **settings)


def recorded(directory: Path) -> Points:
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_rows(directory):
        for key, value in row.metrics.items():
            found[key].append((row.step, value))
    return dict(found)


def state(directory: Path) -> str:
    command = [sys.executable, "-m", "rolecall", "show", str(directory), "--json"]
    return str(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["state"])


def test_cartpole_is_in_the_tracker(tracker: Any, tmp_path: Path) -> None:
    run = rolecall.init(
        "cartpole", name="ppo", monitor_type=tracker.monitor_type, monitor_args=tracker.monitor_args, monitor_dir="job"
    )
    model = ppo(gamma=0.98)
    model.set_logger(sb3.configure(str(tmp_path), ["csv"]))
    evaluation = EvalCallback(make_vec_env("CartPole-v1"), eval_freq=1000, n_eval_episodes=2, verbose=0)
    model.learn(3000, callback=CallbackList([RolecallCallback(run), evaluation]))
    model.logger.close()  # SB3's own file
    run.finish()
    held = tracker.read("ppo")
    lines = list(csv.DictReader((tmp_path / "progress.csv").read_text().splitlines()))
    reward = [(line["time/total_timesteps"], line["rollout/ep_rew_mean"]) for line in lines]
    expected = [(int(step), float(value)) for step, value in reward if value]
    assert len(expected) == 3072 // 256
    assert held["rollout/ep_rew_mean"] == [(step, pytest.approx(value)) for step, value in expected]
    assert held["rollout/ep_rew_mean"][-1][1] > held["rollout/ep_rew_mean"][0][1]  # it learns
    assert [step for step, _ in held["eval/mean_reward"]] == [1000, 2000, 3000]
    config = read_details(Path("job"))["main"].config
    assert {name: config[name] for name in ("algorithm", "policy", "gamma", "n_steps")} == {
        "algorithm": "PPO",
        "policy": "ActorCriticPolicy",
        "gamma": 0.98,
        "n_steps": 256,
    }


@pytest.mark.parametrize("own", [True, False])
def test_second_learn_goes_on(own: bool, tmp_path: Path) -> None:
    """With a logger of the user's own, which keeps the writer, and with SB3's own, which is a new one each time."""
    with rolecall.init("cartpole", monitor_dir="job") as run:
        model, callback = ppo(), RolecallCallback(run, log_model=True)
        if own:
            model.set_logger(sb3.Logger(None, []))
        model.learn(512, callback=callback)
        model.learn(512, callback=callback, reset_num_timesteps=False)
    assert run.lost == run.dropped == 0
    rewards = recorded(Path("job"))["rollout/ep_rew_mean"]
    assert [step for step, _ in rewards] == [256, 512, 768, 1024]
    files = [media for row in read_rows(Path("job")) for media in row.media]
    assert [media.key for media in files] == ["model"] * 2
    assert PPO.load(files[-1].path).num_timesteps == 1024


class _FailingCallback(BaseCallback):  # type: ignore[misc]  # SB3 is not installed where types are checked
    def _on_step(self) -> bool:
        raise ZeroDivisionError


def test_training_that_raises_is_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), rolecall.init("cartpole", monitor_dir="job") as run:
        ppo().learn(256, callback=[RolecallCallback(run), _FailingCallback()])
    assert state(Path("job")) == "failed"


class _MediaCallback(BaseCallback):  # type: ignore[misc]
    """Records what SB3's documentation records, at the first step."""

    def _on_step(self) -> bool:
        if self.n_calls > 1:
            return True
        everything = ("stdout", "log", "json", "csv")
        frames = torch.randint(0, 255, (2, 3, 3, 16, 16), dtype=torch.uint8)
        self.logger.record("video", sb3.Video(frames, fps=10), exclude=everything)
        self.logger.record("frame", sb3.Image(np.zeros((16, 8, 3), np.uint8), "HWC"), exclude=everything)
        self.logger.record("frames", sb3.Image(torch.zeros(2, 3, 16, 8), "NCHW"), exclude=everything)
        self.logger.record("mask", sb3.Image(np.zeros((16, 8)), "HW"), exclude=everything)
        self.logger.record("weights", torch.arange(10.0), exclude=everything)
        self.logger.record("note", "begin")
        self.logger.record("hparams", sb3.HParam({"clip": 0.2}, {"rollout/ep_rew_mean": 0.0}), exclude=everything)
        self.logger.record("excluded", 1.0, exclude="rolecall")
        self.logger.dump(self.num_timesteps)
        return True


def test_media_and_hyperparameters(tmp_path: Path) -> None:
    with rolecall.init("cartpole", monitor_dir="job") as run:
        ppo().learn(256, callback=[RolecallCallback(run), _MediaCallback()])
    assert run.dropped == 0
    rows = [row for row in read_rows(Path("job")) if row.step == 1]
    media = [(media.key, media.kind) for row in rows for media in row.media]
    assert sorted(media) == [
        ("frame", "image"),
        *[("frames", "image")] * 2,
        ("mask", "image"),
        *[("video", "video")] * 2,
        ("weights", "histogram"),
    ]
    assert [dict(row.text) for row in rows if row.text] == [{"note": "begin"}]
    assert "excluded" not in recorded(Path("job"))
    details = read_details(Path("job"))["main"]
    assert details.config["clip"] == 0.2
    assert "rollout/ep_rew_mean" not in details.summary  # its value is a placeholder


def test_figure_is_recorded_and_closed(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.figure()
    with rolecall.init("cartpole", monitor_dir="job") as run:
        RolecallWriter(run).write({"trajectory": sb3.Figure(figure, close=True)}, {}, 3)
    assert not plt.fignum_exists(figure.number)
    assert [media.kind for row in read_rows(Path("job")) for media in row.media] == ["figure"]


def test_default_run_and_disabled(tmp_path: Path) -> None:
    os.environ["ROLECALL_MODE"] = "disabled"
    callback = RolecallCallback(log_model=True)
    ppo().learn(256, callback=callback)
    assert callback.monitor is not None
    assert not callback.monitor.is_open
    assert list(Path().iterdir()) == []


def test_a_run_of_its_own_has_its_settings(tmp_path: Path) -> None:
    """A second training goes on in it, and one after its end begins another."""
    callback = RolecallCallback(project="cartpole", name="ppo", monitor_dir="job", resume="allow")
    model = ppo()
    for reset in (True, False):
        model.learn(256, callback=callback, reset_num_timesteps=reset)
    first = callback.monitor
    assert first is not None
    first.finish()
    model.learn(256, callback=callback, reset_num_timesteps=False)
    second = callback.monitor
    assert second is not None
    assert second is not first
    second.finish()
    assert [step for step, _ in recorded(Path("job"))["rollout/ep_rew_mean"]] == [256, 512, 768]


def test_bad_input_says_what_is_valid() -> None:
    wrong: Any = "job"
    with pytest.raises(ConfigError, match="RolecallCallback: monitor: str is not"):
        RolecallCallback(wrong)


def test_pages_scripts_run(tmp_path: Path) -> None:
    printed = run_page(ROOT / "docs" / "integrations" / "stable-baselines3.md", tmp_path)
    assert "rolecall: 8 rows: tensorboard 8" in printed
    assert "rolecall: 8 rows: local 8" in printed
