"""The Python of README and docs, checked by mypy and pyright as a reader's own program would be.

All blocks of a page that have no title make one module, as they are executed one after another; a block with a title
is a file of its own. A page's files lie together in one directory.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT, Block, blocks

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
    *("mypy", "--strict", "--ignore-missing-imports", "--explicit-package-bases", "--config-file="),
    "--disable-error-code=no-untyped-def",  # a reader's program need not be annotated
    "--disable-error-code=no-untyped-call",
    "--disable-error-code=type-arg",
    "--disable-error-code=misc",
]
PYRIGHT = ["pyright", "--pythonpath", sys.executable]


@pytest.fixture(scope="session")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command; what it learns of installed packages, which takes most of its time, is kept from page to page."""
    return [*MYPY, f"--cache-dir={tmp_path_factory.getbasetemp() / 'mypy'}"]


def programs(page: Path) -> dict[str, str]:
    """A page's Python files by name, each block on the lines that it has in the page where it is alone."""
    found: dict[str, str] = {}
    for block in _python(page):
        name = block.title or "in_order.py"
        found[name] = f"{found[name]}\n{block.text}" if name in found else block.text
    return found


def _python(page: Path) -> Iterator[Block]:
    return (block for block in blocks(page) if block.language == "python")


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


def test_pyright_accepts_all_pages(tmp_path: Path) -> None:
    """At once: it takes seconds to start, and finds a module beside the one that imports it."""
    for page in TYPED:
        write(page, tmp_path / page.stem)
    assert check(tmp_path, *PYRIGHT) == ""


def test_config_is_made_of_plain_values(tmp_path: Path, mypy: list[str]) -> None:
    (tmp_path / "config.py").write_text(CONFIG)
    assert check(tmp_path, *mypy) + check(tmp_path, *PYRIGHT) == ""


@pytest.mark.parametrize("wrong", ['monitor_dir="runs/x", sink="wandb"', "monitor_dir=7"])
def test_both_checkers_find_what_is_wrong(tmp_path: Path, wrong: str, mypy: list[str]) -> None:
    (tmp_path / "config.py").write_text(CONFIG.replace('monitor_dir="runs/x"', wrong))
    assert check(tmp_path, *mypy) != ""
    assert check(tmp_path, *PYRIGHT) != ""
