"""A wandb server on loopback for the real SDK, and jobs of real processes that write to it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb_emulator import Policy, WandbServer, environment
from wandb_scene import RUN, Scene

from rolecall import MonitorConfig

SUPPORT = str(Path(__file__).parent / "support")
ROLE = Path(SUPPORT) / "wandb_role.py"

BY_NAME = (
    *(f"test_keeps_{what}" for what in ("text", "tables", "media", "config", "summary", "tags", "status", "no_secret")),
    "test_separate_runs_are_apart",
)

# They wait for the SDK's timeouts. Other tests fill the time if these come first, the longest at the front.
LONG_WAITS = ["test_separate.py", "test_ended_runs.py", "test_contract.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [*LONG_WAITS, item.path.name].index(item.path.name))
    # The SDK and its own dependencies warn about each other; their warnings are theirs.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))
        # The SDK takes seconds to upload and to end: what the other tests here look at too is asked for by name.
        is_named = item.name.startswith(BY_NAME) or item.name.endswith(("[many]", "[separate]"))
        if item.path.name == "test_contract.py" and is_named:
            item.add_marker(pytest.mark.servers)


@pytest.fixture(autouse=True, scope="session")
def sockets_left_open() -> Iterator[None]:
    """Collect the sockets that the SDK leaves to the garbage collector (0.19.10) before pytest objects to them."""
    yield
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody's login, settings or working directory; no test sees what another set."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ.update(HOME=str(elsewhere), WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def policy() -> Policy:
    """What the server does to a config; a test that tries both parametrizes it."""
    return Policy.REPLACE


@pytest.fixture
def server(policy: Policy, tmp_path: Path, clean_environment: None) -> Iterator[WandbServer]:
    with WandbServer(policy) as running:
        os.environ.update(environment(running, tmp_path))
        yield running


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., MonitorConfig]:
    """A config of a shared wandb run; keyword arguments differ from it."""

    def make(**settings: Any) -> MonitorConfig:
        defaults: dict[str, Any] = {
            "project": "gsm8k",
            "name": "grpo-1",
            "monitor_type": "wandb",
            "shared_run": True,
            "monitor_dir": tmp_path / "monitor",
        }
        return MonitorConfig(**{**defaults, **settings})

    return make


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_role() -> Iterator[Start]:
    """Start a role in a process of its own, which logs as the options of `support/wandb_role.py` say."""
    started: list[subprocess.Popen[str]] = []

    def start(config: MonitorConfig, writer: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(ROLE), writer, *options],
            env={**os.environ, **config.to_env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], object], timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            time.sleep(0.05)

    return wait


@pytest.fixture
def scene(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start, wait_until: Callable[..., None]
) -> Scene:
    """A job, not launched yet, to which something shall happen."""
    return Scene(server, make_config(run_id=RUN), start_role, wait_until)
