"""Pieces of a stream, and how much of them is under way."""

from __future__ import annotations

import json

from rolecall import Row
from rolecall_wandb.pieces import PIECE, UnderWay, pieces


def rows(count: int, key: str) -> list[Row]:
    return [
        Row(writer="trainer", session=1, seq=seq, step=seq, time=1.7e9, metrics={key: 0.5})
        for seq in range(1, count + 1)
    ]


def test_pieces_are_all_rows_in_order() -> None:
    given = rows(10, "k" * (PIECE // 3))
    found = list(pieces(given))
    assert [len(piece) for piece in found] == [3, 3, 3, 1]
    assert [row for piece in found for row in piece] == given


def test_keys_count_by_bytes_sent() -> None:
    latin, chinese = UnderWay(), UnderWay()
    latin.add(rows(1, "k" * 300))
    chinese.add(rows(1, "奖" * 100))
    assert latin.size == chinese.size > 300


def test_strings_count_by_json_sent() -> None:
    def size(text: str) -> int:
        under_way = UnderWay()
        row = Row(writer="trainer", session=1, seq=1, step=1, time=1.7e9, text={"note": text})
        under_way.add([row])
        return under_way.size

    for text in ("", "plain", "奖励", 'quo"te\n', "🙂", "\ud83d"):
        assert size(text) - size("") == len(json.dumps(text)) - 2


def test_bytes_under_way_are_the_unconfirmed() -> None:
    under_way = UnderWay()
    for piece in (rows(10, "loss")[:4], rows(10, "loss")[4:]):
        under_way.add(piece)
    whole = under_way.size
    under_way.drop(lambda row: row.seq <= 3)
    assert under_way.size == whole
    under_way.drop(lambda row: row.seq <= 9)
    assert under_way.size == whole * 6 // 10
    under_way.drop(lambda row: row.seq <= 10)
    assert under_way.size == 0


def test_nothing_is_under_way_without_sdk() -> None:
    under_way = UnderWay()
    under_way.add(rows(10, "loss"))
    under_way.clear()
    assert under_way.size == 0
