"""The contracts of pyproject.toml find an import that goes against them; `nox -s lint` runs this."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / "src" / "rolecall", *sorted(path.parent for path in (ROOT / "plugins").glob("*/src/*/__init__.py"))]
LINT = Path(sys.executable).parent / "lint-imports"

pytestmark = pytest.mark.skipif(not LINT.exists(), reason="import-linter is not installed; `nox -s lint` has it")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of all packages, side by side, with the contracts."""
    for package in PACKAGES:
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> tuple[int, str]:
    """The status of `lint-imports` there, and what it printed, in one line."""
    ran = subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, " ".join(ran.stdout.split())


def plant(module: Path, line: str) -> None:
    """Add an import, inside a function, where it could be overlooked."""
    module.write_text(f"{module.read_text()}\n\ndef _planted() -> None:\n    {line}\n")


def test_the_sources_keep_every_contract(copy: Path) -> None:
    status, printed = lint(copy)
    assert status == 0, printed


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        pytest.param(
            "rolecall/store/codec.py",
            "import rolecall.job.launch",
            "rolecall.store.codec -> rolecall.job.launch",
            id="against the layers",
        ),
        pytest.param("rolecall/store/codec.py", "import rolecall", "rolecall.store.codec -> rolecall", id="the facade"),
        pytest.param(
            "rolecall/backends/builtin.py",
            "import wandb",
            "rolecall.backends.builtin -> wandb",
            id="an SDK in the core",
        ),
        pytest.param(
            "rolecall_wandb/plugin.py",
            "from rolecall.store import layout",
            "rolecall_wandb.plugin -> rolecall.store.layout",
            id="a private module in a plugin",
        ),
        pytest.param(
            "rolecall_mlflow/plugin.py",
            "import rolecall_wandb.args",
            "rolecall_mlflow.plugin -> rolecall_wandb.args",
            id="another plugin",
        ),
    ],
)
def test_a_planted_import_is_found(copy: Path, module: str, line: str, found: str) -> None:
    plant(copy / module, line)
    status, printed = lint(copy)
    assert status == 1
    assert found in printed


def test_plugin_may_import_test_kit(copy: Path) -> None:
    _, before = lint(copy)
    plant(copy / "rolecall_wandb" / "plugin.py", "import rolecall.testing")
    _, after = lint(copy)
    kept = "Plugins import from rolecall and rolecall.testing alone KEPT"
    assert kept in before
    assert kept in after


def test_a_new_room_needs_a_layer(copy: Path) -> None:
    (copy / "rolecall" / "attic").mkdir()
    (copy / "rolecall" / "attic" / "__init__.py").write_text("")
    status, printed = lint(copy)
    assert status == 1
    assert "attic" in printed
