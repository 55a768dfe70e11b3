"""Runs of the demo, real web servers, and headless Chromium.

Screenshots go to the directory that ROLECALL_SCREENSHOTS names, or else to pytest's own.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_servers import serving

import rolecall

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STEPS = 12
FLAGS = [
    "--no-sandbox",  # Chromium refuses to be root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def lacking(what: str) -> None:
    """Skip, unless `nox -s web` asked for these tests: then it is a failure."""
    if "ROLECALL_CHROMIUM" in os.environ:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            lacking(f"{module} is not installed; `nox -s web` has all that these tests need")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = os.environ.get("ROLECALL_CHROMIUM") or shutil.which("chromium")
    if chromium is None or not Path(chromium).exists():
        lacking("no Chromium: `apt-get install chromium`")
    needs("playwright")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("ROLECALL_SCREENSHOTS")
    directory = Path(named).absolute() if named else tmp_path_factory.mktemp("screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def picture_name(test: pytest.Item) -> str:
    words = re.findall(r"[A-Za-z0-9]+", f"{test.path.stem}-{test.name}".replace("test_", ""))
    return "-".join(words) + ".png"


@pytest.fixture
def page(browser: Browser, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page; what it shows at the end of the test, failed or not, is kept as a picture."""
    page = browser.new_page(viewport={"width": 1500, "height": 1300})
    page.set_default_timeout(120_000)
    yield page
    page.screenshot(path=screenshots / picture_name(request.node))
    page.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs the demo in a directory of its own with one backend, its arguments and other options; the `monitor_dir`."""

    def run(monitor_type: str, *options: str, **args: str) -> Path:
        needs(f"rolecall_{monitor_type}")
        directory = tmp_path_factory.mktemp(monitor_type)
        args = {name: value.format(monitor_dir=directory) for name, value in args.items()}
        rolecall = str(Path(sys.executable).with_name("rolecall"))
        where = [f"--monitor-dir={directory}", f"--monitor-args={json.dumps(args)}", *options]
        what = [f"--monitor-type={monitor_type}", f"--steps={STEPS}", "--seed=1"]
        subprocess.run([rolecall, "demo", *what, *where], check=True, cwd=directory, timeout=300)
        return directory

    return run


def media_of(step: int) -> dict[str, Any]:
    """An image in each format and as a list, a video, a figure, a histogram, a sound and a page."""
    import numpy as np

    random = np.random.default_rng(step)
    pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(3, 2))  # not there where types are checked
    figure.subplots().plot(range(10))
    return {
        "pixels": rolecall.Image(pixels),
        "list": [rolecall.Image(pixels), rolecall.Image(255 - pixels)],
        **{name: rolecall.Image(encoded(pixels, name)) for name in ("jpeg", "gif", "webp")},
        "clip": rolecall.Video(encoded(pixels, "gif")),
        "figure": figure,
        "spread": rolecall.Histogram(random.normal(size=1000), bins=30),
        "tone": rolecall.Audio(np.sin(np.arange(8000) / 5), rate=8000),
        "page": rolecall.Html("<b>all is well</b>"),
    }


def encoded(pixels: Any, name: str) -> bytes:
    """An image in a format."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name)
    return file.getvalue()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs a job of one role that logs media of each kind at steps 1 to 3 to one backend; the `monitor_dir`."""

    def run(monitor_type: str) -> Path:
        needs(f"rolecall_{monitor_type}", "matplotlib")
        directory = tmp_path_factory.mktemp(f"{monitor_type}-media")
        config = rolecall.MonitorConfig(
            project="docs", name="media", monitor_type=monitor_type, monitor_dir=directory, courier="thread"
        )
        with rolecall.launch(config) as job, rolecall.open_monitor(job.config, "trainer") as monitor:
            for step in (1, 2, 3):
                monitor.log(media_of(step), step)
        return directory

    return run


@pytest.fixture(scope="session")
def steps() -> list[int]:
    """The step axis of each role of the demo."""
    return list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts servers of the web; the address of each once it answers."""
    with ExitStack() as stack:
        yield lambda *command: stack.enter_context(serving(*command, folder=tmp_path_factory.mktemp("server")))
