"""Lines of a file: written whole or told, read around whatever is damaged."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rolecall.store.codec
from rolecall.store.codec import (
    Damage,
    Frame,
    append_frame,
    encode,
    encode_packed,
    end_of_lines,
    first_frame,
    last_frame,
    read_frames,
    whole_lines,
)
from rolecall.store.files import open_own, put_whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
VALUES = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=8)
THREE = [{"n": 1, "text": "first"}, {"n": 2, "text": 'a "quoted" {brace'}, {"n": 3, "text": "last"}]

EXAMPLES = settings(deadline=None, max_examples=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "frames"


def written(data: bytes) -> Path:
    """A file of its own for each of hypothesis' examples."""
    descriptor, name = tempfile.mkstemp(prefix="frames-")
    with open(descriptor, "wb") as file:
        file.write(data)
    return Path(name)


def read(data: bytes, limit: int = 1 << 20) -> list[Frame | Damage]:
    """Everything in a file of these bytes, looked at piece by piece."""
    path = written(data)
    try:
        return list(_read_on(path, limit))
    finally:
        path.unlink()


def _read_on(path: Path, limit: int) -> Iterator[Frame | Damage]:
    offset = 0
    while found := list(read_frames(path, offset, limit)):
        yield from found
        offset = found[-1].end


def values(found: list[Frame | Damage]) -> list[dict[str, Any]]:
    return [one.value for one in found if isinstance(one, Frame)]


def damages(found: list[Frame | Damage]) -> list[Damage]:
    return [one for one in found if isinstance(one, Damage)]


def frame_of(payload: bytes) -> bytes:
    """A line whose checksum is right, whatever it holds."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def test_a_line_is_what_the_documentation_says() -> None:
    row = {"n": 1, "s": 1, "t": 1764000000.0, "m": {"loss": 0.5}}
    assert encode(row) == b'a65f2a42 {"n":1,"s":1,"t":1764000000.0,"m":{"loss":0.5}}\n'
    assert encode(row).decode() in (rolecall.store.codec.__doc__ or "")


@EXAMPLES
@given(VALUES, st.integers(1, 200))
def test_what_is_written_is_read_whatever_is_read_at_once(given: list[dict[str, Any]], limit: int) -> None:
    data = b"".join(map(encode, given))
    found = read(data, limit)
    # NaN is not equal to itself; its JSON is.
    assert json.dumps(values(found)) == json.dumps(given)
    assert [one.end for one in found][-1:] == [len(data)][: len(given)]


def test_special_floats_are_kept() -> None:
    back = values(read(encode({"x": [math.nan, math.inf, -math.inf, -0.0]})))[0]["x"]
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf, 0.0]
    assert math.copysign(1, back[3]) == -1


def test_a_last_line_without_newline_waits_until_it_has_one(path: Path) -> None:
    line = encode({"n": 2})
    path.write_bytes(encode({"n": 1}) + line[:-1])
    first = list(read_frames(path))
    assert values(first) == [{"n": 1}]
    assert not damages(first)
    with path.open("ab") as file:
        file.write(b"\n")
    assert values(list(read_frames(path, first[-1].end))) == [{"n": 2}]


@EXAMPLES
@given(st.integers(0, len(b"".join(map(encode, THREE)))))
def test_a_file_cut_anywhere_keeps_the_lines_before(cut: int) -> None:
    lines = list(map(encode, THREE))
    ends = [sum(map(len, lines[: count + 1])) for count in range(3)]
    found = read(b"".join(lines)[:cut])
    assert not damages(found)
    assert values(found) == [value for value, end in zip(THREE, ends, strict=True) if end <= cut]


@EXAMPLES
@given(st.data())
def test_one_changed_byte_costs_at_most_the_line_that_it_is_in(data: st.DataObject) -> None:
    """Lines follow: a null byte in the last one, or before it, may as well be of a line that is being stored."""
    behind = [{"n": 4, "text": "behind"}, {"n": 5, "text": "and one more"}]
    lines = list(map(encode, THREE))
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    found = read(whole[:place] + bytes([new]) + whole[place + 1 :] + b"".join(map(encode, behind)))
    hit = next(at for at in range(3) if place < sum(map(len, lines[: at + 1])))
    others = [value for at, value in enumerate(THREE) if at != hit] + behind
    assert [value for value in values(found) if value != THREE[hit]] == others
    assert all(value in [*THREE, *behind] for value in values(found))


def test_two_lines_without_the_newline_between_them_are_both_read() -> None:
    first, second = encode({"n": 1}), encode({"n": 2})
    found = read(first[:-1] + b"\x8a" + second + encode({"n": 3}))
    assert values(found) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [(one.offset, one.end) for one in found[:2]] == [
        (0, len(first)),
        (len(first), len(first) + len(second)),
    ]


@EXAMPLES
@given(st.integers(1, len(encode(THREE[1])) - 1))
def test_a_line_glued_to_a_torn_one_is_read(cut: int) -> None:
    torn = encode(THREE[1])[:cut]
    found = read(encode(THREE[0]) + torn + encode(THREE[2]))
    assert values(found) == [THREE[0], THREE[2]]
    assert len(damages(found)) == 1


@EXAMPLES
@given(st.text(st.sampled_from('0123456789abcdef {}":,\\\n'), max_size=60))
def test_no_part_of_a_sound_line_is_taken_for_a_line(text: str) -> None:
    inner = encode({"n": 9}).decode().strip()
    line = encode({"k": text, inner: inner, "l": [text + inner + text]})
    damaged = bytes([line[0] ^ 1]) + line[1:]
    assert values(read(damaged)) == []


@EXAMPLES
@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error_and_to_their_end(noise: bytes) -> None:
    sound = encode({"n": 1})
    found = read(noise + b"\n" + sound, limit=16)
    assert values(found)[-1] == {"n": 1}
    ends = [0, *(one.end for one in found)]
    assert all(one.offset >= end for one, end in zip(found, ends, strict=False))
    assert ends[-1] == len(noise) + 1 + len(sound)


@pytest.mark.parametrize(
    "payload",
    [
        b"[1]",
        b"1",
        b"",
        b"{",
        b'{"n": 1} {}',
        b"\xff\xfe{}",
        b'{"a":' * 100_000,
        b'{"n":' + b"1" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["list", "number", "empty", "cut", "two", "encoding", "open", "digits", "nested"],
)
def test_a_crafted_line_whose_checksum_is_right_is_damage(payload: bytes) -> None:
    line = frame_of(payload)
    found = read(encode({"n": 1}) + line + encode({"n": 2}))
    assert values(found) == [{"n": 1}, {"n": 2}]
    (damage,) = damages(found)
    assert damage.end - damage.offset == len(line)


def test_damage_says_file_and_offset(path: Path) -> None:
    first = encode({"n": 1})
    path.write_bytes(first + b"nonsense\n")
    (damage,) = damages(list(read_frames(path)))
    assert str(damage) == (
        f"{path}: 9 bytes at offset {len(first)} are damaged (its checksum does not match)"
    )


# ------------------------------------------------------------ lines that are stored through a map


ROOM = b"\0" * 5000
STORED = [encode({"n": at, "text": "x" * 100}) for at in range(1, 4)]


@pytest.mark.parametrize("limit", [1, 100, 200, 1 << 20])
def test_room_behind_the_last_line_is_no_line(path: Path, limit: int) -> None:
    path.write_bytes(b"".join(STORED) + ROOM)
    assert [frame["n"] for frame in values(list(_read_on(path, limit)))] == [1, 2, 3]
    assert (last_frame(path) or {}).get("n") == 3
    assert end_of_lines(path) == len(b"".join(STORED))
    assert whole_lines(path, end_of_lines(path)) == b""
    path.write_bytes(ROOM)
    assert list(_read_on(path, limit)) == []
    assert last_frame(path) is None
    assert end_of_lines(path) == 0


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
@pytest.mark.parametrize("room", [b"", ROOM])
@pytest.mark.parametrize("seen", ["its end", "its beginning", "its ends"])
def test_the_last_line_is_waited_for_until_no_byte_of_it_is_missing(
    path: Path, seen: str, room: bytes, limit: int
) -> None:
    """Stores may come to be seen in any order."""
    line = STORED[2]
    part = {
        "its end": b"\0" * 20 + line[20:],
        "its beginning": line[:20] + b"\0" * (len(line) - 20),
        "its ends": line[:20] + b"\0" * 20 + line[40:],
    }[seen]
    path.write_bytes(STORED[0] + STORED[1] + part + room)
    found = list(_read_on(path, limit))
    assert [frame["n"] for frame in values(found)] == [1, 2]
    path.write_bytes(b"".join(STORED) + room)
    assert [frame["n"] for frame in values(list(read_frames(path, found[-1].end)))] == [3]


def test_a_line_that_was_seen_before_the_one_in_front_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel copies page by page: what is stored meanwhile is seen in the pages that come later."""
    path.write_bytes(STORED[0] + b"\0" * len(STORED[1]) + STORED[2] + ROOM)
    look = rolecall.store.codec._lines_at

    def look_and_store(file: BinaryIO, offset: int, limit: int) -> bytes:
        seen = look(file, offset, limit)
        path.write_bytes(b"".join(STORED) + ROOM)
        return seen

    monkeypatch.setattr(rolecall.frames, "_lines_at", look_and_store)
    assert [frame["n"] for frame in values(list(read_frames(path)))] == [1, 2, 3]


def test_null_bytes_that_stay_are_damage_once_another_line_follows(path: Path) -> None:
    damaged = STORED[1][:20] + b"\0" * 20 + STORED[1][40:]
    path.write_bytes(STORED[0] + damaged + STORED[2] + ROOM)
    found = list(read_frames(path))
    assert [type(one) for one in found] == [Frame, Damage, Frame]


@EXAMPLES
@given(st.binary(max_size=200))
def test_what_was_packed_is_read_as_it_was(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(encode_packed(body))
        assert values(list(read_frames(path))) == [{"packed": body}]


def test_a_line_with_many_beginnings_does_not_hold_the_reader_up() -> None:
    began = time.monotonic()
    found = read(b"00000000 {" * 200_000 + b"\n" + encode({"n": 1}))
    assert values(found) == [{"n": 1}]
    assert time.monotonic() - began < 5


def test_a_line_longer_than_what_is_read_at_once(path: Path) -> None:
    long = {"n": 2, "text": "x" * 3_000_000}
    path.write_bytes(encode({"n": 1}) + encode(long) + encode({"n": 3}))
    assert values(list(_read_on(path, 1 << 20))) == [{"n": 1}, long, {"n": 3}]


def test_lines_behind_many_empty_ones_are_read(path: Path) -> None:
    path.write_bytes(encode({"n": 1}) + b"\n" * 3_000_000 + encode({"n": 2}))
    assert values(list(_read_on(path, 1 << 20))) == [{"n": 1}, {"n": 2}]


def test_the_first_frame_is_the_first_line_or_none(path: Path) -> None:
    assert first_frame(path) is None
    path.write_bytes(b"")
    assert first_frame(path) is None
    header = {"header": "x" * 500_000}
    path.write_bytes(encode(header) + encode({"n": 1}))
    assert first_frame(path) == header
    path.write_bytes(b"0" + encode(header) + encode({"n": 1}))
    assert first_frame(path) is None, "a row is no header"


@pytest.mark.parametrize("size", [0, 100, 65_000, 70_000, 3_000_000])
def test_the_last_frame_is_found_behind_lines_of_any_length(path: Path, size: int) -> None:
    last = {"n": 2, "text": "x" * size}
    path.write_bytes(encode({"n": 1}) * 100 + encode(last))
    assert last_frame(path) == last
    with path.open("ab") as file:
        file.write(b"damaged\n" + encode({"n": 3})[:-4])
    assert last_frame(path) == last


def test_there_may_be_no_last_frame(path: Path) -> None:
    assert last_frame(path) is None
    path.write_bytes(b"x" * 200_000 + b"\n")
    assert last_frame(path) is None


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop", "missing", "dangling"])
def test_what_is_no_file_holds_nothing_and_holds_no_reader_up(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.symlink_to({"device": Path("/dev/zero"), "loop": path, "dangling": path / "nowhere"}[kind])
    assert list(read_frames(path)) == []
    assert first_frame(path) is None
    assert last_frame(path) is None


def test_a_reader_changes_nothing(path: Path) -> None:
    path.write_bytes(encode({"n": 1}) + b"damaged\n" + encode({"n": 2})[:-3])
    os.utime(path, (1, 1))
    before = path.read_bytes()
    list(read_frames(path))
    first_frame(path)
    last_frame(path)
    assert path.read_bytes() == before
    assert path.stat().st_mtime == 1
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("cut", [1, 5, 9, -1])
def test_appending_closes_a_torn_line_off(path: Path, cut: int) -> None:
    path.write_bytes(encode({"n": 1}) + encode({"torn": True})[:cut])
    descriptor = open_own(path)
    try:
        append_frame(descriptor, {"n": 2})
        append_frame(descriptor, {"n": 3})
    finally:
        os.close(descriptor)
    found = list(read_frames(path))
    # With nothing but the newline gone, the line was whole.
    assert [value for value in values(found) if "n" in value] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert path.read_bytes().endswith(encode({"n": 2}) + encode({"n": 3}))


def test_appending_never_follows_a_symlink(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        open_own(path, create=True)
    assert precious.read_text() == "mine"


def test_putting_a_file_replaces_it_or_leaves_nothing_over(path: Path, tmp_path: Path) -> None:
    put_whole(path, b"old")
    put_whole(path, b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        put_whole(tmp_path / "folder", b"x")
    assert sorted(os.listdir(tmp_path)) == ["folder", "frames"]


@pytest.mark.parametrize(
    "value",
    [
        {"a": "\ud800 has no UTF-8"},
        {"é": "a line\nthat breaks\u2028twice"},
        {"big": 2**70, "small": -(2**70), "5": 5e-324, "exact": 0.1 + 0.2, "minus": -0.0},
        {"nested": {"in": [1, [2, {"three": None}], True]}},
    ],
)
def test_what_is_hard_to_encode_is_read_as_it_was(value: dict[str, Any]) -> None:
    data = encode(value)
    assert data.count(b"\n") == 1
    assert values(read(data)) == [value]
