"""The Python of README and docs, checked by mypy and pyright as a reader's own program would be.

All blocks of a page that have no title make one module, as they are executed one after another; a block with a title
is a file of its own. A page's files lie together in one directory.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT, Block, blocks

from rolecall.__main__ import main

pytestmark = [
    pytest.mark.types,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (Path(sys.executable).parent / "pyright").exists(), reason="pyright is not installed; `nox -s types` has it"
    ),
]
CONFIG = """
from rolecall import MonitorConfig

config = MonitorConfig(
    project="x", name="y", monitor_type="mlflow", monitor_args={"uri": "http://here"}, monitor_dir="runs/x"
)
"""
MYPY = [
    *("mypy", "--strict", "--ignore-missing-imports", "--explicit-package-bases"),
    "--disable-error-code=no-untyped-def",  # a reader's program need not be annotated
    "--disable-error-code=no-untyped-call",
    "--disable-error-code=type-arg",
    "--disable-error-code=misc",
]
# An SDK's own sources take mypy half a minute each, and how pages call an SDK is seen when they are executed.
WITHOUT_SDKS = "[mypy]\n[mypy-mlflow.*,wandb.*]\nfollow_imports = skip\n"
UNTYPED = {
    "line_wandb.py": "Accelerate is not installed here; `nox -s accelerate` runs it",
    "ray_job.py": "Ray is not installed here; `nox -s ray` runs it",
    **dict.fromkeys(
        ("lightning_role.py", "lightning_wandb.py"), "Lightning is not installed here; `nox -s lightning` runs it"
    ),
    **dict.fromkeys(
        ("cartpole.py", "cartpole_tensorboard.py", "writer.py"),
        "Stable-Baselines3 is not installed here; `nox -s stable_baselines3` runs it",
    ),
    "gpt_wandb.py": "transformers is not installed here; `nox -s transformers` runs it",
    **dict.fromkeys(("parabola.py", "parabola_before.py"), "Hydra is not installed here; `nox -s hydra` runs it"),
    **dict.fromkeys(("cartpole_wandb.py", "roles.py"), "TorchRL is not installed here; `nox -s torchrl` runs it"),
    **dict.fromkeys(("search_mlflow.py", "train.py"), "Ray is not installed here; `nox -s ray_tune` runs it"),
}
PYRIGHT = ["pyright", "--pythonpath", sys.executable]


@pytest.fixture(scope="session")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command; what it learns of installed packages, which takes most of its time, is kept from page to page."""
    config = tmp_path_factory.getbasetemp() / "mypy.ini"
    config.write_text(WITHOUT_SDKS)
    return [*MYPY, f"--config-file={config}", f"--cache-dir={config.parent / 'mypy'}"]


def programs(page: Path) -> dict[str, str]:
    """A page's Python files by name, each block on the lines that it has in the page where it is alone."""
    found: dict[str, str] = {}
    for block in _python(page):
        name = block.title or "in_order.py"
        found[name] = f"{found[name]}\n{block.text}" if name in found else block.text
    return found


def _python(page: Path) -> Iterator[Block]:
    return (block for block in blocks(page) if block.language == "python" and block.title not in UNTYPED)


def check(directory: Path, *command: str) -> str:
    """What a checker has to say of the files there; nothing if all is well."""
    program = str(Path(sys.executable).parent / command[0])
    ran = subprocess.run(
        [program, *command[1:], "."],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "" if ran.returncode == 0 else ran.stdout


TYPED = [page for page in PAGES if programs(page)]


def write(page: Path, directory: Path) -> None:
    for name, text in programs(page).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_mypy_accepts_page(page: Path, tmp_path: Path, mypy: list[str]) -> None:
    write(page, tmp_path)
    assert check(tmp_path, *mypy) == ""


def test_mypy_accepts_new_backend(tmp_path: Path, mypy: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["new-backend", "acme", "--into", str(tmp_path)]) == 0
    monkeypatch.setenv("MYPYPATH", "rolecall-acme/src")
    assert check(tmp_path, *mypy, "--strict", "--explicit-package-bases") == ""


def test_pyright_accepts_all_pages(tmp_path: Path) -> None:
    """At once: it takes seconds to start, and finds a module beside the one that imports it."""
    for page in TYPED:
        write(page, tmp_path / page.stem)
    assert check(tmp_path, *PYRIGHT) == ""


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_config_is_checked_by_both(checker: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is made of plain values, and an unknown setting or a wrong value is found."""
    (tmp_path / "right.py").write_text(CONFIG)
    for name, wrong in (("unknown", 'monitor_dir="runs/x", sink="wandb"'), ("mistyped", "monitor_dir=7")):
        (tmp_path / f"{name}.py").write_text(CONFIG.replace('monitor_dir="runs/x"', wrong))
    said = check(tmp_path, *(request.getfixturevalue("mypy") if checker == "mypy" else PYRIGHT))
    assert set(re.findall(r"(\w+)\.py:\d+:.* error\b", said)) == {"unknown", "mistyped"}, said
