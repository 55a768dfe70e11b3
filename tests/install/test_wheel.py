"""The core's wheel: with the compiled module where there is a compiler, and without it elsewhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from foreign import Environment, build_wheel, make_venv, pip_install

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
COMPILED = "rolecall/_speedups.abi3.so"
LOG = """
from pathlib import Path

from rolecall import launch, open_monitor
from rolecall.store import CompiledStore

config = {"project": "p", "name": "n", "monitor_type": "local", "monitor_dir": "run"}
with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
    for step in range(100):
        monitor.log({"loss": 0.5}, step)
(journal,) = Path("run").glob("**/trainer/1.jsonl")
print(len(journal.read_bytes().splitlines()), CompiledStore)
"""
LOGGED = 102
"""Lines: a header, the rows, an end."""


def core_of(wheels: list[Path]) -> Path:
    (core,) = [wheel for wheel in wheels if wheel.name.startswith("rolecall-")]
    return core


def test_one_compiled_wheel_is_for_every_python(our_wheels: list[Path]) -> None:
    core = core_of(our_wheels)
    assert "-cp311-abi3-linux_" in core.name
    with zipfile.ZipFile(core) as wheel:
        assert COMPILED in wheel.namelist()
        assert not [name for name in wheel.namelist() if name.endswith(".c")]


def test_it_is_used_where_it_is_installed(environment: Environment) -> None:
    assert environment.run("python", "-c", LOG).strip() == f"{LOGGED} <class 'rolecall._speedups.Store'>"


def test_without_a_compiler_it_is_python_alone_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    build_wheel(REPOSITORY, tmp_path)
    core = core_of(list(tmp_path.glob("*.whl")))
    assert core.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(core) as wheel:
        assert COMPILED not in wheel.namelist()
    clean = Environment(tmp_path / "venv", tmp_path / "home")
    clean.home.mkdir()
    make_venv(clean.prefix)
    pip_install(clean.prefix, core)
    assert clean.run("python", "-c", LOG).strip() == f"{LOGGED} None"
