"""What the tests of the core share: the `lines` backend, and ways to read and to wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall import MonitorConfig

# `tests/support` holds the metadata of the `lines` backend. pytest's `pythonpath` is for this process, this
# is for those that a test starts.
SUPPORT = str(Path(__file__).parent / "support")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (SUPPORT, os.environ.get("PYTHONPATH"))))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LinesServer]:
    path = tmp_path / "server"
    path.mkdir()
    yield LinesServer(path)
    # Nothing may hang on after the test: what a courier of it says would be taken for the next one's.
    for fault in ("hang", "down", "broken", "forbidden"):
        (path / fault).unlink(missing_ok=True)
    for courier in [thread for thread in threading.enumerate() if thread.name == "rolecall"]:
        courier.join(20.0)
        assert not courier.is_alive(), "a courier outlives its test"


@pytest.fixture
def make_config(tmp_path: Path, server: LinesServer) -> Callable[..., MonitorConfig]:
    """A config of a shared run in the `lines` backend, with couriers on threads; keyword arguments override it."""

    def make(**settings: Any) -> MonitorConfig:
        defaults: dict[str, Any] = {
            "project": "gsm8k",
            "name": "grpo-1",
            "monitor_type": "lines",
            "monitor_args": {"path": server.path},
            "shared_run": True,
            "monitor_dir": tmp_path / "monitor",
            "courier": "thread",
        }
        return MonitorConfig(**{**defaults, **settings})

    return make


@pytest.fixture
def two(
    tmp_path: Path, make_config: Callable[..., MonitorConfig]
) -> Iterator[tuple[Callable[..., MonitorConfig], list[LinesServer]]]:
    """Configs as `make_config` makes them, but with two backends; and their servers."""
    names = ["lines", "lines-again"]
    servers = [LinesServer(tmp_path / name) for name in names]
    for server in servers:
        server.path.mkdir()
    args = {name: {"path": server.path} for name, server in zip(names, servers, strict=True)}
    yield partial(make_config, monitor_type=names, monitor_args=args), servers
    for server in servers:
        for fault in ("down", "hang"):
            (server.path / fault).unlink(missing_ok=True)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], object], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s"
            time.sleep(0.02)

    return wait
