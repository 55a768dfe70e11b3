"""The next line of a map: in C and in Python, one and the same."""

from __future__ import annotations

import math
import mmap
import os
import shlex
import shutil
import struct
import sys
import sysconfig
import time
import types
import weakref
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.store.compiled import speedups
from rolecall.store.packed import Form, Forms
from rolecall.store.rowstore import CompiledStore, PlainStore, Store

SIZE = 1 << 16
MAKERS: list[Callable[[], Store]] = [PlainStore, *([] if CompiledStore is None else [CompiledStore])]
compiled = pytest.mark.skipif(CompiledStore is None, reason="it was not built")


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest) -> Store:
    return opened(request.param(), mmap.mmap(-1, SIZE))


def opened(store: Store, pages: mmap.mmap) -> Store:
    store.open(pages, 0)
    store.since, store.until = 0.0, math.inf
    return store


def quick(*rows: Mapping[str, float]) -> tuple[Store, mmap.mmap, list[Form]]:
    """A compiled store that expects rows like these, its pages and their forms."""
    assert CompiledStore is not None
    pages = mmap.mmap(-1, SIZE)
    store = opened(CompiledStore(), pages)
    return store, pages, [expect(store, row) for row in rows]


def expect(store: Store, row: Mapping[str, float]) -> Form:
    forms = Forms()
    forms.learn(row, 1)
    form = forms.learn(row, 2)
    assert form is not None
    store.expect(form.names, form.letters, form.named)
    return form


def stored(store: Store, pages: mmap.mmap) -> bytes:
    return pages[: store.end]


# ------------------------------------------------------------------ put


def test_lines_are_numbered_and_stored_one_behind_the_other() -> None:
    for make in MAKERS:
        made, pages = make(), mmap.mmap(-1, SIZE)
        made.end = 100
        made.open(pages, 100)
        assert [made.put(1, b"one\n"), made.put(2, b"two\n"), made.put(3, b"")] == [True, True, False]
        assert (pages[:9], made.rows, made.end, made.limit) == (b"one\ntwo\n\0", 2, 108, 100 + SIZE)


def test_in_a_very_long_file(store: Store) -> None:
    store.end = (1 << 33) + 5
    store.open(mmap.mmap(-1, SIZE), 1 << 33)
    assert store.put(1, b"abc")
    assert (store.end, store.limit) == ((1 << 33) + 8, (1 << 33) + SIZE)


def test_nothing_is_stored_before_what_is_mapped(store: Store) -> None:
    store.end = 100
    store.open(mmap.mmap(-1, SIZE), 101)
    assert not store.put(1, b"abc")
    assert (store.rows, store.end) == (0, 100)


@pytest.mark.parametrize("seq", [-1, 0, 2, 1 << 62])
def test_only_the_next_row_is_stored(store: Store, seq: int) -> None:
    assert not store.put(seq, b"one\n")
    assert (store.rows, store.end) == (0, 0)


def test_what_does_not_fit_is_not_stored(store: Store) -> None:
    store.end = SIZE - 3
    assert not store.put(1, b"four")
    assert store.put(1, b"abc")
    assert not store.put(2, b"a")
    assert (store.rows, store.end) == (1, SIZE)


def test_a_closed_one_stores_nothing_until_it_is_opened_again(store: Store) -> None:
    store.put(1, b"one\n")
    for _ in range(2):
        store.close()
    assert not store.put(2, b"two\n")
    assert (store.limit, store.rows, store.end) == (0, 1, 4)
    assert opened(store, mmap.mmap(-1, SIZE)).put(2, b"two\n")
    assert (store.rows, store.end) == (2, 8)


def test_pages_are_let_go_of() -> None:
    for make in MAKERS:
        store, pages = make(), [mmap.mmap(-1, SIZE) for _ in range(3)]
        for at in range(3):
            store.open(pages[at], 0)
        pages[0].close()
        pages[1].close()
        store.close()
        pages[2].close()
        del store


# --------------------------------------------------------------- repeat


def test_it_is_compiled_where_that_can_be() -> None:
    """Or half of the tests would be skipped and nobody would see it."""
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    compiler = shutil.which(shlex.split(os.environ.get("CC") or "cc")[0])
    meant = sys.platform == "linux" and sys.implementation.name == "cpython" and sys.byteorder == "little"
    assert CompiledStore is not None or not (headers and compiler and meant)


FINITE = st.integers(-(2**63), 2**63 - 1)
METRICS = st.dictionaries(st.text(min_size=1), st.floats() | FINITE, min_size=1, max_size=40)


@compiled
@given(metrics=METRICS, step=FINITE)
def test_a_row_is_the_line_that_python_makes_of_it(metrics: dict[str, float], step: int) -> None:
    store, pages, (form,) = quick(metrics)
    store.rows = before = len(metrics)
    began = time.time()
    assert store.repeat(step, metrics)
    line = stored(store, pages)
    (now,) = struct.unpack("<d", _body(line)[16:24])
    assert began - 1e-3 <= now <= time.time() + 1e-3
    assert line == form.frame(before + 1, now, step, [*metrics.values()])
    assert store.rows == before + 1


def _body(line: bytes) -> bytes:
    return a2b_base64(line[9:])


@compiled
def test_a_row_of_very_many_metrics() -> None:
    metrics = {f"layer/{at}": at / 7 for at in range(4000)}
    store, pages, _ = quick(metrics)
    assert store.repeat(1, metrics)
    assert _body(stored(store, pages))[44:] == struct.pack("<4000d", *metrics.values())
    assert not store.repeat(2, metrics), "there is no more room"
    assert (store.rows, len(stored(store, pages)) < SIZE) == (1, True)


def other(text: str) -> str:
    """The same text, in another object."""
    return f"{text} "[:-1]


class Text(str):
    """A text that is not plain."""

    __slots__ = ()


class Rows(dict[str, float]):
    """Nor is this a plain row."""


class Number(float):
    """Nor a plain number."""


class Count(int):
    """Nor this."""


@compiled
@pytest.mark.parametrize(
    ("step", "metrics"),
    [
        (1, {"loss": 0.5, "tokens": 7.0}),
        (1, {"loss": 1, "tokens": 7}),
        (1, {"loss": 0.5, "tokens": True}),
        (1, {"loss": 0.5, "tokens": 2**63}),
        (1, {"loss": 0.5, "tokens": None}),
        (1, {"tokens": 7, "loss": 0.5}),
        (1, {"loss": 0.5}),
        (1, {"loss": 0.5, "tokens": 7, "more": 0.5}),
        (1, {"loss": 0.5, "token": 7}),
        (1, {"loss": 0.5, Text("tokens"): 7}),
        (1, {"loss": 0.5, 7: 7}),
        (1, {"loss": Number(0.5), "tokens": 7}),
        (1, {"loss": 0.5, "tokens": Count(7)}),
        (1, Rows(loss=0.5, tokens=7)),
        (Count(1), {"loss": 0.5, "tokens": 7}),
        (1, {"loss": 0.5, "\udcff": 7}),
        (1, {}),
        (1, None),
        (1, [("loss", 0.5), ("tokens", 7)]),
        (1.0, {"loss": 0.5, "tokens": 7}),
        (True, {"loss": 0.5, "tokens": 7}),
        (-(2**63) - 1, {"loss": 0.5, "tokens": 7}),
        (None, {"loss": 0.5, "tokens": 7}),
    ],
)
def test_a_row_of_no_known_form_is_left_to_python(step: object, metrics: object) -> None:
    store, pages, _ = quick({"loss": 0.5, "tokens": 7})
    assert not store.repeat(step, metrics)
    assert (store.rows, stored(store, pages)) == (0, b"")
    assert store.repeat(1, {other("loss"): -0.0, "tokens": -1})


@compiled
def test_it_records_only_in_its_time_and_while_it_is_open() -> None:
    store, _, _ = quick({"loss": 0.5})
    now = time.time()
    for since, until in ((0.0, now), (now + 60, math.inf), (math.nan, math.inf), (0.0, math.nan)):
        store.since, store.until = since, until
        assert not store.repeat(1, {"loss": 0.5})
    store.since, store.until = now - 60, now + 60
    assert store.repeat(1, {"loss": 0.5})
    store.close()
    assert not store.repeat(2, {"loss": 0.5})
    assert store.rows == 1


@compiled
def test_forms_that_come_in_turn_are_all_known_and_of_many_the_newest() -> None:
    rows: list[dict[str, float]] = [{f"{at}/{key}": 0.5 for key in range(at % 4 + 1)} for at in range(40)]
    store, pages, forms = quick(*rows)
    known = [store.repeat(at, row) for _ in range(2) for at, row in enumerate(rows)]
    assert known == ([False] * 24 + [True] * 16) * 2
    lines = stored(store, pages).splitlines()
    assert [_body(line)[24:44] for line in lines] == [form.named for form in forms[-16:]] * 2
    assert expect(store, rows[0]).named == expect(store, rows[0]).named, "told twice it takes one place"
    assert [store.repeat(0, row) for row in rows] == [True] + [False] * 24 + [True] * 15
    store.forget()
    assert not any(store.repeat(0, row) for row in rows)
    assert expect(store, rows[0]).names == ("0/0",)
    assert store.repeat(0, rows[0])


@compiled
@pytest.mark.parametrize(
    "told",
    [
        ((), b"", b""),
        (("a",), b"", bytes(20)),
        (("a",), b"d", bytes(19)),
        ((Text("a"),), b"d", bytes(20)),
        ((7,), b"d", bytes(20)),
        (["a"], b"d", bytes(20)),
        (("a",), "d", bytes(20)),
    ],
)
def test_what_is_no_form_is_refused(told: tuple[Any, ...]) -> None:
    store, _, _ = quick({"loss": 0.5})
    with pytest.raises((TypeError, ValueError)):
        store.expect(*told)
    assert store.repeat(1, {"loss": 0.5})


@compiled
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("put", ()),
        ("put", ("1", b"")),
        ("put", (1, "text")),
        ("put", (2**63, b"")),
        ("repeat", (1,)),
        ("open", (b"read-only", 0)),
        ("open", (None, 0)),
    ],
)
def test_a_wrong_call_is_an_error_and_nothing_more(name: str, told: tuple[Any, ...]) -> None:
    store, _, _ = quick({"loss": 0.5})
    with pytest.raises((TypeError, OverflowError, BufferError)):
        getattr(store, name)(*told)
    assert store.repeat(1, {"loss": 0.5})


class Pages(bytearray):
    """Its end can be seen."""


@compiled
def test_it_keeps_nothing_alive() -> None:
    assert CompiledStore is not None
    pages, name, letters = Pages(SIZE), other("loss"), bytes(bytearray(b"d"))
    gone = weakref.ref(pages)
    before = [sys.getrefcount(one) for one in (name, letters, CompiledStore, None, False)]
    store = CompiledStore()
    for at in range(100):
        store = CompiledStore()
        store.open(pages, 0)  # type: ignore[arg-type]
        for key in range(20):
            store.expect((name,), letters, struct.pack("<qqI", at, key, 0))
        assert not store.repeat(1, {})
        if at % 2:
            store.forget()
            store.close()
    del store, pages
    after = [sys.getrefcount(one) for one in (name, letters, CompiledStore, None, False)]
    assert gone() is None
    assert [now - then for now, then in zip(after[:3], before[:3], strict=True)] == [0, 0, 0]
    assert all(abs(now - then) < 50 for now, then in zip(after[3:], before[3:], strict=True))


@compiled
def test_whoever_comes_in_when_pages_are_let_go_of_finds_it_in_order() -> None:
    assert CompiledStore is not None
    store, newest = CompiledStore(), mmap.mmap(-1, SIZE)
    first = Pages(SIZE)
    seen = []
    watch = weakref.ref(first, lambda _: seen.append((store.limit, store.put(1, b"from within"))))
    store.open(first, 0)  # type: ignore[arg-type]
    del first
    store.open(newest, 0)
    assert watch() is None
    assert seen == [(SIZE, True)]
    assert (newest[:11], store.rows, store.end) == (b"from within", 1, 11)


def test_a_module_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (None, types.ModuleType("rolecall.store._speedups")):
        monkeypatch.setitem(sys.modules, "rolecall.store._speedups", module)
        monkeypatch.setattr("rolecall.store._speedups", module, raising=False)
        assert speedups() is None
