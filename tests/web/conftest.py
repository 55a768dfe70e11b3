"""Runs of the demo, real web servers, and headless Chromium.

Screenshots go to the directory that ROLECALL_SCREENSHOTS names, or else to pytest's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    """Runs the demo in a directory of its own with one backend and its arguments; the `monitor_dir`."""

    def run(monitor_type: str, **args: str) -> Path:
        needs(f"rolecall_{monitor_type}")
        directory = tmp_path_factory.mktemp(monitor_type)
        args = {name: value.format(monitor_dir=directory) for name, value in args.items()}
        rolecall = str(Path(sys.executable).with_name("rolecall"))
        where = [f"--monitor-dir={directory}", f"--monitor-args={json.dumps(args)}", "--shared-run"]
        what = [f"--monitor-type={monitor_type}", f"--steps={STEPS}", "--seed=1"]
        subprocess.run([rolecall, "demo", *what, *where], check=True, cwd=directory, timeout=300)
        return directory

    return run


@pytest.fixture(scope="session")
def steps() -> list[int]:
    """The step axis of each role of the demo."""
    return list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Starts servers of the web; the address of each once it answers."""
    log = tmp_path_factory.mktemp("servers") / "log"
    with ExitStack() as stack:

        def start(*command: str) -> str:
            return stack.enter_context(server([sys.executable, "-m", *command], log))

        yield start


@contextmanager
def server(command: list[str], log: Path) -> Iterator[str]:
    port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
    try:
        await_answer(url := f"http://127.0.0.1:{port}", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"no answer from {process.args!r}:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
