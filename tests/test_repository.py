"""What pyproject.toml files, locks, README and .ci/run say of each other."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
DISTRIBUTIONS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]


def project(directory: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    return table


def floors(*requirements: str) -> dict[str, Version]:
    return {
        requirement.name.lower(): Version(spec.version)
        for requirement in map(Requirement, requirements)
        for spec in requirement.specifier
        if spec.operator in {">=", "=="}
    }


NOT_LOCKED = {"trinity", "verl"}
"""Their sessions install them without what they require."""


def cell(name: str) -> dict[str, Version]:
    lines = (LOCKS / f"{name}.in").read_text().splitlines()
    return floors(*(line for line in lines if line and not line.startswith("#")))


def test_core_is_tested_beside_oldest_claimed() -> None:
    core = project(ROOT)
    assert cell("core-oldest") == floors(*core["dependencies"], *core["optional-dependencies"]["cli"])


@pytest.mark.parametrize(
    ("plugin", "sdk"),
    [
        ("mlflow", "mlflow-skinny"),
        ("swanlab", "swanlab"),
        ("tensorboard", "tensorboardx"),
        ("trackio", "trackio"),
        ("wandb", "wandb"),
    ],
)
def test_plugin_is_tested_beside_oldest_claimed(plugin: str, sdk: str) -> None:
    claimed = floors(*project(ROOT / "plugins" / f"rolecall-{plugin}")["dependencies"])[sdk]
    assert claimed == min(cell(path.stem)[sdk] for path in LOCKS.glob(f"{plugin}-*.in"))


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.in")), ids=lambda path: path.stem)
def test_matrix_cells_are_named_by_version(path: Path) -> None:
    kind, _, version = path.stem.partition("-")
    if version not in {"oldest", "newest"} and kind not in NOT_LOCKED:
        assert next(iter(cell(path.stem).values())) == Version(version)


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.in")), ids=lambda path: path.stem)
def test_every_cell_is_locked(path: Path) -> None:
    locked = path.with_suffix(".txt").read_text()
    pins = {name: Version(version) for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", locked, re.MULTILINE)}
    assert cell(path.stem).items() <= pins.items()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda path: path.name)
def test_picture_is_small_and_in_a_page(path: Path) -> None:
    assert path.stat().st_size < 100_000
    assert any(f"images/{path.name}" in page.read_text() for page in (ROOT / "docs").glob("*.md"))


def test_locks_are_hashed_and_without_addresses() -> None:
    for path in LOCKS.glob("*.txt"):
        text = path.read_text()
        assert "--hash=sha256:" in text
        assert not re.search(r"://|^-|[\s=]/\w", text, re.MULTILINE), path


def test_distributions_share_one_version_and_licence() -> None:
    assert len({project(directory)["version"] for directory in DISTRIBUTIONS}) == 1
    assert len({(directory / "LICENSE").read_text() for directory in DISTRIBUTIONS}) == 1


def test_every_plugin_is_extra_and_typed() -> None:
    extras = project(ROOT)["optional-dependencies"]
    for directory in DISTRIBUTIONS[1:]:
        name = project(directory)["name"]
        assert extras[name.removeprefix("rolecall-")] == [name]
        assert (directory / "src" / name.replace("-", "_") / "py.typed").exists()


def test_ci_finds_readmes_test_command() -> None:
    script = re.search(r"sed -n '([^']+)'", (ROOT / ".ci" / "run").read_text())
    assert script
    found = subprocess.check_output(["sed", "-n", script[1], "README.md"], cwd=ROOT, text=True)
    assert re.fullmatch(r"python3 -m venv .*\\\n  .venv/bin/nox -j 2\n", found)
