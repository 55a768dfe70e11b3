"""What the scripts that make docs/images share: a browser, and files that are small and sharp."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["MlflowRun", "browsing", "open_page", "save", "save_text"]

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 100_000
COLOURS = 256
PATIENCE_MS = 240_000
"""A busy machine takes minutes to draw MLflow's page."""


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("ROLECALL_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: `apt-get install chromium`, or set ROLECALL_CHROMIUM to its path")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"] = "light") -> Iterator[Page]:
    """A window of this width and height, in which a pixel of the page is one and a half of the picture."""
    width, height = size
    viewport = {"width": width, "height": height}
    page = browser.new_page(viewport=viewport, device_scale_factor=1.5, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def save(name: str, screenshot: bytes) -> None:
    """Write docs/images/{name}.png, with a palette: a third of the size, and what is small stays sharp."""
    from PIL import Image

    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    # This method keeps rare colours, such as those of thin lines, and two rounds of k-means make the frequent ones
    # exact. Dithering would blur letters.
    small = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    small.save(packed, "PNG", optimize=True)
    _write(IMAGES / f"{name}.png", packed.getvalue())


def save_text(name: str, svg: str) -> None:
    """Write docs/images/{name}.svg."""
    _write(IMAGES / f"{name}.svg", svg.encode())


def _write(file: Path, data: bytes) -> None:
    if len(data) > MOST_BYTES:
        sys.exit(f"{file.name}: {len(data):,} bytes; whoever reads the docs loads it, so make it smaller")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    print(f"{file.name}: {len(data):,} bytes")


class MlflowRun:
    """The one run of an MLflow server, as its web UI shows it.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        ids = [each["experiment_id"] for each in _ask(url, "experiments/search", max_results=10)["experiments"]]
        (run,) = _ask(url, "runs/search", experiment_ids=ids)["runs"]
        info = run["info"]
        self.address = f"{url}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}"

    def open(self, page: Page, tab: str, scheme: Literal["light", "dark"] = "light") -> None:
        """Go to a tab, as a user of MLflow 3.17 who has chosen a colour scheme and closed assistant and menu."""
        chosen = {
            "_mlflow_dark_mode_toggle_enabled": json.dumps(scheme == "dark"),
            "databricks-dark-mode-pref": scheme,
            "mlflow.assistant.panelOpen_v1": "false",
            "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        }
        for key, value in chosen.items():
            page.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
        page.goto(f"{self.address}/{tab}")
        page.get_by_label("Toggle sidebar").click()
        page.add_style_tag(content="[data-assistant-ui] { display: none }")


def _ask(url: str, question: str, **body: Any) -> Any:
    """One request to MLflow's REST API."""
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{question}", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
