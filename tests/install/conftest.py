"""An environment with our built wheels and those of somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from foreign import ALONE, SHARES, Environment, build_wheel, make_venv, pip_install, write_distribution

REPOSITORY = Path(__file__).parents[2]
PLUGINS = ("mlflow", "swanlab", "tensorboard", "trackio", "wandb")
OURS = (".", *(f"plugins/rolecall-{name}" for name in PLUGINS))


@pytest.fixture(scope="session")
def our_wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheels of this repository: those that `nox -s install` built, or else built here."""
    given = os.environ.get("ROLECALL_WHEELS")
    if given is None:
        given = str(tmp_path_factory.mktemp("wheels"))
        for path in OURS:
            build_wheel(REPOSITORY / path, Path(given))
    return sorted(Path(given).glob("*.whl"))


@pytest.fixture(scope="session")
def their_wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One backend that can share runs and one that cannot."""
    outside = tmp_path_factory.mktemp("outside")
    for backend, sharing in (("together", SHARES), ("alone", ALONE)):
        build_wheel(write_distribution(outside, backend, sharing), outside / "dist")
    return sorted((outside / "dist").glob("*.whl"))


@pytest.fixture(scope="session")
def environment(
    tmp_path_factory: pytest.TempPathFactory, our_wheels: list[Path], their_wheels: list[Path]
) -> Environment:
    """Our wheels and theirs with what they require; our plugins are there without their SDKs."""
    made = Environment(tmp_path_factory.mktemp("clean") / "venv", tmp_path_factory.mktemp("home"))
    core = [wheel for wheel in our_wheels if wheel.name.startswith("rolecall-")]
    assert len(core) == 1
    make_venv(made.prefix)
    pip_install(made.prefix, *core, *their_wheels)
    pip_install(made.prefix, "--no-deps", *(wheel for wheel in our_wheels if wheel not in core))
    return made
