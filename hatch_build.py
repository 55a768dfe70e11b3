"""Compile `rolecall.store._speedups` where that can be done; without it rolecall works the same."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/rolecall/store/_speedups.c")
MODULE = SOURCE.stem + sysconfig.get_config_var("EXT_SUFFIX")
"""Named after the Python that it is for, so that several may share a checkout."""
TRY = """
from _speedups import Store, unpack

assert unpack(b"no line", {}, None) is None
store, pages = Store(), bytearray(100)
store.open(pages, 0)
assert store.put(1, b"row") and pages.startswith(b"row")
"""
PATIENCE = 120.0
"""Seconds."""


class Speedups(BuildHookInterface[Any]):
    """Adds the module to a wheel; for an editable install puts it beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel."""
        self._folder = tempfile.TemporaryDirectory(prefix="rolecall-build-", ignore_cleanup_errors=True)
        made, beside = Path(self._folder.name, MODULE), Path(self.root, SOURCE).with_name(MODULE)
        try:
            _compile(Path(self.root, SOURCE), made)
            if version == "editable":
                _replace(beside, made)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is a way without
            self.app.display_warning(f"rolecall is installed without {SOURCE}: {error}")
            if version == "editable":
                with suppress(OSError):
                    beside.unlink()  # of an older source
            return
        if version != "editable":
            build_data.update(pure_python=False, infer_tag=True)
            build_data["force_include"][str(made)] = f"rolecall/{MODULE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        self._folder.cleanup()


def _compile(source: Path, made: Path) -> None:
    """Compile it, and see that it works in this Python.

    Raises:
        Exception: there is no compiler, or no header of Python; or it does not work.
    """
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        raise OSError("rolecall maps journals on Linux and in CPython alone")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    include = f"-I{sysconfig.get_path('include')}"
    flags = ("-std=c11", "-O2", "-Wall", "-shared", "-fPIC", include)
    subprocess.run([*compiler, *flags, source, "-o", made], check=True, timeout=PATIENCE, cwd=made.parent)
    env = {**os.environ, "PYTHONPATH": str(made.parent)}
    subprocess.run([sys.executable, "-c", TRY], check=True, timeout=PATIENCE, env=env)


def _replace(target: Path, made: Path) -> None:
    """At once, as it may be in use."""
    draft = target.with_name(f".{os.getpid()}{MODULE}")
    try:
        shutil.copyfile(made, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
