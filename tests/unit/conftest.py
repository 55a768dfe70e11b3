"""Distributions that are installed for one test, and a job whose only backend is `local`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from forks import Forks
from made_site import Computer, MadeSite, link_core

from rolecall import Job, Monitor, MonitorConfig, launch, open_monitor


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MadeSite]:
    """Distributions that this process finds beside those that are really installed."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    made = MadeSite(path)
    yield made
    made.forget()


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_core(tmp_path_factory.mktemp("core") / "site-packages")


@pytest.fixture(scope="session")
def forks(core: Path) -> Iterator[Forks]:
    with closing(Forks(core)) as started:
        yield started


@pytest.fixture
def computer(tmp_path: Path, core: Path, forks: Forks) -> Computer:
    """Where the core is installed and no plugin; `computer.site` takes those of the test."""
    for name in ("home", "plugins"):
        (tmp_path / name).mkdir()
    return Computer(core, MadeSite(tmp_path / "plugins"), tmp_path / "home", forks)


@pytest.fixture
def job(make_config: Callable[..., MonitorConfig]) -> Iterator[Job]:
    with launch(make_config(monitor_type="local", monitor_args={})) as launched:
        yield launched


@pytest.fixture
def monitor(job: Job) -> Iterator[Monitor]:
    with open_monitor(job.config, "trainer") as opened:
        yield opened
