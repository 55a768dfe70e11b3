"""A packed row read at once, in C, and by decoding its line: one and the same, whatever the line is."""

from __future__ import annotations

import math
import struct
import sys
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.delivery.keys import AS_IT_IS, Placement
from rolecall.store import packed
from rolecall.store.codec import Frame, decode_line, encode_packed
from rolecall.store.packed import Forms, Told, Unpacker

FINITE = st.integers(-(2**63), 2**63 - 1)
METRICS = st.dictionaries(st.text(min_size=1), st.floats() | FINITE, min_size=1, max_size=40)
PLACEMENTS = [AS_IT_IS, Placement.shared("explorer/0", declares_axes=True), Placement.shared("t", False)]
compiled = pytest.mark.skipif(packed._unpack is packed._unpack_none, reason="it was not built")


def line_of(
    metrics: Mapping[str, float], *, seq: int = 3, time: float = 1764000000.0, step: int = 7
) -> bytes:
    """The line of a packed row, after two at the offsets 100 and 200."""
    forms = Forms()
    forms.learn(metrics, 100)
    form = forms.learn(metrics, 200)
    assert form is not None
    return form.frame(seq, time, step, [*metrics.values()])[:-1]


def unpacker(metrics: Mapping[str, float], placement: Placement = AS_IT_IS) -> Unpacker:
    return Unpacker(lambda place: metrics if place in {100, 200} else None, placement)


def decoded(line: bytes, reader: Unpacker) -> Told | None:
    """As Python reads it; `None` if there is no row in it."""
    found = decode_line(Path("1.jsonl"), line, 0)
    body = found.value.get("packed") if isinstance(found, Frame) else None
    try:
        return reader.unpack(body) if isinstance(body, bytes) else None
    except ValueError:
        return None


def ready(metrics: Mapping[str, float], placement: Placement = AS_IT_IS) -> Unpacker:
    """One that has read a row of this form before."""
    reader = unpacker(metrics, placement)
    assert decoded(line_of(metrics), reader) is not None
    return reader


@compiled
@pytest.mark.parametrize("placement", PLACEMENTS)
@given(metrics=METRICS, seq=FINITE, step=FINITE, time=st.floats(allow_nan=False, allow_infinity=False))
def test_it_is_what_decoding_finds(
    placement: Placement, metrics: dict[str, float], seq: int, step: int, time: float
) -> None:
    reader = ready(metrics, placement)
    line = line_of(metrics, seq=seq, time=time, step=step)
    told = reader.unpack_line(line)
    assert told is not None
    assert repr(told) == repr(decoded(line, reader))  # which knows NaN, -0.0 and 1 from 1.0


@compiled
def test_of_very_many_keys() -> None:
    metrics = {f"key/{at}": at / 7 if at % 3 else at for at in range(5000)}
    reader = ready(metrics)
    told = reader.unpack_line(line_of(metrics))
    assert told is not None
    assert [*told[3].items()] == [*metrics.items()]


@compiled
def test_a_row_whose_form_was_not_read_yet_is_to_be_decoded_first() -> None:
    metrics = {"loss": 0.5}
    reader, line = unpacker(metrics), line_of(metrics)
    assert reader.unpack_line(line) is None
    assert decoded(line, reader) == (3, 7, 1764000000.0, metrics)
    assert reader.unpack_line(line) == (3, 7, 1764000000.0, metrics)


@compiled
def test_a_line_with_any_other_byte_says_nothing() -> None:
    metrics = {"loss": 0.5, "n": 3, "reward/mean": -1.25}
    reader, line = ready(metrics), line_of(metrics)
    for at in range(len(line)):
        for byte in range(256):
            changed = line[:at] + bytes([byte]) + line[at + 1 :]
            assert (reader.unpack_line(changed) is None) == (changed != line)
    for end in range(len(line)):
        assert reader.unpack_line(line[:end]) is None
        assert reader.unpack_line(line[end + 1 :]) is None


@compiled
@given(payload=st.binary(max_size=80), beginning=st.binary(max_size=48), kept=st.integers(0, 68))
def test_a_line_that_checks_is_read_as_it_is_decoded_or_not_at_all(
    payload: bytes, beginning: bytes, kept: int
) -> None:
    metrics = {"loss": 0.5, "n": 3, "reward/mean": -1.25}
    reader = ready(metrics)
    body = a2b_base64(line_of(metrics)[9:])[:kept] + beginning
    for text in (payload, b2a_base64(body, newline=False), b2a_base64(body, newline=False) + payload):
        line = b"%08x=%b" % (crc32(text), text)
        told = reader.unpack_line(line)
        assert told is None or repr(told) == repr(decoded(line, reader))


@compiled
@pytest.mark.parametrize(
    "text", [b"", b"=", b"==", b"===", b"====", b"A===", b"AA==", b"AAA=", b"AAB=", b"A=AA"]
)
def test_payloads_of_which_no_row_is_made(text: bytes) -> None:
    assert ready({"loss": 0.5}).unpack_line(b"%08x=%b" % (crc32(text), text)) is None


@compiled
def test_bits_behind_the_last_byte_are_left_to_python() -> None:
    """No writer sets them; Python's base64 does not look at them."""
    metrics = {"loss": 0.5}
    reader, line = ready(metrics), line_of(metrics)
    pads = line.count(b"=") - 1
    last = line[-1 - pads]
    text = line[9 : -1 - pads] + bytes([last + 1]) + b"=" * pads
    changed = b"%08x=%b" % (crc32(text), text)
    assert reader.unpack_line(changed) is None
    assert decoded(changed, reader) == decoded(line, reader)


@compiled
@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_finite_is_damage_for_python_to_tell(time: float) -> None:
    metrics = {"loss": 0.5}
    assert ready(metrics).unpack_line(line_of(metrics, time=time)) is None


@compiled
def test_a_row_with_more_or_fewer_values_than_its_form_is_none() -> None:
    metrics = {"loss": 0.5, "n": 3}
    reader, body = ready(metrics), a2b_base64(line_of(metrics)[9:])
    for wrong in (body[:-8], body[:-1], body + b"\0", body + bytes(8), body[:44], body[:43], body[:24]):
        assert reader.unpack_line(encode_packed(wrong)[:-1]) is None


@compiled
@pytest.mark.parametrize(
    "given",
    [
        (),
        (b"", {}),
        ("no bytes", {}, None),
        (bytearray(9), {}, None),
        (b"", [], None),
        (b"", {}, None, None),
    ],
)
def test_it_takes_nothing_else(given: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match="unpack takes a line"):
        packed._unpack(*given)  # type: ignore[arg-type]


@compiled
def test_a_form_that_is_none_is_told() -> None:
    metrics = {"loss": 0.5}
    line = line_of(metrics)
    named = a2b_base64(line[9:])[24:44]
    for form in (("loss",), (("loss",), b"dd", None), (["loss"], b"d", None), (("loss",), "d", None)):
        with pytest.raises((TypeError, ValueError)):
            packed._unpack(line, {named: form}, None)  # type: ignore[dict-item]


@compiled
def test_it_keeps_nothing_alive() -> None:
    key, axis = (word.decode() for word in (b"loss", b"step"))
    letters = bytes(bytearray(b"d"))
    line = line_of({"loss": 0.5}, step=1 << 40)
    named = a2b_base64(line[9:])[24:44]
    forms = {named: packed._Known((key,), letters, struct.Struct("<d"))}
    watched = (key, letters, axis, named, forms[named], line, None)
    before = [sys.getrefcount(one) for one in watched]
    for _ in range(1000):
        assert packed._unpack(line, forms, axis) == (3, 1 << 40, 1764000000.0, {"loss": 0.5, "step": 1 << 40})
        assert packed._unpack(line, {}, axis) is None
        assert packed._unpack(line[:-4], forms, axis) is None
    after = [sys.getrefcount(one) for one in watched]
    assert [now - then for now, then in zip(after[:-1], before[:-1], strict=True)] == [0] * 6
    assert abs(after[-1] - before[-1]) < 50


def test_without_it_nothing_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_unpack", packed._unpack_none)
    metrics = {"loss": 0.5}
    reader, line = ready(metrics), line_of(metrics)
    assert reader.unpack_line(line) is None
    assert decoded(line, reader) == (3, 7, 1764000000.0, metrics)
