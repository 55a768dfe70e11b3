"""Lines of a file: written whole or reported, read around whatever is damaged."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rolecall.store.codec
from rolecall.store.codec import (
    Damage,
    Line,
    append_line,
    decode,
    encode,
    end_of_lines,
    first_line,
    last_line,
    lines_from_end,
    open_own,
    put_whole,
    read_lines,
    seal,
    whole_lines,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), 1 << 64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=8,
)
VALUES = st.lists(st.fixed_dictionaries({"seq": JSON, "data": JSON}), max_size=8)
THREE = [{"seq": 1, "text": "first"}, {"seq": 2, "text": 'a "quoted" {brace and {"seq":2'}, {"seq": 3, "text": "last"}]

EXAMPLES = settings(deadline=None, max_examples=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


def read(data: bytes, limit: int = 1 << 20) -> list[Line | Damage]:
    """Everything in a file of these bytes, looked at piece by piece."""
    # A file of its own for each of hypothesis' examples.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lines")
        path.write_bytes(data)
        return list(read_on(path, limit))


def read_on(path: Path, limit: int) -> Iterator[Line | Damage]:
    offset = 0
    while found := list(read_lines(path, offset, limit)):
        yield from found
        offset = found[-1].end


def values(found: list[Line | Damage]) -> list[dict[str, Any]]:
    return [line.value for line in found if isinstance(line, Line)]


def damages(found: list[Line | Damage]) -> list[Damage]:
    return [damage for damage in found if isinstance(damage, Damage)]


# ---------------------------------------------------------------- the format


def test_lines_are_as_documented() -> None:
    row = {"seq": 1, "step": 1, "time": 1764000000.5, "data": {"loss": 0.5}}
    line = encode(row)
    assert line == b'{"seq":1,"step":1,"time":1764000000.5,"data":{"loss":0.5},"sum":"23075f93"}\n'
    documented = {**row, "sum": "23075f93"}
    assert json.dumps(documented) in (rolecall.store.codec.__doc__ or "")
    assert json.loads(line) == documented
    assert decode(line[:-1]) == row


@EXAMPLES
@given(VALUES, st.integers(1, 200))
def test_written_values_are_read_back(given: list[dict[str, Any]], limit: int) -> None:
    """Whatever they are, and however much is read at once."""
    data = b"".join(map(encode, given))
    found = read(data, limit)
    assert json.dumps(values(found)) == json.dumps(given)
    assert [line.end for line in found][-1:] == [len(data)][: len(given)]


@EXAMPLES
@given(VALUES)
def test_standard_json_reads_every_line(given: list[dict[str, Any]]) -> None:
    lines = b"".join(map(encode, given)).splitlines()
    back = [json.loads(line) for line in lines]
    assert [{**value, "sum": line["sum"]} for value, line in zip(given, back, strict=True)] == back


def test_non_finite_numbers_are_strings() -> None:
    line = encode({"x": [math.nan, math.inf, -math.inf, -0.0]})
    back = json.loads(line, parse_constant=pytest.fail)["x"]
    assert back == ["NaN", "Infinity", "-Infinity", 0.0]
    assert math.copysign(1, back[3]) == -1


@pytest.mark.parametrize(
    "value",
    [
        {"é": "a line\nthat breaks\u2028twice"},
        {"big": 2**70, "small": -(2**70), "tiny": 5e-324, "exact": 0.1 + 0.2, "minus": -0.0},
        {"nested": {"in": [1, [2, {"three": None}], True]}},
        {"nul": "\x00", "sum": "mine"},
    ],
    ids=["text", "numbers", "nested", "odd"],
)
def test_hard_values_are_read_back(value: dict[str, Any]) -> None:
    data = encode(value)
    assert data.count(b"\n") == 1
    assert values(read(data)) == [value]


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"\ud800": 1}, {"a": object()}], ids=range(3))
def test_unfit_values_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="serializ"):
        encode(value)


def test_another_journals_line_is_damage(path: Path) -> None:
    path.write_bytes(encode({"seq": 1}, seed=1) + encode({"seq": 2}, seed=2))
    for seed in (1, 2):
        found = list(read_lines(path, seed=seed))
        assert values(found) == [{"seq": seed}]
        assert len(damages(found)) == 1
        assert last_line(path, seed) == {"seq": seed}
    assert first_line(path, 1) == {"seq": 1}
    assert first_line(path, 2) is None


# ------------------------------------------------------------- torn, damaged


def test_unfinished_last_line_waits(path: Path) -> None:
    line = encode({"seq": 2})
    path.write_bytes(encode({"seq": 1}) + line[:-1])
    first = list(read_lines(path))
    assert values(first) == [{"seq": 1}]
    assert not damages(first)
    with path.open("ab") as file:
        file.write(b"\n")
    assert values(list(read_lines(path, first[-1].end))) == [{"seq": 2}]


@EXAMPLES
@given(st.integers(0, len(b"".join(map(encode, THREE)))))
def test_cut_file_keeps_earlier_lines(cut: int) -> None:
    lines = list(map(encode, THREE))
    ends = [sum(map(len, lines[: count + 1])) for count in range(3)]
    found = read(b"".join(lines)[:cut])
    assert not damages(found)
    assert values(found) == [value for value, end in zip(THREE, ends, strict=True) if end <= cut]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_byte_costs_its_line(data: st.DataObject) -> None:
    lines = list(map(encode, THREE))
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw((st.sampled_from(b'\n\x00 {}"09af\xff') | st.integers(0, 255)).filter(whole[place].__ne__))
    found = read(whole[:place] + bytes([new]) + whole[place + 1 :] + encode({"seq": 4}))
    hit = next(at for at in range(3) if place < sum(map(len, lines[: at + 1])))
    others = [value for at, value in enumerate(THREE) if at != hit] + [{"seq": 4}]
    assert [value for value in values(found) if value != THREE[hit]] == others
    assert all(value in [*THREE, {"seq": 4}] for value in values(found)), "damage is never read as a line"


def test_damaged_newline_costs_one_line() -> None:
    first, second, third = (encode({"seq": seq}) for seq in (1, 2, 3))
    found = read(first[:-1] + b"\x8a" + second + third)
    assert values(found) == [{"seq": 2}, {"seq": 3}]
    (damage,) = damages(found)
    assert (damage.offset, damage.end) == (0, len(first))


@EXAMPLES
@given(st.integers(1, len(encode(THREE[1])) - 1))
def test_line_glued_to_torn_one(cut: int) -> None:
    """It is read."""
    found = read(encode(THREE[0]) + encode(THREE[1])[:cut] + encode(THREE[2]))
    assert values(found) == [THREE[0], THREE[2]]
    assert len(damages(found)) == 1


@EXAMPLES
@given(st.text(st.sampled_from('0123456789abcdef {}":,\\\n'), max_size=60))
def test_strings_hide_no_line(text: str) -> None:
    """No part of a sound line is taken for a line, whatever strings it holds."""
    inner = encode({"seq": 9}).decode().strip()
    line = encode({"k": text, inner: inner, "l": [text + inner + text]})
    damaged = bytes([line[0] ^ 1]) + line[1:]
    assert values(read(damaged)) == []


@EXAMPLES
@given(st.binary(max_size=400))
def test_any_bytes_are_read_through(noise: bytes) -> None:
    sound = encode({"seq": 1})
    found = read(noise + b"\n" + sound, limit=16)
    assert values(found)[-1] == {"seq": 1}
    ends = [0, *(line.end for line in found)]
    assert all(line.offset >= end for line, end in zip(found, ends, strict=False))
    assert ends[-1] == len(noise) + 1 + len(sound)


@pytest.mark.parametrize(
    "payload",
    [
        b"[1]",
        b"[1}",
        b"1}",
        b"}",
        b'{"n":}',
        b'{"n": 1} {}',
        b"\xff\xfe{}",
        b'{"a":"\\ud800"}',
        b'{"a":' * 100_000 + b"}",
        b'{"n":' + b"1" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["list", "bracket", "number", "empty", "cut", "two", "encoding", "surrogate", "open", "digits", "nested"],
)
def test_crafted_line_is_damage(payload: bytes) -> None:
    """Although its checksum is right."""
    line = seal(payload, 0)
    found = read(encode({"seq": 1}) + line + encode({"seq": 2}))
    assert values(found) == [{"seq": 1}, {"seq": 2}]
    (damage,) = damages(found)
    assert damage.end - damage.offset == len(line)


def test_damage_names_file_and_offset(path: Path) -> None:
    first = encode({"seq": 1})
    path.write_bytes(first + b"nonsense\n")
    (damage,) = damages(list(read_lines(path)))
    assert str(damage) == (f"{path}: 9 bytes at offset {len(first)} are damaged (its checksum does not match)")
    lost = Damage(path, 0, 9, "torn", "row 7 is lost")
    assert str(lost) == f"{path}: 9 bytes at offset 0 are damaged (torn; row 7 is lost)"


def test_many_starts_hold_nobody_up() -> None:
    began = time.monotonic()
    found = read(b'{"seq":' * 200_000 + b"\n" + encode({"seq": 1}))
    assert values(found) == [{"seq": 1}]
    assert time.monotonic() - began < 5


# ------------------------------------------------------- pieces, first, last


def test_lines_longer_than_one_read(path: Path) -> None:
    long = {"seq": 2, "text": "x" * 3_000_000}
    path.write_bytes(encode({"seq": 1}) + encode(long) + encode({"seq": 3}))
    assert values(list(read_on(path, 1 << 20))) == [{"seq": 1}, long, {"seq": 3}]


def test_empty_lines_hide_nothing(path: Path) -> None:
    path.write_bytes(encode({"seq": 1}) + b"\n" * 3_000_000 + encode({"seq": 2}))
    assert values(list(read_on(path, 1 << 20))) == [{"seq": 1}, {"seq": 2}]


def test_first_line_or_none(path: Path) -> None:
    assert first_line(path) is None
    path.write_bytes(b"")
    assert first_line(path) is None
    header = {"rolecall": 2, "text": "x" * 500_000}
    path.write_bytes(encode(header) + encode({"seq": 1}))
    assert first_line(path) == header
    path.write_bytes(b"0" + encode(header)[:-5] + b"\n" + encode({"seq": 1}))
    assert first_line(path) is None, "a row is no header"


@pytest.mark.parametrize("size", [0, 100, 8_000, 8_192, 70_000, 3_000_000])
def test_last_line_of_any_length(path: Path, size: int) -> None:
    last = {"seq": 2, "text": "x" * size}
    path.write_bytes(encode({"seq": 1}) * 100 + encode(last))
    assert last_line(path) == last
    assert end_of_lines(path) == path.stat().st_size
    with path.open("ab") as file:
        file.write(b"damaged\n" + encode({"seq": 3})[:-4])
    assert last_line(path) == last
    assert end_of_lines(path) == path.stat().st_size - len(encode({"seq": 3})[:-4])


def test_no_last_line(path: Path) -> None:
    assert last_line(path) is None
    assert end_of_lines(path) == 0
    path.write_bytes(b"x" * 200_000 + b"\n")
    assert last_line(path) is None
    path.write_bytes(b"x" * 200_000)
    assert end_of_lines(path) == 0


@EXAMPLES
@given(st.lists(st.integers(0, 3000), max_size=40), st.binary(max_size=50))
def test_lines_come_backwards_once(sizes: list[int], noise: bytes) -> None:
    """Each line once, although reads further back overlap."""
    given = [{"seq": seq, "text": "x" * size} for seq, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lines")
        path.write_bytes(noise + b"\n" + b"".join(map(encode, given)))
        assert list(lines_from_end(path)) == given[::-1]


def test_only_the_end_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(encode({"seq": 1, "text": "x" * 100}) * 10_000)
    offsets: list[int] = []
    look = rolecall.store.codec._read_data

    def record(descriptor: int, start: int, stop: int) -> bytes:
        offsets.append(start)
        return look(descriptor, start, stop)

    monkeypatch.setattr(rolecall.store.codec, "_read_data", record)
    last_line(path)
    end_of_lines(path)
    assert min(offsets) >= path.stat().st_size - (1 << 13)


def test_whole_lines_end_with_newline(path: Path) -> None:
    first, second = encode({"seq": 1}), encode({"seq": 2})
    path.write_bytes(first + second + b"torn")
    assert whole_lines(path) == first + second
    assert whole_lines(path, 0, 1) == first
    assert whole_lines(path, len(first)) == second
    assert whole_lines(path, len(first + second)) == b""
    assert whole_lines(path, 10_000) == b""


# ----------------------------------------------------------- other than files


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop", "missing", "dangling"])
def test_other_than_files_hold_nothing(path: Path, kind: str) -> None:
    """And hold no reader up."""
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.symlink_to({"device": Path("/dev/zero"), "loop": path, "dangling": path / "nowhere"}[kind])
    assert list(read_lines(path)) == []
    assert first_line(path) is None
    assert last_line(path) is None
    assert end_of_lines(path) == 0


def test_readers_write_nothing(path: Path) -> None:
    path.write_bytes(encode({"seq": 1}) + b"damaged\n" + encode({"seq": 2})[:-3])
    os.utime(path, (1, 1))
    before = path.read_bytes()
    list(read_lines(path))
    first_line(path)
    last_line(path)
    end_of_lines(path)
    assert path.read_bytes() == before
    assert path.stat().st_mtime == 1
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("cut", [1, 5, 9, -1])
def test_appending_closes_torn_lines(path: Path, cut: int) -> None:
    path.write_bytes(encode({"seq": 1}) + encode({"torn": True})[:cut])
    descriptor = open_own(path)
    try:
        append_line(descriptor, {"seq": 2})
        append_line(descriptor, {"seq": 3})
    finally:
        os.close(descriptor)
    found = list(read_lines(path))
    # With nothing but the newline gone, the line was whole.
    assert [value for value in values(found) if "seq" in value] == [{"seq": 1}, {"seq": 2}, {"seq": 3}]
    assert path.read_bytes().endswith(b"\n" + encode({"seq": 2}) + encode({"seq": 3}))


def test_appending_follows_no_symlink(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        open_own(path, create=True)
    assert precious.read_text() == "mine"


def test_files_are_replaced_whole(path: Path, tmp_path: Path) -> None:
    """Or not at all, and nothing is left over."""
    put_whole(path, b"old")
    put_whole(path, b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        put_whole(tmp_path / "folder", b"x")
    assert sorted(os.listdir(tmp_path)) == ["folder", "lines"]
