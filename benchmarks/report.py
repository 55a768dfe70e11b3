"""What was measured, as a table for people and as JSON for plots."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Found", "run_worker", "show_and_keep", "table"]

Found = Sequence[Mapping[str, Any]]
MEASURED = ("rolecall", "pydantic", "wandb", "mlflow", "tensorboardX", "torch", "trackio", "swanlab")


def table(found: Found) -> str:
    """One line for each row, its columns aligned."""
    if not found:
        return "nothing was measured"
    names = list(found[0])
    lines = [["" if row.get(name) is None else str(row[name]) for name in names] for row in found]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [names, *lines]
    )


def show_and_keep(found: Found, path: Path | None) -> None:
    """Print the table, and keep the rows with what they were measured on."""
    print(table(found), flush=True)
    if path is not None:
        path.write_text(json.dumps({"on": _machine(), "found": found}, indent=1) + "\n", encoding="utf-8")


def run_worker(script: str, options: Sequence[str], name: str) -> Any:
    """What a process of its own measured, the last line that it printed; `None` and a message if it could not."""
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines()
    print(f"{name}: left out: {said[-1] if said else done.returncode}", file=sys.stderr, flush=True)
    return None


def _machine() -> Mapping[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this benchmark included
        **{name: found for name in MEASURED if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
