"""Compares what a backend holds with what it was handed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rolecall.rows import Row

if TYPE_CHECKING:
    from rolecall.testing.author import Contract

Found = dict[str, list[tuple[int, float]]]
"""Metrics by key: steps and values, in order."""


def axes_of(given: Row) -> dict[str, str]:
    """The axis of each metric of a row that has its axis as a metric."""
    axis = f"{given.writer}/step"
    return {key: axis for key in given.metrics if key != axis} if axis in given.metrics else {}


def is_axis(key: str) -> bool:
    """Whether a metric of the contract is an axis: no other is called so."""
    return key == "step" or key.endswith("/step")


def expected(contract: "Contract", rows: Iterable[Row]) -> Found:
    """What a backend must hold of these rows."""
    found: Found = {}
    for each in rows:
        for key, value in each.metrics.items():
            if not is_axis(key) and (held := contract.expected_value(value)) is not None:
                found.setdefault(key, []).append((each.step, held))
    return {key: in_order(points) for key, points in found.items()}


def agree(contract: "Contract", held: Mapping[str, Any], wanted: Mapping[str, Any], *, once: bool = True) -> None:
    """Assert that metrics are equal, apart from the backend's tolerance.

    Args:
        contract: says how near the backend holds values.
        held: what the backend holds.
        wanted: what it must hold.
        once: whether each point must be there once; else once or more.
    """
    assert sorted(held) == sorted(wanted), f"expected the keys {sorted(wanted)}, held {sorted(held)}"
    for key, points in wanted.items():
        lacking, extra = differences(held[key], points, contract.tolerance)
        if not once:
            extra = [each for each in extra if not any(_same(each, point, contract.tolerance) for point in points)]
        wrong = [f"{what} {shown(some)}" for what, some in (("not held", lacking), ("not expected", extra)) if some]
        assert not wrong, f"{key}: expected {shown(points)}, held {shown(held[key])}; {'; '.join(wrong)}"


def differences(held: Sequence[Any], wanted: Sequence[Any], tolerance: float) -> tuple[list[Any], list[Any]]:
    """The points that are lacking and those that are too many."""
    left, lacking = list(held), []
    for point in wanted:
        match = next((each for each in left if _same(each, point, tolerance)), None)
        if match is None:
            lacking.append(point)
        else:
            left.remove(match)
    return lacking, left


def _same(one: Any, other: Any, tolerance: float) -> bool:
    return one[0] == other[0] and same_value(one[1], other[1], tolerance)


def same_value(held: object, wanted: float, tolerance: float) -> bool:
    """Whether a value is held, as near as the backend holds values."""
    if not isinstance(held, int | float):
        return False
    if math.isnan(wanted) or math.isnan(held):
        return math.isnan(wanted) and math.isnan(held)
    if held == wanted:
        return math.copysign(1, held) == math.copysign(1, wanted)
    return tolerance > 0 and math.isclose(held, wanted, rel_tol=tolerance)


def shown(points: Sequence[Any]) -> str:
    """A few points, for a message."""
    return f"{list(points[:8])}{f' and {len(points) - 8} more' if len(points) > 8 else ''}"  # noqa: PLR2004


def in_order(points: Iterable[Sequence[Any]]) -> list[tuple[int, float]]:
    """Points by step, and by value where it is the same."""
    return sorted(((step, value) for step, value in points), key=lambda point: (point[0], repr(point[1])))
