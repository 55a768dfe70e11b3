"""Two bags of points are compared: what is missing, extra, or has another value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from rolecall import Point
from rolecall.delivery.check.points import Difference, PointTable, Side

Triple = tuple[str, int, float]


def compare(
    wanted: Iterable[tuple[str, Point]], held: Iterable[tuple[str, Point]], allowed: Iterable[tuple[str, Point]] = ()
) -> list[Difference]:
    with PointTable() as table:
        for side, points in ((Side.HELD, held), (Side.WANTED, wanted), (Side.ALLOWED, allowed)):
            table.add((side, key, point) for key, point in points)
        return list(table.differences())


def loss(step: int, value: float, time: float = 0.0) -> tuple[str, Point]:
    return "loss", Point(step, value, time)


def test_equal_bags_do_not_differ() -> None:
    """In whatever order; NaN is NaN, and an int the float of the same size."""
    points = [loss(1, 0.5), loss(2, math.nan), loss(3, math.inf), loss(3, -math.inf), loss(4, 2**62)]
    assert compare(points, reversed(points)) == []
    assert compare([loss(1, 1)], [loss(1, 1.0, 5.0)]) == []


def test_each_kind_of_difference() -> None:
    found = compare([loss(1, 1.0), loss(2, 2.0), loss(3, math.nan)], [loss(2, 7.0), loss(3, math.nan), loss(4, 4.0)])
    assert found == [
        Difference("missing", "loss", 1, 1.0, None),
        Difference("different", "loss", 2, 2.0, 7.0),
        Difference("extra", "loss", 4, None, 4.0),
    ]


def test_doubled_point_is_extra() -> None:
    assert compare([loss(1, 1.0)], [loss(1, 1.0), loss(1, 1.0)]) == [Difference("extra", "loss", 1, None, 1.0)]


def test_altered_point_has_the_same_time() -> None:
    """Of several at one step."""
    wanted = [loss(0, value, value) for value in (1.0, 2.0, 3.0)]
    assert compare(wanted, [loss(0, 9.0, 2.0), loss(0, 3.0, 3.0)]) == [
        Difference("different", "loss", 0, 2.0, 9.0),
        Difference("missing", "loss", 0, 1.0, None),
    ]


def test_point_on_its_way_is_not_extra() -> None:
    """Whether or not the backend keeps its time."""
    assert compare([], [loss(1, 1.0, 5.0)], [loss(1, 1.0, 5.0)]) == []
    assert compare([], [loss(1, 1.0, 6.0)], [loss(1, 1.0, 5.0)]) == []
    assert compare([], [], [loss(1, 1.0)]) == []
    assert [each.kind for each in compare([], [loss(1, 1.0), loss(1, 1.0)], [loss(1, 1.0)])] == ["extra"]


def test_missing_points_are_taken_once() -> None:
    with PointTable() as table:
        points = [loss(1, 1.0, 1.0), loss(1, 1.0, 2.0), loss(1, math.nan, 3.0)]
        table.add((Side.WANTED, key, point) for key, point in points)
        table.add([(Side.HELD, *loss(1, 1.0, 2.0))])
        assert len(list(table.differences())) == 2
        taken = [table.take(key, point) for key, point in points * 2]
    assert taken == [True, False, True, False, False, False]


TRIPLES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([0.0, 1.0, math.inf])))


@given(TRIPLES, TRIPLES)
def test_counts_are_those_of_multisets(wanted: list[Triple], held: list[Triple]) -> None:
    def points(triples: list[Triple]) -> Iterable[tuple[str, Point]]:
        return ((key, Point(step, value, 0.0)) for key, step, value in triples)

    found = compare(points(wanted), points(held))
    missing = Counter((each.key, each.step, each.wanted) for each in found if each.wanted is not None)
    extra = Counter((each.key, each.step, each.held) for each in found if each.held is not None)
    assert missing == Counter(wanted) - Counter(held)
    assert extra == Counter(held) - Counter(wanted)
    unpaired = {(each.key, each.step, each.kind) for each in found}
    assert not [one for one in unpaired if one[2] == "missing" and (*one[:2], "extra") in unpaired]
