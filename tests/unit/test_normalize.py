"""Whatever a role logs becomes plain numbers, strings and tables, or is left out, reported once and counted."""

from __future__ import annotations

import enum
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.job.normalize import LONGEST_KEY, Normalizer
from rolecall.rows import TableData
from rolecall.store.codec import encode
from rolecall.store.journal import TableDraft
from rolecall.values import Table


def row_of(normalizer: Normalizer, data: object) -> Mapping[str, Any]:
    """What it records of numbers and strings alone."""
    if isinstance(data, dict) and normalizer.is_ready(data):
        return data
    plain, values, _ = normalizer.row(data)
    assert not values
    return plain


def careful_of(normalizer: Normalizer, data: object) -> Mapping[str, Any]:
    """The same, with a look at each value."""
    plain, values, _ = normalizer.careful(data)
    assert not values
    return plain


class BFloat16:
    """As a 0-d tensor of torch: not a number itself, but it has an item."""

    def item(self) -> float:
        return 0.5


class Odd:
    """Raises whatever is done with it."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("odd")

    __float__ = __int__ = __index__ = __repr__ = __str__ = __iter__ = __len__ = item = _raise  # noqa: RUF100


class OddIndex(int):
    """An int whose every conversion is overridden."""

    def __int__(self) -> int:
        return 2**100

    def __index__(self) -> int:
        return 2**100


class Level(enum.IntEnum):
    HIGH = 3


class OddMapping(Mapping[str, float]):
    """Ends in the middle."""

    def __getitem__(self, key: str) -> float:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError("gone")

    def __len__(self) -> int:
        return 2

    def items(self) -> Any:
        yield "loss", 0.5
        raise OSError("gone")


class OddText(str):
    """A text that is not its own."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("odd")


def named(*cases: tuple[Any, ...]) -> list[Any]:
    """Parameters whose names neither repeat nor hold what is odd in them."""
    return [pytest.param(*case, id=f"{at}-{type(case[0]).__name__}") for at, case in enumerate(cases)]


@pytest.fixture
def normalizer() -> Normalizer:
    return Normalizer("explorer/0")


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("value", "plain"),
    named(
        (0.5, 0.5),
        (7, 7),
        (True, 1),
        (False, 0),
        (Level.HIGH, 3),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, 2.0**63),
        (10**300, 1e300),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.float16(0.25), 0.25),
        (np.longdouble(0.25), 0.25),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.uint64(2**64 - 1), 2.0**64),
        (np.bool_(True), 1),
        (np.array(0.25), 0.25),
        (np.array([7]), 7),
        (np.array([[0.25]], dtype=np.float32), 0.25),
        (BFloat16(), 0.5),
        (Decimal("0.5"), 0.5),
        (Decimal("Infinity"), math.inf),
        (Fraction(1, 4), 0.25),
        (OddIndex(5), 5),
        (pd.Series([0.25]), 0.25),
    ),
)
def test_numbers_become_pythons_own(normalizer: Normalizer, value: Any, plain: float) -> None:
    clean = row_of(normalizer, {"x": value})
    assert clean == {"x": plain}
    assert type(clean["x"]) is type(plain)
    assert normalizer.dropped == 0


@pytest.mark.parametrize("value", named((math.nan,), (np.float32("nan"),), (Decimal("NaN"),), (np.array(np.nan),)))
def test_nan_is_kept(normalizer: Normalizer, value: Any) -> None:
    clean = row_of(normalizer, {"x": value})
    assert type(clean["x"]) is float
    assert math.isnan(clean["x"])


@pytest.mark.parametrize(
    "value",
    named(
        (b"0.5",),
        (bytearray(b"0.5"),),
        (memoryview(b"0.5"),),
        (np.array([1.0, 2.0]),),
        (np.array([]),),
        (np.array([None]),),
        (np.complex128(1),),
        (1j,),
        (Decimal("sNaN"),),
        (10**400,),
        (Fraction(10**400, 1),),
        ([0.5],),
        ({0.5},),
        (object(),),
        (Odd(),),
        (float,),
        (pd.NA,),
        (pd.Series([0.5, 1.0]),),
    ),
)
def test_other_values_are_left_out(normalizer: Normalizer, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert row_of(normalizer, {"before": 1.0, "bad": value, "after": 2.0}) == {"before": 1.0, "after": 2.0}
    assert normalizer.dropped == 3
    assert caplog.messages == [
        f"explorer/0: bad: a value must be a number of 64 bits or a string, not {type(value).__name__}"
    ]


@pytest.mark.parametrize(
    ("value", "plain"),
    named(
        ("word", "word"),
        ("", ""),
        ("0.5", "0.5"),
        ("NaN", "NaN"),
        ("a\x00\nb \u2603 \U0001f600", "a\x00\nb \u2603 \U0001f600"),
        ("half \ud83d of it", "half ? of it"),
        (np.str_("0.5"), "0.5"),
        (np.array("0.5"), "0.5"),
        (OddText("odd"), "odd"),
    ),
)
def test_strings_are_kept(normalizer: Normalizer, value: Any, plain: str) -> None:
    for _ in range(2):
        row = careful_of(normalizer, {"x": value})
        assert row == {"x": plain}
        assert type(row["x"]) is str
    assert normalizer.dropped == 0


def test_none_is_skipped(normalizer: Normalizer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert row_of(normalizer, {"x": None, "loss": 0.5}) == {"loss": 0.5}
        assert row_of(normalizer, {"x": None}) == {}, "a row without a value is none, under known keys too"
    assert row_of(normalizer, {"x": {"y": None}}) == {"x": {}}
    assert normalizer.dropped == 0
    assert not caplog.messages


def test_mappings_stay_nested(normalizer: Normalizer) -> None:
    """The reader flattens them, outside of training."""
    given_ = {"a": {"b": np.float32(0.5), "c": {"d": 7}}, "e": OrderedDict(f="t")}
    assert row_of(normalizer, given_) == {"a": {"b": 0.5, "c": {"d": 7}}, "e": {"f": "t"}}
    assert normalizer.dropped == 0


@pytest.mark.parametrize(
    ("value", "plain", "words"),
    named(
        ({"b": [0.5], "c": 1}, {"c": 1}, "a/b: a value must be"),
        ({"b": {"d": object()}}, {"b": {}}, "a/b/d: a value must be"),
        ({5: 0.5, "c": 1}, {"c": 1}, "5: a key must be a string"),
        ({"x" * 511: 0.5, "c": 1}, {"c": 1}, "1 to 512 characters, not 513"),
        (OddMapping(), {"loss": 0.5}, "a/: the mapping could not be read"),
    ),
)
def test_nested_values_cost_themselves_alone(
    normalizer: Normalizer, value: Any, plain: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert row_of(normalizer, {"a": value, "z": 1}) == {"a": plain, "z": 1}
    assert normalizer.dropped == 3
    (message,) = caplog.messages
    assert words in message


def test_mapping_that_holds_itself(normalizer: Normalizer, caplog: pytest.LogCaptureFixture) -> None:
    endless: dict[str, Any] = {"loss": 0.5}
    endless["a"] = endless
    row = row_of(normalizer, endless)
    encode({"seq": 1, "data": row})
    assert row["a"]["a"]["loss"] == 0.5
    assert normalizer.dropped == 1
    assert "nested deeper than 50" in caplog.text


@pytest.mark.parametrize("value", named((10**5000,), (10**400,), (-(10**400),)))
@pytest.mark.parametrize("known", [False, True])
def test_endless_integers_are_refused(normalizer: Normalizer, value: int, known: bool) -> None:
    """Under new keys as under those that were logged before."""
    if known:
        row_of(normalizer, {"loss": 0.5, "n": 1})
    for _ in range(2):
        assert row_of(normalizer, {"loss": 0.5, "n": value}) == {"loss": 0.5}
    assert normalizer.dropped == 2


@pytest.mark.parametrize(
    ("value", "plain"),
    named((2**63 - 1, 2**63 - 1), (2**63, 2.0**63), (-(2**63), -(2**63)), (-(2**63) - 1, -(2.0**63)), (2**70, 2.0**70)),
)
def test_long_integers_become_floats(normalizer: Normalizer, value: int, plain: float) -> None:
    """Also under keys that were logged before: many a reader of JSON takes 64 bits."""
    for _ in range(3):
        row = row_of(normalizer, {"n": value})
        assert row == {"n": plain}
        assert type(row["n"]) is type(plain)


def test_known_rows_are_not_copied(normalizer: Normalizer) -> None:
    """Almost every row is recognised by its keys and types, and encoded as it is."""
    for data in ({"loss": 0.5, "epoch": 3, "done": True}, {"loss": 0.5, "note": "x"}, {"k" * 100: 0.5}):
        assert row_of(normalizer, data) is not data
        assert row_of(normalizer, data) is data
    assert row_of(normalizer, {**data, "loss": np.float64(0.5)})["loss"] == 0.5


def test_warnings_are_bounded(normalizer: Normalizer, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(1500):
        row_of(normalizer, {f"image/{step}": object()})
    assert normalizer.dropped == 1500
    assert len(caplog.messages) == 1001
    assert caplog.messages[-1] == "explorer/0: from now on, what is left out is only counted"


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    "key",
    named(
        ("loss",),
        ("reward/mean",),
        ("../up",),
        ("..",),
        ("a b",),
        ("\u2603",),
        ("x" * LONGEST_KEY,),
        ("-",),
        ("0",),
        ("@",),
        ("%s",),
        ("{}",),
    ),
)
def test_printable_keys_are_kept(normalizer: Normalizer, key: str) -> None:
    assert row_of(normalizer, {key: 1.0}) == {key: 1.0}


@pytest.mark.parametrize(
    ("key", "words"),
    named(
        ("", "1 to 512 characters, not 0"),
        ("x" * 513, "1 to 512 characters, not 513"),
        ("x" * 10_000, "1 to 512 characters, not 10000"),
        ("\x1b[31m" * 500, "1 to 512 characters, not 2500"),
        (" ", "printable"),
        ("\u3000", "printable"),
        ("a\nb", "printable"),
        ("a\x00", "printable"),
        ("\x1b[2J", "printable"),
        ("\ud800", "printable"),
        ("\u202e", "printable"),
        (None, "a string, not NoneType"),
        (5, "a string, not int"),
        (b"loss", "a string, not bytes"),
        (("a", "b"), "a string, not tuple"),
        (10**5000, "a string, not int"),
        (Odd(), "a string, not Odd"),
    ),
)
def test_bad_keys_cost_their_value(
    normalizer: Normalizer, key: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert row_of(normalizer, {"before": 1.0, key: 1.0, "after": 2.0}) == {"before": 1.0, "after": 2.0}
    assert normalizer.dropped == 3
    (message,) = caplog.messages
    assert words in message
    assert message.isprintable(), "a key writes nothing into a terminal but itself"
    assert len(message) < 250


def test_many_keys_at_once(normalizer: Normalizer) -> None:
    keys = {f"layer/{at}": 1.0 for at in range(100_000)}
    assert row_of(normalizer, keys) == keys
    assert row_of(normalizer, keys) == keys
    assert normalizer.dropped == 0


def test_known_keys_are_bounded(normalizer: Normalizer) -> None:
    for at in range(300):
        row_of(normalizer, {f"{at}/{key}": 1.0 for key in range(1000)})
        assert len(normalizer._short) + len(normalizer._long) <= 100_000


@pytest.mark.parametrize("data", named((None,), (5,), ("loss",), ([("loss", 0.5)],), ({"loss"},), (Odd(),)))
def test_other_than_mappings_are_reported(normalizer: Normalizer, data: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert row_of(normalizer, data) == {}
    assert normalizer.dropped == 1
    assert caplog.messages == [
        f"explorer/0: data: log takes a mapping of metrics, not {type(data).__name__}; the row is left out"
    ]


def test_broken_mapping_gives_its_beginning(normalizer: Normalizer, caplog: pytest.LogCaptureFixture) -> None:
    assert row_of(normalizer, OddMapping()) == {"loss": 0.5}
    assert normalizer.dropped == 1
    assert caplog.messages == ["explorer/0: data: the mapping could not be read to its end (OSError: gone)"]


# ------------------------------------------------------------------ steps


@pytest.mark.parametrize(
    ("value", "step"),
    named(
        (0, 0),
        (-1, -1),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (True, 1),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.array(5), 5),
        (Level.HIGH, 3),
        (1.0, 1),
        (-2.0, -2),
        (np.float64(7), 7),
        (np.float32(7), 7),
        (np.bool_(True), 1),
    ),
)
def test_whole_numbers_are_steps(normalizer: Normalizer, value: Any, step: int) -> None:
    assert normalizer.step(value) == step
    assert type(normalizer.step(value)) is int
    assert normalizer.dropped == 0


@pytest.mark.parametrize(
    ("value", "words"),
    named(
        (None, "not NoneType"),
        (1.5, "not float"),
        (math.nan, "not float"),
        (math.inf, "not float"),
        (1e300, "64 bits"),
        ("1", "not str"),
        (np.float64(1.5), "not float64"),
        (np.array([1, 2]), "not ndarray"),
        (Decimal(1), "not Decimal"),
        (Odd(), "not Odd"),
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (10**5000, "64 bits"),
    ),
)
def test_other_steps_are_reported(
    normalizer: Normalizer, value: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert normalizer.step(value) is None
    assert normalizer.step(value) is None
    assert normalizer.dropped == 2
    (message,) = caplog.messages
    assert words in message
    assert message.endswith("the row is kept at the next one")


# ------------------------------------------------------------------ tables

EXPECTED = TableData(name="t", columns=("a", "b"), rows=((1, "x"), (2, None)))


@pytest.mark.parametrize(
    "given",
    named(
        ((["a", "b"], [[1, "x"], [2, None]]),),
        ((("a", "b"), ((1, "x"), (2, None))),),
        ((["a", "b"], ([number, text] for number, text in ((1, "x"), (2, None)))),),
        ((np.array(["a", "b"]), [[np.int64(1), np.str_("x")], [np.array(2), None]]),),
        ([{"a": 1, "b": "x"}, {"a": 2}],),
        ({"a": [1, 2], "b": ["x", None]},),
        (Table([[1, "x"], [2, None]], ["a", "b"]),),
        (Table([{"b": "x", "a": 1}, {"a": 2}], ["a", "b"]),),
        (({"a": number, "b": text} for number, text in ((1, "x"), (2, None))),),
        (pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)}),),
    ),
)
def test_tables_of_any_form(normalizer: Normalizer, given: Any) -> None:
    table = plain_table(normalizer, given)
    assert table == EXPECTED
    assert [[type(cell) for cell in row] for row in table.rows] == [[int, str], [int, type(None)]]
    assert normalizer.dropped == 0


@pytest.mark.parametrize(
    ("value", "cell"),
    named(
        (math.nan, math.nan),
        (np.float32("inf"), math.inf),
        (-math.inf, -math.inf),
        (True, True),
        (np.bool_(False), False),
        (np.float32(0.5), 0.5),
        (np.array(3), 3),
        (Level.HIGH, 3),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        (Decimal("0.1"), "0.1"),
        (b"x", "b'x'"),
        ([1, 2], "[1, 2]"),
        ({"a": 1}, "{'a': 1}"),
        (np.array([1, 2]), "[1 2]"),
        (pd.NA, "<NA>"),
        (pd.Timestamp("2026-01-02"), "2026-01-02 00:00:00"),
        ("a\x00b\n", "a\x00b\n"),
        ("\U0001f600 \u2603", "\U0001f600 \u2603"),
        ("half \ud83d of one", "half ? of one"),
    ),
)
def test_cells_are_plain(normalizer: Normalizer, value: Any, cell: Any) -> None:
    table = plain_table(normalizer, (["a"], [[value]]))
    assert table is not None
    assert repr(table.rows) == repr(((cell,),))
    assert type(table.rows[0][0]) is type(cell)
    str(table.rows[0][0]).encode("utf-8")
    assert normalizer.dropped == 0


def test_columns_are_strings(normalizer: Normalizer) -> None:
    table = plain_table(normalizer, ([1, None, "\ud83d", "x"], []))
    assert table == TableData(name="t", columns=("1", "None", "?", "x"), rows=())


def test_empty_tables_are_tables(normalizer: Normalizer) -> None:
    assert normalizer.table("t", []) == TableData(name="t", columns=(), rows=())
    assert normalizer.table("t", (["a"], [])) == TableData(name="t", columns=("a",), rows=())


@pytest.mark.parametrize(
    ("given", "words"),
    named(
        (None, "TypeError"),
        (5, "TypeError"),
        ("text", "records are not mappings"),
        ([1, 2], "records are not mappings"),
        ([[1, 2], [3, 4]], "records are not mappings"),
        ([{"a": 1}, None], "records are not mappings"),
        ({"a": [1, 2], "b": [1]}, "ValueError"),
        ({"a": 1}, "TypeError"),
        ((["a"],), "ValueError"),
        ((["a"], [[1]], 5), "ValueError"),
        ((["a", "b"], [[1, 2], [1]]), "not as wide as its columns"),
        ((["a"], [[1, 2]]), "not as wide as its columns"),
        ((["ab"], ["a"]), "a row of it is a str"),
        (({"a": 1}, {"a": 2}), "a row of it is a str"),
        ((["a"], [{"a": 1}]), "a row of it is a dict"),
        ((["a"], [5]), "TypeError"),
        ((["a"], [[Odd()]]), "RuntimeError: odd"),
        (([Odd()], []), "RuntimeError: odd"),
        ((["a"], Odd()), "RuntimeError: odd"),
        (Odd(), "RuntimeError: odd"),
        ((["a"], [[10**5000]]), "ValueError"),
        (([OddText("a")], []), "RuntimeError: odd"),
    ),
)
def test_other_than_tables_are_reported(
    normalizer: Normalizer, given: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert normalizer.table("t", given) is None
    assert normalizer.dropped == 1
    (message,) = caplog.messages
    assert message.startswith("explorer/0: t: not a table (")
    assert message.endswith("); give (columns, rows), a list of dicts or a frame")
    assert words in message
    assert message.isprintable()


@pytest.mark.parametrize("name", named(("",), (None,), (5,), ("a\nb",), ("x" * 513,), (Odd(),)))
def test_tables_need_a_good_name(normalizer: Normalizer, name: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert normalizer.table(name, (["a"], [[1]])) is None
    assert normalizer.dropped == 1
    assert len(caplog.messages) == 1


# ------------------------------------------------------------------ anything at all

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.builds(Odd)
    | st.builds(OddIndex)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
HASHABLE = st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Odd)


def is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) in (float, str, bool, type(None))


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(HASHABLE, ANYTHING, max_size=5) | ANYTHING, ANYTHING, ANYTHING)
def test_anything_at_all_is_taken(data: Any, step: Any, table: Any) -> None:
    """It becomes a line, or is left out, and raises nothing."""
    logging.getLogger("rolecall").setLevel(logging.ERROR)
    try:
        normalizer = Normalizer("w")
        first, again, whole = row_of(normalizer, data), row_of(normalizer, data), normalizer.step(step)
        plain = plain_table(normalizer, table)
    finally:
        logging.getLogger("rolecall").setLevel(logging.NOTSET)
    assert whole is None or (type(whole) is int and -(2**63) <= whole < 2**63)
    assert is_plain(first)
    try:
        line = encode({"step": whole, "data": again})
    except ValueError:  # a lone surrogate under known keys, of which `log` then looks at each value
        line = encode({"step": whole, "data": careful_of(normalizer, again)})
    json.loads(line)
    if plain is not None:
        assert all(len(row) == len(plain.columns) for row in plain.rows)
        json.loads(encode({"columns": plain.columns, "rows": plain.rows}))
        "".join(plain.columns).encode("utf-8")


def plain_table(normalizer: Normalizer, given: Any) -> TableData | None:
    """A table without images."""
    table = normalizer.table("t", given)
    assert not isinstance(table, TableDraft)
    return table


class Unhashable(type):
    """Classes of it have no hash."""

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("odd")

    __hash__ = None  # type: ignore[assignment]


class Lying(str):
    """Claims to be another text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("loss")


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ({"loss": Unhashable("Odd", (), {})()}, {}),
        ({Lying("\n"): 0.5}, {}),
        ({Lying("reward"): 0.5}, {"reward": 0.5}),
        ({"loss": Lying("word")}, {"loss": "word"}),
        ({"loss": True, "reward": OddIndex(5)}, {"loss": 1, "reward": 5}),
        ({"loss": 0.5, 7: 0.5}, {"loss": 0.5}),
        ({"loss": 0.5, "reward": b"1"}, {"loss": 0.5}),
        ({"loss": {"a": Odd()}, "reward": 1}, {"loss": {}, "reward": 1}),
    ],
    ids=[
        "class without a hash",
        "lying bad key",
        "lying key",
        "lying string",
        "odd int",
        "number for a key",
        "bytes",
        "nested",
    ],
)
def test_known_keys_excuse_nothing(odd: dict[Any, Any], plain: dict[str, Any]) -> None:
    normalizer = Normalizer("trainer")
    assert row_of(normalizer, {"loss": 0.5, "reward": 1.0}) == {"loss": 0.5, "reward": 1.0}
    assert row_of(normalizer, {"loss": 0.5}) == {"loss": 0.5}
    row = row_of(normalizer, odd)
    # A key that lies equals any other: compare what JSON makes of them.
    assert json.dumps(row) == json.dumps(plain)
    assert {type(key) for key in row} <= {str}
    assert is_plain(row)


def test_rows_without_a_look_are_counted(normalizer: Normalizer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        normalizer.drop_row(MemoryError("no\nmore"))
    assert normalizer.dropped == 3
    assert caplog.messages == ["explorer/0: data: the row cannot be recorded (MemoryError: no more) and is left out"]
