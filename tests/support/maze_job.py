"""A job that logs a value of each kind to several trackers: for pictures of what a user sees there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolecall import Audio, Histogram, Html, Image, Monitor, MonitorConfig, Table, Text, launch, open_monitor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["run_maze_job"]

STEPS = 48
EACH = 4
"""Images and other media are logged at every fourth step."""
CELL = 12
"""Pixels of a field of the maze."""
FIELDS = STEPS // EACH
"""How long the way through the maze is."""
REPORT = """<body style="font-family: sans-serif"><h3>{share:.0%} of the way</h3>
<div style="background: #ddd"><div style="background: #b33; width: {share:.0%}; height: 1em"></div></div>"""


def run_maze_job(directory: Path, **backends: dict[str, Any]) -> None:
    """Two agents walk through a maze, one field at each fourth step, and a trainer learns from them.

    Args:
        directory: the job's `monitor_dir`.
        backends: the arguments of each backend that gets the job.
    """
    config = MonitorConfig(
        project="maze",
        name="walk-1",
        monitor_type=list(backends),
        monitor_args=backends,
        shared_run=True,
        monitor_dir=directory,
    )
    with (
        launch(config, {"algorithm": "ppo"}) as job,
        open_monitor(job.config, "explorer", 0) as first,
        open_monitor(job.config, "explorer", 1) as second,
        open_monitor(job.config, "trainer", run_config={"lr": 3e-4}) as trainer,
    ):
        explore(first, 0)
        explore(second, 1)
        train(trainer)


def explore(monitor: Monitor, rank: int) -> None:
    """Rewards of each step; and pictures, a table with pictures, a sound and a sentence of the way so far."""
    import numpy as np

    random = np.random.default_rng(rank)
    for step in range(1, STEPS + 1):
        reward = step / (STEPS + 12 * rank)
        noise = random.normal(0, 0.04)
        monitor.log({"reward/mean": reward + noise, "reward/best": reward + 0.1, "length": 90 - step + 200 * noise})
        if step % EACH == 0:
            at = step // EACH
            maze = Image(draw_maze(at - rank), caption=f"step {step}")
            moves = [("right", 0.9), ("down", 0.1)] if at % 2 else [("down", 0.9), ("right", 0.1)]
            rows = [{"maze": maze, "move": move, "p": p} for move, p in moves]
            monitor.log({"maze": maze, "moves": Table(rows), "note": Text(f"{at} fields walked")}, step)
            monitor.log({"tone": Audio(np.sin(np.arange(8000) * (0.1 + at / 40)), rate=8000)}, step)


def train(monitor: Monitor) -> None:
    """Losses over the trainer's own steps, evaluations on an axis of their own, and how the values are spread."""
    import numpy as np

    random = np.random.default_rng(7)
    for step in range(1, STEPS + 1):
        monitor.log({"loss": 2 * 0.94**step + random.normal(0, 0.03), "entropy": 1.4 - step / 50}, step)
        if step % EACH == 0:
            share = step / STEPS
            advantages = random.normal(4 * share, 1.5 - share, 500)
            monitor.log({"advantages": Histogram(advantages, bins=40), "values": draw_values(step)}, step)
            monitor.log({"report": Html(REPORT.format(share=share))}, step)
            monitor.log({"accuracy": share**0.5}, step=step // EACH, axis="eval")
    monitor.summary["best"] = 0.98


def draw_maze(at: int) -> np.ndarray:
    """Walls in grey, a corridor like stairs, and the agent in red."""
    import numpy as np

    fields = np.full((9, 9, 3), 70, np.uint8)
    corridor = [(each // 2 + 1, (each + 1) // 2 + 1) for each in range(FIELDS + 1)]
    for row, column in corridor:
        fields[row, column] = 235
    fields[corridor[at]] = (220, 50, 40)
    return fields.repeat(CELL, axis=0).repeat(CELL, axis=1)


def draw_values(step: int) -> Any:
    """The value of each field, as the trainer sees it: a figure of Matplotlib."""
    import numpy as np

    rows, columns = np.indices((9, 9))
    module = importlib.import_module("matplotlib.figure")  # not there where types are checked
    figure = module.Figure(figsize=(3.2, 2.6), layout="tight")
    axes = figure.subplots()
    values = np.exp(-((rows - 7) ** 2 + (columns - 7) ** 2) / (8 + step))
    figure.colorbar(axes.imshow(values, cmap="viridis", vmin=0, vmax=1), ax=axes)
    axes.set_title(f"values at step {step}", fontsize=10)
    return figure
