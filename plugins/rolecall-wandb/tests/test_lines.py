"""Lines of a shared run: which rows become one, and what the server's counts and lines say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rolecall import Row
from rolecall_wandb.lines import HandedOver, Line, Ranges, find

AXIS = "trainer/step"
FIRST, SECOND = "_rolecall/trainer/1", "_rolecall/trainer/1b"


def row(seq: int, step: int, *keys: str) -> Row:
    metrics = {AXIS: step, **dict.fromkeys(keys, 0.5)}
    return Row(writer="trainer", session=1, seq=seq, step=step, time=1.7e9 + seq, metrics=metrics)


def ranges(*pairs: tuple[int, int]) -> Ranges:
    made = Ranges()
    for first, last in pairs:
        made.add(first, last)
    return made


@pytest.mark.parametrize(
    ("pairs", "merged"),
    [
        ([], []),
        ([(1, 1), (2, 2), (3, 5)], [(1, 5)]),
        ([(5, 6), (1, 2)], [(1, 2), (5, 6)]),
        ([(1, 2), (5, 6), (3, 4)], [(1, 6)]),
        ([(1, 2), (5, 6), (9, 9), (2, 7)], [(1, 7), (9, 9)]),
        ([(4, 6), (1, 9)], [(1, 9)]),
        ([(1, 9), (4, 6)], [(1, 9)]),
    ],
)
def test_ranges_merge(pairs: list[tuple[int, int]], merged: list[tuple[int, int]]) -> None:
    assert [*ranges(*pairs)] == merged


@pytest.mark.parametrize(
    ("inner", "covered"),
    [([], True), ([(1, 4)], True), ([(2, 3), (8, 9)], True), ([(4, 5)], False), ([(5, 7)], False), ([(10, 10)], False)],
)
def test_ranges_cover(inner: list[tuple[int, int]], covered: bool) -> None:
    assert ranges((1, 4), (8, 9)).cover(ranges(*inner)) is covered


def test_rows_of_one_step_are_one_line() -> None:
    line = Line.of(row(1, 7, "loss"))
    assert line.takes(row(2, 7, "reward"), {AXIS})
    line.add(row(2, 7, "reward"), {"samples": "table"})
    assert line.values == {AXIS: 7, "loss": 0.5, "reward": 0.5, "samples": "table"}
    assert (line.first, line.last.seq) == (1, 2)


@pytest.mark.parametrize(
    "other",
    [
        row(2, 8, "reward"),
        row(2, 7, "loss"),
        row(3, 7, "reward"),
        replace(row(2, 7, "reward"), axis="eval"),
        replace(row(2, 7), text={"loss": "text"}),
    ],
    ids=["another step", "a key again", "a row between is missing", "another axis", "a string of the same key"],
)
def test_other_rows_start_a_line(other: Row) -> None:
    assert not Line.of(row(1, 7, "loss")).takes(other, {AXIS})


def test_table_of_a_key_of_the_line_starts_a_line() -> None:
    line = Line.of(row(1, 7, "loss"))
    assert not line.takes(row(2, 7), {AXIS}, ["loss"])
    assert line.takes(row(2, 7), {AXIS}, ["samples"])


class Sent:
    """Lines of one row that a session hands over, and what a server that holds some of them counts."""

    def __init__(self) -> None:
        self.handed = HandedOver("trainer", 1)
        self.lines: dict[int, dict[str, int]] = {}

    def send(self, *seqs: int) -> None:
        for seq in seqs:
            line = Line.of(row(seq, seq, "loss"))
            self.lines[seq] = self.handed.marks(line)
            self.handed.add(line)

    def counts(self, *held: int) -> dict[str, int]:
        keys = [key for seq in held for key in self.lines[seq]]
        return {key: keys.count(key) for key in keys}


def test_all_that_was_handed_over_is_held() -> None:
    sent = Sent()
    sent.send(1, 2, 3)
    assert (sent.handed.confirmed, sent.handed.is_waiting) == (0, True)
    assert sent.handed.learn(sent.counts(1, 2, 3))
    assert (sent.handed.confirmed, sent.handed.is_waiting) == (3, False)


def test_stream_that_never_pauses_is_confirmed() -> None:
    sent, confirmed = Sent(), []
    for seq in range(1, 100):
        sent.send(seq)
        if seq % 5 == 0:  # the server is three lines behind
            sent.handed.learn(sent.counts(*range(1, seq - 2)))
            confirmed.append(sent.handed.confirmed)
    assert confirmed[:4] == [0, 5, 10, 15]
    assert confirmed[-1] == 90


def test_later_lines_confirm_no_dropped_ones() -> None:
    """Lines 3 and 4 were dropped; as many later ones make up for them in every count but that of their window."""
    sent = Sent()
    sent.send(1, 2, 3, 4)
    sent.handed.learn(sent.counts(1, 2))
    sent.send(5, 6, 7, 8)
    late = sent.counts(1, 2, 5, 6, 7, 8)
    assert [sent.handed.learn(late), sent.handed.are_lost(late)] == [True, False]
    assert sent.handed.confirmed == 0
    assert [sent.handed.learn(late), sent.handed.are_lost(late)] == [False, True]
    assert sent.handed.confirmed == 0


def test_server_that_shows_lines_late_lost_none() -> None:
    sent = Sent()
    sent.send(1, 2)
    sent.handed.learn(sent.counts(1))
    sent.send(3)
    assert not sent.handed.are_lost(sent.counts(1, 3))
    sent.handed.learn(sent.counts(1, 2, 3))
    assert not sent.handed.are_lost(sent.counts(1, 2, 3))
    assert sent.handed.confirmed == 3


def test_doubled_line_vouches_for_no_other() -> None:
    sent = Sent()
    sent.send(1, 2)
    sent.handed.learn({FIRST: 3})
    assert sent.handed.confirmed == 0


def test_what_was_read_back_counts_alone() -> None:
    sent = Sent()
    sent.send(*range(1, 10))
    lines = [{"_step": seq, AXIS: seq, **sent.lines[seq]} for seq in (1, 2, 6, 7, 8)]
    found = find(lines, [("trainer", 1)])
    sent.handed.restart(found, ("trainer", 1))
    assert [*sent.handed.rows] == [(1, 2), (6, 8)]
    sent.send(3, 4, 5, 9)
    assert sent.handed.confirmed == 2
    sent.handed.learn({FIRST: 9})
    assert (sent.handed.confirmed, [*sent.handed.held]) == (9, [(1, 9)])


def test_lines_read_back_tell_their_rows() -> None:
    lines: list[dict[str, Any]] = [
        {FIRST: 3, "_rolecall/rows": 3},
        {SECOND: 4},
        {"_rolecall/trainer/2": 1},
        {"_rolecall/explorer/0/1": 7, "_rolecall/rows": 2},
        {"trainer/loss": 0.5},
        {FIRST: "9", SECOND: None},
    ]
    found = find(lines, [("trainer", 1), ("explorer/0", 1)])
    assert {session: [*rows] for session, rows in found.rows.items()} == {
        ("trainer", 1): [(1, 4)],
        ("explorer/0", 1): [(6, 7)],
    }
    assert found.counts == {FIRST: 1, SECOND: 1, "_rolecall/explorer/0/1": 1}


def test_lines_say_how_many_rows_they_have() -> None:
    handed = HandedOver("trainer", 1)
    line = Line.of(row(4, 7, "loss"))
    line.add(row(5, 7, "reward"))
    assert handed.marks(line) == {FIRST: 5, "_rolecall/rows": 2}
    handed.add(line)
    assert [*handed.rows] == [(4, 5)]
