"""A job that logs a value of each kind, in the web UIs of TensorBoard, MLflow and trackio and on our own page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from local_servers import serving_mlflow
from maze_job import STEPS, run_maze_job
from picture_tools import MlflowRun, browsing, open_page, save

from rolecall.cli.page.build import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator

WIDTH = 1120
DESKTOP, PHONE = (WIDTH, 900), (390, 844)
TABS = {"images": ("img", 1, 560), "histograms": ("path", 1, 330), "text": ("p", 2, 380)}
"""Of each of TensorBoard's: what is there once it is drawn, which tag, and how much of its height is worth seeing."""


def take_all() -> None:
    """Log the job to all of them, and take pictures of each."""
    with tempfile.TemporaryDirectory(prefix="rolecall-") as folder, chdir(folder):
        run_maze_job(Path("runs/page"), local={})
        write_page([Path("runs/page")], Path("page.html"))
        with serving_mlflow(Path(folder)) as url:
            run_maze_job(Path("runs/walk-1"), tensorboard={}, mlflow={"uri": url}, trackio={"dir": f"{folder}/trackio"})
            with browsing() as browser:
                take_page_pictures(browser, Path(folder, "page.html"))
                take_mlflow_pictures(browser, MlflowRun(url))
                with serving("tensorboard.main", "--logdir", "runs/walk-1/backends/tensorboard") as address:
                    take_tensorboard_pictures(browser, address)
                with serving("trackio.cli", "show", "--project", "maze", TRACKIO_DIR=f"{folder}/trackio") as address:
                    take_trackio_pictures(browser, address)


@contextmanager
def serving(*command: str, **environment: str) -> Iterator[str]:
    """The address that a server prints."""
    quiet = {"BROWSER": "true", "PYTHONUNBUFFERED": "1"}  # trackio opens a browser: this one does nothing
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **quiet, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield next(found[0] for line in server.stdout if (found := re.search(r"http://\S+:\d+", line)))
        finally:
            server.terminate()


def take_page_pictures(browser: Browser, file: Path) -> None:
    """What a trainer logged, on a desk, and what is below the charts of an explorer, on a phone."""
    with open_page(browser, DESKTOP) as page:
        page.goto(file.as_uri())
        page.get_by_role("link", name="trainer").click()
        page.frame_locator(".card[data-key='report'] iframe").locator("h3").wait_for()
        page.locator(".chart[data-key='entropy'] canvas").wait_for()
        save("media-page-desktop", page.screenshot())
    with open_page(browser, PHONE) as page:
        page.goto(file.as_uri())
        page.locator(".card[data-key='maze']").evaluate("card => card.scrollIntoView()")
        save("media-page-phone", page.screenshot())


def take_mlflow_pictures(browser: Browser, run: MlflowRun) -> None:
    """An image beside a metric, at the last step; and a table with images."""
    with open_page(browser, (WIDTH, 640)) as page:
        run.open(page, "model-metrics")
        page.get_by_placeholder("Search metric charts").fill("explorer/0/(length|maze)")
        slider = page.get_by_role("slider").first
        while slider.get_attribute("aria-valuenow") != str(STEPS):
            # while it still loads the run, MLflow ignores the key, and two at once go beyond the last step
            slider.press("ArrowRight")
            page.wait_for_timeout(1000)
        page.locator("img[src*='get-artifact']").first.evaluate("image => image.decode()")
        page.mouse.click(WIDTH / 2, 64)  # takes the cursor out of the slider
        save("mlflow-images", page.screenshot())
    with open_page(browser, (WIDTH, 640)) as page:
        run.open(page, "artifacts/tables/explorer/0/moves")
        page.get_by_text(f"{STEPS:08}-").first.click()
        page.locator("[role=row] img").first.evaluate("image => image.decode()")
        save("mlflow-table", page.screenshot())


def take_tensorboard_pictures(browser: Browser, url: str) -> None:
    """The cards of a tag in each tab, without the settings on their left: a phone shows it, too."""
    for tab, (drawn, tag, height) in TABS.items():
        with open_page(browser, (WIDTH, 3200)) as page:
            page.goto(f"{url}/?darkMode=false#{tab}")
            cards = page.locator("tf-category-paginated-view").nth(tag)
            cards.locator(drawn).first.wait_for()
            page.wait_for_load_state("networkidle")
            save(f"tensorboard-{tab}", page.screenshot(clip=upper_part(cards, height)))
    with open_page(browser, (1300, 420)) as page:
        page.goto(f"{url}/?darkMode=false#hparams")
        page.locator("tf-hparams-table-view vaadin-grid").get_by_text("trainer", exact=True).first.wait_for()
        save("tensorboard-hparams", page.screenshot())


def take_trackio_pictures(browser: Browser, url: str) -> None:
    """The charts of an explorer, and images of all roles."""
    with open_page(browser, (1240, 620)) as page:
        page.goto(f"{url}/?project=maze")
        page.get_by_text("reward/best", exact=True).first.wait_for()
        page.wait_for_timeout(3000)  # it draws its charts one by one
        save("trackio-metrics", page.screenshot())
        page.get_by_text("Media & Tables").first.click()
        page.locator("img").nth(3).wait_for()
        page.wait_for_load_state("networkidle")
        save("trackio-media", page.screenshot())


def upper_part(element: Locator, most: int) -> FloatRect:
    """Where the upper part of an element is, of at most this height."""
    box = element.bounding_box()
    assert box is not None
    return {**box, "height": min(box["height"], most)}
