"""Distributions that are installed for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_site import Computer, MadeSite, link_core


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


@pytest.fixture
def computer(tmp_path: Path, core: Path) -> Computer:
    """Where the core is installed and no plugin; `computer.site` takes those of the test."""
    for name in ("home", "plugins"):
        (tmp_path / name).mkdir()
    return Computer(core, MadeSite(tmp_path / "plugins"), tmp_path / "home")
