"""The benchmarks run and measure something. What they measure is in docs/performance.md."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.benchmarks

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = {
    "alternatives.py": "--floats 10 --calls 100 --rounds 1",
    "log_call.py": "--peer limit 'rolecall local' --floats 10 --pace 0 --scalars float numpy --threads 1 2 "
    "--calls 50 --rounds 1",
    "log_image.py": "--peer rolecall 'wandb offline' --size 16 --calls 20 --rounds 1",
    "training_loop.py": "--peer 'rolecall, tensorboard' --step 1 --rows 5 --blocks 3",
    "node_agent.py": "--roles 1 --seconds 5",
    "start.py": "--program 'first log' --runs 1",
    "relay.py": "--what native --backends mlflow --roles 1 --seconds 2",
    "stream.py": "--backend tensorboard --rows 200 --rounds 1",
    "wandb_refused.py": "--rows 100 --seconds 5",
    "weight.py": "--peer 'rolecall local' tensorboardX --runs 1",
}
MEASURED = {
    "alternatives.py": ("10 floats, µs", 2),
    "log_call.py": ("p50", 5),
    "log_image.py": ("x bare", 2),
    "training_loop.py": ("CPU a row, µs", 2),
    "node_agent.py": ("memory, MB", 3),
    "start.py": ("median, ms", 2),
    "relay.py": ("age of rows, s", 2),
    "stream.py": ("rows/s", 2),
    "wandb_refused.py": ("SDK, MB", 1),
    "weight.py": ("process, MB", 2),
}


def measured(script: str, options: str, tmp_path: Path) -> list[dict[str, Any]]:
    kept = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / script), *shlex.split(options), "--json", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))["found"]
    shown = next(value for value in reversed(found[0].values()) if value is not None)
    assert str(shown) in done.stdout
    return found


@pytest.mark.parametrize("script", SMALL)
def test_it_measures(script: str, tmp_path: Path) -> None:
    column, lines = MEASURED[script]
    found = measured(script, SMALL[script], tmp_path)
    # How many encoders there are depends on what else is installed.
    assert len(found) == lines or (script == "alternatives.py" and len(found) > lines)
    assert all(row[column] for row in found)


def test_scale_reads_every_binding_once(tmp_path: Path) -> None:
    found = measured("scale.py", "--writers 1 4 --keys 10 --rows 1000 --delay 0 1", tmp_path)
    assert [row["what"] for row in found] == ["writers"] * 2 + ["keys", "journal"] + ["latency"] * 2
    assert [row["bindings read, times"] for row in found[:2]] == [1.0, 1.0]
    # One for each file, and two for the folder: whether it is a symlink, and what is in it.
    assert found[-1]["its calls"] == 130
    assert found[-1]["exchange of 128 writers, ms"] >= 130.0


def test_a_missing_peer_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "swanlab.py").write_text("raise ModuleNotFoundError(\"No module named 'swanlab'\")")
    command = [sys.executable, str(BENCHMARKS / "weight.py"), "--peer", "swanlab offline", "--runs", "1"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout) == (0, "nothing was measured\n")
    assert "swanlab offline: left out: ModuleNotFoundError: No module named 'swanlab'" in done.stderr
