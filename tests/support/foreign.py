"""Two backends as somebody else writes them, outside of this repository, and a clean environment to install them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "2.5"
requires-python = ">=3.11"
dependencies = ["rolecall"]

[project.entry-points."rolecall.backends"]
{backend} = "{module}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""
MODULE = '''
"""Rows as lines of JSON in a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rolecall import Row, Run, RunTicket, SharedRunSupport, Status, hookimpl


class Args(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path = Path("lines")


class LinesRun:
    def __init__(self, directory: Path, ticket: RunTicket) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.id = ticket.run_id
        self.url = None
        self._path = directory / f"{ticket.run_id}.jsonl"
        self._primary = ticket.primary

    def log(self, rows: Sequence[Row]) -> None:
        self.write(*({"writer": row.writer, "step": row.step, **row.metrics} for row in rows))

    def flush(self, timeout: float) -> None:
        pass

    def close(self, status: Status) -> None:
        if self._primary:
            self.write({"closed": status})

    def write(self, *lines: Mapping[str, object]) -> None:
        with self._path.open("ab", buffering=0) as file:
            for line in lines:
                file.write(json.dumps(line).encode() + b"\\n")


@hookimpl
def backend_args() -> type[BaseModel]:
    return Args


@hookimpl
def open_run(ticket: RunTicket, args: Args) -> Run:
    run = LinesRun(args.directory, ticket)
    run.write({"opened": ticket.name, "by": ticket.writer, "shared": ticket.shared})
    return run
'''
SHARES = """

@hookimpl
def supports_shared_run(args: Args) -> SharedRunSupport:
    return SharedRunSupport(supported=True)


@hookimpl
def declare_axes(run: LinesRun, axes: Mapping[str, str]) -> None:
    run.write({"axes": dict(axes)})
"""
ALONE = """

@hookimpl
def supports_shared_run(args: Args) -> SharedRunSupport:
    return SharedRunSupport(supported=False, reason="one process owns a file; give each role a file of its own")
"""


@dataclass(frozen=True)
class Environment:
    """A clean virtual environment and a working directory far from this repository."""

    prefix: Path
    home: Path

    def run(self, program: str, *arguments: str) -> str:
        """What a program of the environment prints; it has to end well."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        env = {name: os.environ[name] for name in kept if name in os.environ}
        command = [str(self.prefix / "bin" / program), *arguments]
        ran = subprocess.run(command, cwd=self.home, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


def write_distribution(directory: Path, backend: str, sharing: str) -> Path:
    """The source tree of a backend; returns its directory."""
    names = {"distribution": f"{backend}-tracker", "module": f"{backend}_tracker", "backend": backend}
    tree = directory / names["distribution"]
    tree.mkdir(parents=True)
    (tree / "pyproject.toml").write_text(PYPROJECT.format(**names))
    (tree / f"{names['module']}.py").write_text(MODULE + sharing)
    return tree


def build_wheel(tree: Path, into: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(into), str(tree))


def make_venv(prefix: Path) -> None:
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", sys.executable, str(prefix))
    else:
        run(sys.executable, "-m", "venv", str(prefix))


def pip_install(prefix: Path, *what: str | Path) -> None:
    python = str(prefix / "bin" / "python")
    if uv := shutil.which("uv"):
        run(uv, "pip", "install", "--quiet", "--python", python, *map(str, what))
    else:
        run(python, "-m", "pip", "install", "--quiet", *map(str, what))


def run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout}{ran.stderr}"
