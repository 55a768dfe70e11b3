"""Jobs of the shape of three frameworks: TensorBoard shows what their own calls make it show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from framework_jobs import BY, Point, bag, log_through_rolecall, run_framework, verified_points
from framework_shapes import SHAPES, Shape

from rolecall import MonitorConfig

pytestmark = pytest.mark.processes

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Through = Callable[[Shape], Path]


@pytest.fixture
def through_rolecall(tmp_path: Path) -> Through:
    """Run a job; the directory in which each writer has one."""

    def run(shape: Shape) -> Path:
        config = MonitorConfig(
            project="gsm8k", name="grpo-1", monitor_type="tensorboard", monitor_dir=tmp_path / "job", courier="thread"
        )
        log_through_rolecall(shape, config)
        assert verified_points(config.monitor_dir) == bag(shape).total()
        return config.monitor_dir / "backends" / "tensorboard"

    return run


@pytest.fixture
def points(read: Read) -> Callable[..., Counter[Point]]:
    """All points in some directories."""

    def found(*directories: Path) -> Counter[Point]:
        tags = [item for directory in directories for item in read(str(directory)).items()]
        return Counter(Point(tag, step, value) for tag, scalars in tags for step, value in scalars)

    return found


def rounded(logged: Counter[Point]) -> Counter[Point]:
    """As float32, which event files hold."""
    return Counter(Point(each.key, each.at, float(np.float32(each.value))) for each in logged.elements())


def as_tensorboardx_names(found: Counter[Point]) -> Counter[Point]:
    """tensorboardX stands in for torch's writer, which Trinity uses. It makes `_` of `@`; torch's and ours keep it."""
    return Counter(Point(each.key.replace("@", "_"), each.at, each.value) for each in found.elements())


def test_slime(tmp_path: Path, through_rolecall: Through, points: Callable[..., Counter[Point]]) -> None:
    """The difference: slime's processes write one directory, rolecall's each one of its own."""
    shape = SHAPES["slime"]
    run_framework(shape, "tensorboard", str(tmp_path / "own"))
    directory = through_rolecall(shape)
    assert points(tmp_path / "own") == points(directory / "actor", directory / "perf") == rounded(bag(shape))


def test_prime_rl(tmp_path: Path, through_rolecall: Through, points: Callable[..., Counter[Point]]) -> None:
    """The differences: directories, as for slime; and the step of a value without one is 0 there, and counted here."""
    shape = SHAPES["prime-rl"]
    run_framework(shape, "tensorboard", str(tmp_path / "own"))
    directory = through_rolecall(shape)
    ours = points(directory / "orchestrator", directory / "trainer")
    assert ours == rounded(bag(shape))
    stepless = shape.stepless_keys()
    at_zero = Counter(Point(p.key, 0 if p.key in stepless else p.at, p.value) for p in ours.elements())
    assert points(tmp_path / "own") == at_zero


@BY
def test_trinity(tmp_path: Path, through_rolecall: Through, points: Callable[..., Counter[Point]], by: str) -> None:
    """The differences: Trinity leaves tables out, here they are in the text tab; and see `as_tensorboardx_names`."""
    shape = SHAPES["trinity"]
    run_framework(shape, "tensorboard", str(tmp_path / "own"), by)
    directory = through_rolecall(shape)
    for role in shape.writers:
        ours = points(directory / role)
        assert ours == rounded(bag(shape, role))
        assert points(tmp_path / "own/tensorboard" / role) == as_tensorboardx_names(ours)
