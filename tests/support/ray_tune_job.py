"""Trials of Ray Tune, and workers of Ray Train, that train a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import train, tune

from rolecall import MonitorConfig
from rolecall.integrations.ray import open_train_monitor

STEPS = 5


def descend(rate: float, steps: int) -> list[float]:
    """The losses of gradient descent on a parabola."""
    x, losses = 1.0, []
    for _ in range(steps):
        x -= rate * 2 * x
        losses.append(x * x)
    return losses


def trial(config: dict[str, Any]) -> None:
    """A trial; a negative rate fails after two reports."""
    for step, loss in enumerate(descend(config["rate"], STEPS)):
        if config["rate"] < 0 and step == 2:
            raise ValueError("a negative rate")
        tune.report({"loss": loss, "nested": {"step": step}})


def search(folder: Path, callbacks: list[Any], rates: list[float]) -> tune.ResultGrid:
    """Run a trial for each rate, two at once."""
    return tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"rate": tune.grid_search(rates)},
        run_config=tune.RunConfig(name="search", storage_path=str(folder), callbacks=callbacks, verbose=0),
    ).fit()


def worker(config: dict[str, Any]) -> None:
    """What each worker of Train does."""
    made: MonitorConfig = config["monitor"]
    with open_train_monitor(made, run_config={"rate": config["rate"]}) as monitor:
        for step, loss in enumerate(descend(config["rate"], STEPS), 1):
            monitor.log({"loss": loss}, step=step)
            train.report({"loss": loss})
