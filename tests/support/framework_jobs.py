"""Runs a framework's own code, and the same job through rolecall."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from framework_shapes import TABLE, Shape

from rolecall import MonitorConfig, Table, launch, open_monitor

__all__ = ["BY", "Point", "bag", "log_through_rolecall", "run_framework", "verified_points"]

CALLS: Final = Path(__file__).with_name("framework_calls.py")
BY: Final = pytest.mark.parametrize(
    "by",
    [
        "calls",
        pytest.param(
            "package",
            marks=pytest.mark.skipif(
                find_spec("trinity") is None, reason="trinity-rft is not installed; `nox -s frameworks` installs it"
            ),
        ),
    ],
)
"""Who logs as Trinity-RFT does: the calls of its classes, or these classes themselves."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place on an axis. MLflow and TensorBoard have one axis, whose name is nothing."""

    key: str
    at: float
    value: float
    axis: str = ""


def run_framework(shape: Shape, backend: str, target: str, by: str = "calls") -> None:
    """Log it as the framework's own code does, in processes of its own."""
    command = [sys.executable, str(CALLS), shape.name, backend, target]
    environ = {**os.environ, **({"TRINITY_PACKAGE": "1"} if by == "package" else {})}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def log_through_rolecall(shape: Shape, config: MonitorConfig) -> None:
    """Log it as roles of a job."""
    with launch(config) as job, ExitStack() as opened:
        monitors = {
            writer: opened.enter_context(open_monitor(job.config, writer, prefix=shape.prefix))
            for writer in shape.writers
        }
        for call in shape.calls:
            table = {TABLE: Table(list(call.table))} if call.table else {}
            monitors[call.writer].log({**call.metrics, **table}, call.step, axis=call.axis)


def verified_points(directory: Path) -> int:
    """How many points `rolecall verify` compared, all of them equal."""
    command = [sys.executable, "-m", "rolecall", "verify", str(directory), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    assert {report["state"] for report in reports} == {"equal"}
    return sum(report["points"] for report in reports)


def bag(shape: Shape, *writers: str) -> Counter[Point]:
    """Each value at its step, as MLflow and TensorBoard have it; rows without a step are counted, as rolecall does."""
    points: Counter[Point] = Counter()
    counts: Counter[tuple[str, str | None]] = Counter()
    for call in shape.calls:
        if call.step is None:
            counts[call.writer, call.axis] += 1
        step = counts[call.writer, call.axis] if call.step is None else call.step
        if not writers or call.writer in writers:
            points.update(Point(key, step, value) for key, value in call.metrics.items())
    return points
