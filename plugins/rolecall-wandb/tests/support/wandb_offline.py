"""Runs that are on disk, and what uploads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["offline_runs", "sync"]


def offline_runs(directory: Path) -> list[Path]:
    """Each run once: `latest-run` is a link to one."""
    return sorted(path for path in directory.rglob("offline-run-*") if path.is_dir())


def sync(directory: Path) -> None:
    """Run the command that is the job's URL."""
    environ = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    command = Path(sys.executable).parent / "wandb"
    finished = subprocess.run(
        [str(command), "sync", str(directory)], env=environ, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
