"""Jobs of the shape of three frameworks: wandb holds what their own calls make it hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from framework_jobs import BY, Point, bag, log_through_rolecall, run_framework, verified_points
from framework_shapes import SHAPES, TABLE, Shape
from wandb_beside import own_runs
from wandb_core import carried_writers
from wandb_emulator import Policy, StoredRun, WandbServer

from rolecall import MonitorConfig

pytestmark = [pytest.mark.processes, pytest.mark.servers, pytest.mark.timeout(300)]

Line = Mapping[str, Any]
Values = tuple[int, dict[str, Any]]
Own = Callable[..., list[StoredRun]]
Through = Callable[..., list[StoredRun]]
BOTH = pytest.mark.parametrize("policy", list(Policy))


@pytest.fixture
def own(server: WandbServer, tmp_path: Path) -> Own:
    """Log it as the framework does; the runs that it made."""

    def run(shape: Shape, by: str = "calls") -> list[StoredRun]:
        run_framework(shape, "wandb", str(tmp_path), by)
        return own_runs(server)

    return run


@pytest.fixture
def through_rolecall(
    server: WandbServer, make_config: Callable[..., MonitorConfig], wait_until: Callable[..., None]
) -> Through:
    """Log it through rolecall; the runs that this made."""

    def run(shape: Shape, *, shared: bool = True) -> list[StoredRun]:
        before = {run.id for run in own_runs(server)}
        config = make_config(shared_run=shared)
        log_through_rolecall(shape, config)
        wait_until(lambda: not carried_writers(config.monitor_dir), 100.0)
        assert verified_points(config.monitor_dir) == bag(shape).total()
        return [run for run in own_runs(server) if run.id not in before]

    return run


def lines(run: StoredRun) -> list[Line]:
    """All lines as the server has them: 0.31.0's own reader wants parquet files, which the emulator has none of."""
    return [{**entry.line, "_step": entry.step} for entry in run.history]


def points(run: StoredRun, axes: Mapping[str, str]) -> Counter[Point]:
    """The values of some keys, each at the place that its line has on the key's axis."""
    return Counter(
        Point(key, line[axis], line[key], axis)
        for line in lines(run)
        for key, axis in axes.items()
        if line.get(key) is not None and line.get(axis) is not None
    )


def axes_of(shape: Shape) -> dict[str, str]:
    """The axis of each key that is logged with a step."""
    return {key: shape.axis_key(call) for call in shape.calls if call.step is not None for key in call.metrics}


def logged(shape: Shape) -> Counter[Point]:
    """What is logged with a step."""
    axes = axes_of(shape)
    return Counter(
        Point(key, call.step, value, axes[key])
        for call in shape.calls
        if call.step is not None
        for key, value in call.metrics.items()
    )


@BOTH
def test_slime(own: Own, through_rolecall: Through, policy: Policy) -> None:
    """All points, on slime's axes, which its processes declare by patterns."""
    shape = SHAPES["slime"]
    (theirs,), (ours,) = own(shape), through_rolecall(shape)
    axes = axes_of(shape)
    assert points(theirs, axes) == points(ours, axes) == logged(shape)
    assert ours.bindings() == axes
    check_declared(theirs, axes, policy)


def check_declared(theirs: StoredRun, axes: Mapping[str, str], policy: Policy) -> None:
    """The framework's own axes are rolecall's. Where the server replaces configs, those of one process may be gone."""
    exact, patterns = theirs.bindings(), theirs.patterns()
    matches = {key: [axis for name, axis in patterns.items() if key.startswith(name[:-1])] for key in axes}
    declared = {**{key: found[0] for key, found in matches.items() if found}, **exact}
    declared = {key: axis for key, axis in declared.items() if key in axes}
    assert declared.items() <= axes.items()
    if policy is Policy.MERGE:
        assert declared == axes


@BOTH
def test_prime_rl(own: Own, through_rolecall: Through, policy: Policy) -> None:
    """The difference: rows without a step are over `_timestamp` there, and over their count here; ours have both."""
    shape = SHAPES["prime-rl"]
    (theirs,), (ours,) = own(shape), through_rolecall(shape)
    axes = axes_of(shape)
    assert points(theirs, axes) == points(ours, axes) == logged(shape)
    stepless = shape.stepless_keys()
    assert ours.bindings() == {**axes, **dict.fromkeys(stepless, shape.stepless_axis)}
    check_declared(theirs, axes, policy)
    by_time = dict.fromkeys(stepless, "_timestamp")
    by_count = dict.fromkeys(stepless, shape.stepless_axis)
    in_order = [call.metrics for call in shape.calls if call.step is None]
    assert series(theirs, by_time) == series(ours, by_time) == series(ours, by_count)
    assert series(ours, by_count) == {key: [values[key] for values in in_order] for key in stepless}
    assert {point.at for point in points(ours, by_count)} == set(range(1, len(in_order) + 1))
    assert all(shape.stepless_axis not in line for line in lines(theirs))


def series(run: StoredRun, axes: Mapping[str, str]) -> dict[str, list[float]]:
    """The values of each key in the order of its axis."""
    found = sorted(points(run, axes).elements(), key=lambda point: point.at)
    return {key: [point.value for point in found if point.key == key] for key in axes}


def rows(run: StoredRun, axis: str, prefix: str = "") -> list[Values]:
    """A run's lines with what was logged into them; a table as its columns and cells."""
    found = []
    for line in lines(run):
        if line.get(axis) is not None:
            values = {key: value for key, value in line.items() if key.startswith(prefix) and value is not None}
            shown = {key.removeprefix(prefix): value for key, value in values.items() if key[0] != "_" and key != axis}
            if TABLE in shown:
                table = json.loads(run.files[shown[TABLE]["path"]])
                shown[TABLE] = (table["columns"], table["data"])
            found.append((line[axis], shown))
    return found


@BY
def test_trinity(own: Own, through_rolecall: Through, by: str) -> None:
    """Line by line: a step is one line, with its table."""
    shape = SHAPES["trinity"]
    theirs, ours = named(own(shape, by)), named(through_rolecall(shape, shared=False))
    assert theirs.keys() == ours.keys() == {f"grpo-1_{role}" for role in shape.writers}
    for name, run in theirs.items():
        assert rows(run, "_step") == rows(ours[name], "_step")
        assert [step for step, _ in rows(run, "_step")] == [1, 2, 3, 4]


def named(runs: list[StoredRun]) -> dict[str, StoredRun]:
    """By their names."""
    return {run.named["name"]: run for run in runs}


@BOTH
def test_trinity_in_shared_run(own: Own, through_rolecall: Through) -> None:
    """As many lines as Trinity's, each with the same values; keys have the role, and the step is a metric."""
    shape = SHAPES["trinity"]
    theirs = named(own(shape))
    (ours,) = through_rolecall(shape)
    for role in shape.writers:
        assert rows(ours, f"{role}/step", f"{role}/") == rows(theirs[f"grpo-1_{role}"], "_step")
    keys = {f"{call.writer}/{key}": f"{call.writer}/step" for call in shape.calls for key in call.metrics}
    assert ours.bindings() == keys
    assert len(ours.history) == sum(len(run.history) for run in theirs.values())
