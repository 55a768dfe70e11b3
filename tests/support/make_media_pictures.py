"""Makes the pictures of docs/logging.md: a job that logs several kinds of values, in TensorBoard's own web UI.

Run by `nox -s pictures`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from make_pictures import IMAGES, browsing

from rolecall import Histogram, Image, MonitorConfig, Table, Text, launch, open_monitor

if TYPE_CHECKING:
    import numpy as np

STEPS = 12
CELL = 12
"""Pixels of a field of the maze."""
WIDTH, HEIGHT = 900, 900
CARDS_X, CARDS_Y = 276, 122
"""Where the cards begin, as TensorBoard 2.21 draws them."""
TABS = {"images": (400, 525), "histograms": (400, 320), "text": (620, 340)}
"""Width and height of what is worth seeing in each tab."""
SETTLE_MS = 8_000
"""For TensorBoard to load its cards."""


def main() -> None:
    """Log the job once, and take a picture of each tab."""
    chromium = os.environ.get("ROLECALL_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: `apt-get install chromium`, or set ROLECALL_CHROMIUM to its path")
    with tempfile.TemporaryDirectory(prefix="rolecall-") as folder:
        log_each_kind(Path(folder))
        with serving_tensorboard(Path(folder, "backends", "tensorboard")) as url:
            take_pictures(url, chromium)


def log_each_kind(directory: Path) -> None:
    """A job whose agent walks through a maze, one field a step."""
    import numpy as np

    random = np.random.default_rng(1)
    config = MonitorConfig(project="maze", name="media", monitor_type="tensorboard", monitor_dir=directory)
    with launch(config) as job, open_monitor(job.config, role="explorer") as monitor:
        for step in range(1, STEPS + 1):
            maze = Image(draw_maze(step), caption=f"step {step}")
            sample = {"maze": maze, "answer": "right", "reward": step / STEPS}
            monitor.log(
                {"reward": step / STEPS, "maze": maze, "advantages": Histogram(random.normal(step / 4, 1, 500))}
            )
            monitor.log({"samples": Table([sample]), "note": Text(f"{step} fields walked")}, step)


def draw_maze(step: int) -> np.ndarray:
    """Walls in grey, a corridor like stairs, and the agent in red."""
    import numpy as np

    fields = np.full((9, 9, 3), 70, np.uint8)
    corridor = [(at // 2 + 1, (at + 1) // 2 + 1) for at in range(STEPS + 1)]
    for row, column in corridor:
        fields[row, column] = 235
    fields[corridor[step]] = (220, 50, 40)
    return fields.repeat(CELL, axis=0).repeat(CELL, axis=1)


@contextmanager
def serving_tensorboard(directory: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows a directory."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", "0", "--load_fast=false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+:\d+", line)))
        finally:
            server.terminate()


def take_pictures(url: str, chromium: str) -> None:
    """Write a picture of the cards of each tab, without the settings on their left: a phone shows it, too."""
    with browsing(chromium) as browser:
        for tab, (width, height) in TABS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.goto(f"{url}/?darkMode=false#{tab}")
            page.wait_for_timeout(SETTLE_MS)
            clip = {"x": CARDS_X, "y": CARDS_Y, "width": width, "height": height}
            page.screenshot(path=IMAGES / f"tensorboard-{tab}.png", clip=clip)
            page.close()


if __name__ == "__main__":
    main()
