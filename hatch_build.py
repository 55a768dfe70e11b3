"""Compile `rolecall._speedups` where there is a C compiler; without it rolecall is Python alone, and works the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/rolecall/_speedups.c"
MODULE = "_speedups.abi3.so"


class Speedups(BuildHookInterface[Any]):
    """Adds the module to a wheel; or puts it beside its source, for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel."""
        source = Path(self.root, SOURCE)
        beside = version == "editable"
        made = Path(tempfile.mkdtemp(dir=source.parent if beside else None, prefix=".build-")) / MODULE
        try:
            _compile(source, made)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"rolecall is built without {SOURCE}: {error}")
            return
        finally:
            if beside and made.exists():
                made.replace(source.with_name(MODULE))  # at once, as it may be in use
            if beside:
                made.parent.rmdir()
        if not beside:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"cp311-abi3-{platform}")
            build_data["force_include"][str(made)] = f"rolecall/{MODULE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        for made in build_data["force_include"]:
            if Path(made).name == MODULE:
                shutil.rmtree(Path(made).parent)


def _compile(source: Path, target: Path) -> None:
    """For CPython on Linux, where alone rolecall maps journals.

    Raises:
        OSError: there is no compiler, or it is another system.
        CalledProcessError: it cannot be compiled, as where Python's headers are not installed.
    """
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        raise OSError(f"{sys.implementation.name} on {sys.platform} needs none of it")
    compiler = os.environ.get("CC") or "cc"
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(
        [*compiler.split(), "-std=c11", "-O2", "-Wall", "-shared", "-fPIC", include, source, "-o", target],
        check=True,
    )
