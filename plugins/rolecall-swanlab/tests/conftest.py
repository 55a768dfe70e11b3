"""Makes tickets and rows, and reads what runs hold without the plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rolecall import Row, RunTicket, Unavailable, testing
from rolecall_swanlab import plugin
from rolecall_swanlab.args import SwanlabArgs

sys.path.insert(0, str(Path(__file__).parent / "support"))

from swanlab_files import Held, read_run
from swanlab_server import API_KEY, SwanlabServer, swanlab_server


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's settings and API key; what a test before this one logged in is forgotten."""
    for name in ("SWANLAB_MODE", "SWANLAB_API_KEY", "SWANLAB_API_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWANLAB_ROOT", str(tmp_path / "nobody"))
    if (client := sys.modules.get("swanlab.sdk.internal.core_python.client")) and client.exists():
        client.reset()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The backend's own folder, which does not exist yet."""
    return tmp_path / "backends" / "swanlab"


@pytest.fixture
def ticket(folder: Path) -> Callable[..., RunTicket]:
    run = {"project": "gsm8k", "name": "grpo-1", "group": "grpo", "job": "", "run_id": "k3x9"}
    return partial(testing.ticket, **run, writer="explorer/0", config={"lr": 0.1}, directory=folder)


@pytest.fixture
def row() -> Callable[..., Row]:
    def make(seq: int, metrics: Mapping[str, float] | None = None, **fields: Any) -> Row:
        values = {"reward": seq / 2} if metrics is None else metrics
        return testing.row(**{"seq": seq, "writer": "explorer/0", "metrics": values, **fields})

    return make


@pytest.fixture
def open_run(ticket: Callable[..., RunTicket]) -> Iterator[Callable[..., Any]]:
    """Opens offline runs."""
    yield from _opening(ticket, SwanlabArgs(mode="offline"))


@pytest.fixture
def read(folder: Path) -> Callable[..., Held]:
    return lambda run_id="k3x9", directory=folder: read_run(directory, run_id)


@pytest.fixture
def server() -> Iterator[SwanlabServer]:
    with swanlab_server() as started:
        yield started


@pytest.fixture
def online(server: SwanlabServer, ticket: Callable[..., RunTicket]) -> Iterator[Callable[..., Any]]:
    """Opens runs on the emulator."""
    yield from _opening(ticket, SwanlabArgs(api_host=server.url, api_key=API_KEY))


def _opening(ticket: Callable[..., RunTicket], args: SwanlabArgs) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:

        def make(**changes: Any) -> Any:
            run = plugin.open_run(ticket(**changes), args)
            stack.callback(_close, run)
            return run

        yield make


def _close(run: Any) -> None:
    with suppress(Unavailable):  # the test has done it
        run.close("finished")
