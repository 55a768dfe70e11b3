"""The core's wheel: with the compiled module where there is a compiler, and without it elsewhere."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from foreign import Environment, build_wheel, make_venv, pip_install, run

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
MODULE = "_speedups" + sysconfig.get_config_var("EXT_SUFFIX")
LOG = """
from pathlib import Path

from rolecall import launch, open_monitor
from rolecall.store.rowstore import CompiledStore

config = {"project": "p", "name": "n", "monitor_type": "local", "monitor_dir": "run"}
with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
    for step in range(100):
        monitor.log({"loss": 0.5}, step)
(journal,) = Path("run").glob("**/trainer/1.jsonl")
print(len(journal.read_bytes().splitlines()), CompiledStore)
"""
LOGGED = 102
"""Lines: a header, the rows, an end."""
EDITABLE = """
import os, sys
from hatchling.build import build_editable

os.chdir(sys.argv[1])
build_editable(sys.argv[2])
"""


def core_of(wheels: list[Path]) -> Path:
    (core,) = [wheel for wheel in wheels if wheel.name.startswith("rolecall-")]
    return core


def compiled(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith((".c", ".so"))]


def test_the_wheel_holds_the_module_and_says_for_which_python(our_wheels: list[Path]) -> None:
    core = core_of(our_wheels)
    version = "cp{}{}".format(*sys.version_info)
    assert f"-{version}-{version}-linux_" in core.name
    assert compiled(core) == [f"rolecall/{MODULE}"]


def test_it_is_used_where_it_is_installed(environment: Environment) -> None:
    assert environment.run("python", "-c", LOG).strip() == f"{LOGGED} <class 'rolecall.store._speedups.Store'>"


HALF = """#!/bin/sh
for last; do :; done
head -c 5000 {source} > "$last"
exit {status}
"""


@pytest.fixture(params=["none", "makes nothing", "makes junk", "fails halfway"])
def broken_compiler(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a temporary directory of its own, to see what is left there."""
    compiler = tmp_path / "compiler"
    if request.param in {"makes junk", "fails halfway"}:
        status = "1" if request.param == "fails halfway" else "0"
        compiler.write_text(HALF.format(source=sys.executable, status=status))
        compiler.chmod(0o755)
    monkeypatch.setenv("CC", "true" if request.param == "makes nothing" else str(compiler))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


@pytest.mark.usefixtures("broken_compiler")
def test_without_a_compiler_that_works_the_wheel_is_python_alone(tmp_path: Path) -> None:
    build_wheel(REPOSITORY, tmp_path / "dist")
    core = core_of(list((tmp_path / "dist").glob("*.whl")))
    assert core.name.endswith("-py3-none-any.whl")
    assert compiled(core) == []
    assert not list((tmp_path / "tmp").glob("rolecall-build-*"))


@pytest.mark.usefixtures("broken_compiler")
def test_an_editable_install_then_uses_no_older_module(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(REPOSITORY / "src", tree / "src")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree / name)
    (tree / "src" / "rolecall" / MODULE).write_bytes(b"older")
    run(sys.executable, "-c", EDITABLE, str(tree), str(tmp_path))
    assert not list(tree.glob("src/rolecall/*.so"))
    assert not list((tmp_path / "tmp").glob("rolecall-build-*"))


def test_where_there_is_none_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    build_wheel(REPOSITORY, tmp_path)
    clean = Environment(tmp_path / "venv", tmp_path / "home")
    clean.home.mkdir()
    make_venv(clean.prefix)
    pip_install(clean.prefix, core_of(list(tmp_path.glob("*.whl"))))
    assert clean.run("python", "-c", LOG).strip() == f"{LOGGED} None"
