"""Whatever a role logs becomes plain numbers and plain tables, or is left out, told once and counted."""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.job.normalize import LONGEST_KEY, Cleaner
from rolecall.rows import TableData
from rolecall.store.codec import encode


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
def cleaner() -> Cleaner:
    return Cleaner("explorer/0")


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
def test_every_kind_of_number_becomes_pythons_own(cleaner: Cleaner, value: Any, plain: float) -> None:
    clean = cleaner.metrics({"x": value})
    assert clean == {"x": plain}
    assert type(clean["x"]) is type(plain)
    assert cleaner.dropped == 0


@pytest.mark.parametrize(
    "value",
    named(
        (math.nan,),
        (np.float32("nan"),),
        (Decimal("NaN"),),
        (np.array(np.nan),),
    ),
)
def test_nan_is_kept(cleaner: Cleaner, value: Any) -> None:
    clean = cleaner.metrics({"x": value})
    assert type(clean["x"]) is float
    assert math.isnan(clean["x"])


@pytest.mark.parametrize(
    "value",
    named(
        (None,),
        ("0.5",),
        (b"0.5",),
        (bytearray(b"0.5"),),
        (memoryview(b"0.5"),),
        (np.str_("0.5"),),
        (np.array([1.0, 2.0]),),
        (np.array([]),),
        (np.array("0.5"),),
        (np.array([None]),),
        (np.complex128(1),),
        (1j,),
        (Decimal("sNaN"),),
        (10**400,),
        (Fraction(10**400, 1),),
        ([0.5],),
        ({"a": 1},),
        ({0.5},),
        (object(),),
        (Odd(),),
        (float,),
        (pd.NA,),
        (pd.Series([0.5, 1.0]),),
    ),
)
def test_what_is_no_number_is_left_out_told_once_and_counted(
    cleaner: Cleaner, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert cleaner.metrics({"before": 1.0, "bad": value, "after": 2.0}) == {"before": 1.0, "after": 2.0}
    assert cleaner.dropped == 3
    assert caplog.messages == [
        f"explorer/0: bad: a metric must be one number of 64 bits, not {type(value).__name__}"
    ]


def test_keys_that_are_always_new_do_not_fill_log_and_memory(
    cleaner: Cleaner, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1500):
        cleaner.metrics({f"image/{step}": object()})
    assert cleaner.dropped == 1500
    assert len(caplog.messages) == 1001
    assert caplog.messages[-1] == "explorer/0: from now on, what cannot be logged is only counted"


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
def test_a_printable_key_is_kept(cleaner: Cleaner, key: str) -> None:
    assert cleaner.metrics({key: 1.0}) == {key: 1.0}


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
def test_an_unsound_key_costs_its_value_alone(
    cleaner: Cleaner, key: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert cleaner.metrics({"before": 1.0, key: 1.0, "after": 2.0}) == {"before": 1.0, "after": 2.0}
    assert cleaner.dropped == 3
    (message,) = caplog.messages
    assert words in message
    assert message.isprintable(), "a key writes nothing into a terminal but itself"
    assert len(message) < 250


def test_keys_that_were_sound_once_are_looked_at_no_more(cleaner: Cleaner) -> None:
    keys = {f"layer/{at}": 1.0 for at in range(100_000)}
    assert cleaner.metrics(keys) == keys
    assert cleaner.metrics(keys) == keys
    assert cleaner.dropped == 0


@pytest.mark.parametrize(
    "data",
    named(
        (None,),
        (5,),
        ("loss",),
        ([("loss", 0.5)],),
        ({"loss"},),
        (Odd(),),
    ),
)
def test_what_is_no_mapping_is_told(cleaner: Cleaner, data: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert cleaner.metrics(data) == {}
    assert cleaner.dropped == 1
    assert caplog.messages == [
        f"explorer/0: data: log takes a mapping of metrics, not {type(data).__name__}; the row is dropped"
    ]


def test_a_mapping_that_breaks_off_gives_what_it_gave(
    cleaner: Cleaner, caplog: pytest.LogCaptureFixture
) -> None:
    assert cleaner.metrics(OddMapping()) == {"loss": 0.5}
    assert cleaner.dropped == 1
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
    ),
)
def test_a_whole_number_is_a_step_and_pythons_own(cleaner: Cleaner, value: Any, step: int) -> None:
    assert cleaner.step(value) == step
    assert type(cleaner.step(value)) is int
    assert cleaner.dropped == 0


@pytest.mark.parametrize(
    ("value", "words"),
    named(
        (None, "not NoneType"),
        (1.0, "not float"),
        ("1", "not str"),
        (np.float64(1), "not float64"),
        (np.bool_(True), "not bool"),
        (np.array([1, 2]), "not ndarray"),
        (Decimal(1), "not Decimal"),
        (Odd(), "not Odd"),
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (10**5000, "64 bits"),
    ),
)
def test_what_is_no_step_is_told_and_counted(
    cleaner: Cleaner, value: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cleaner.step(value) is None
    assert cleaner.step(value) is None
    assert cleaner.dropped == 2
    (message,) = caplog.messages
    assert words in message
    assert message.endswith("the row is dropped")


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
        (({"a": number, "b": text} for number, text in ((1, "x"), (2, None))),),
        (pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)}),),
    ),
)
def test_a_table_in_any_form(cleaner: Cleaner, given: Any) -> None:
    table = cleaner.table("t", given)
    assert table == EXPECTED
    assert [[type(cell) for cell in row] for row in table.rows] == [[int, str], [int, type(None)]]
    assert cleaner.dropped == 0


@pytest.mark.parametrize(
    ("value", "cell"),
    named(
        (math.nan, "nan"),
        (np.float32("inf"), "inf"),
        (-math.inf, "-inf"),
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
def test_a_cell_is_plain_and_can_be_sent(cleaner: Cleaner, value: Any, cell: Any) -> None:
    table = cleaner.table("t", (["a"], [[value]]))
    assert table is not None
    assert table.rows == ((cell,),)
    assert type(table.rows[0][0]) is type(cell)
    str(table.rows[0][0]).encode("utf-8")
    assert cleaner.dropped == 0


def test_columns_are_texts(cleaner: Cleaner) -> None:
    table = cleaner.table("t", ([1, None, "\ud83d", "x"], []))
    assert table == TableData(name="t", columns=("1", "None", "?", "x"), rows=())


def test_an_empty_table_is_one(cleaner: Cleaner) -> None:
    assert cleaner.table("t", []) == TableData(name="t", columns=(), rows=())
    assert cleaner.table("t", (["a"], [])) == TableData(name="t", columns=("a",), rows=())


@pytest.mark.parametrize(
    ("given", "words"),
    named(
        (None, "TypeError"),
        (5, "TypeError"),
        ("text", "records are no mappings"),
        ([1, 2], "records are no mappings"),
        ([[1, 2], [3, 4]], "records are no mappings"),
        ([{"a": 1}, None], "records are no mappings"),
        ({"a": [1, 2]}, "records are no mappings"),
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
def test_what_is_no_table_is_told_and_counted(
    cleaner: Cleaner, given: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cleaner.table("t", given) is None
    assert cleaner.dropped == 1
    (message,) = caplog.messages
    assert message.startswith("explorer/0: t: is no table (")
    assert message.endswith("); give (columns, rows), a list of dicts or a frame")
    assert words in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "name",
    named(
        ("",),
        (None,),
        (5,),
        ("a\nb",),
        ("x" * 513,),
        (Odd(),),
    ),
)
def test_a_table_needs_a_sound_name(cleaner: Cleaner, name: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert cleaner.table(name, (["a"], [[1]])) is None
    assert cleaner.dropped == 1
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
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
HASHABLE = st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Odd)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(HASHABLE, ANYTHING, max_size=5) | ANYTHING, ANYTHING, ANYTHING)
def test_anything_at_all_becomes_a_line_and_never_an_error(data: Any, step: Any, table: Any) -> None:
    logging.getLogger("rolecall").setLevel(logging.ERROR)
    try:
        cleaner = Cleaner("w")
        metrics, whole = cleaner.metrics(data), cleaner.step(step)
        plain = cleaner.table("t", table)
    finally:
        logging.getLogger("rolecall").setLevel(logging.NOTSET)
    assert all(type(value) in (int, float) for value in metrics.values())
    assert all(-(2**63) <= value < 2**63 for value in metrics.values() if type(value) is int)
    assert whole is None or (type(whole) is int and -(2**63) <= whole < 2**63)
    encode({"s": whole, "m": metrics})
    if plain is not None:
        assert all(len(row) == len(plain.columns) for row in plain.rows)
        encode({"columns": plain.columns, "rows": plain.rows})
        "".join(plain.columns).encode("utf-8")


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
    "odd",
    [
        {"loss": Unhashable("Odd", (), {})()},
        {Lying("\n"): 0.5},
        {"loss": "0.5"},
        {"loss": True, "reward": "1"},
        {"loss": 0.5, 7: 0.5},
    ],
    ids=["class without a hash", "key that lies", "text", "bool and text", "number for a key"],
)
def test_what_was_logged_before_opens_no_way_for_what_is_not_plain(odd: dict[Any, Any]) -> None:
    cleaner = Cleaner("trainer")
    assert cleaner.metrics({"loss": 0.5, "reward": 1.0}) == {"loss": 0.5, "reward": 1.0}
    clean = cleaner.metrics(odd)
    assert {type(key) for key in clean} <= {str}
    assert {type(value) for value in clean.values()} <= {int, float}
    assert cleaner.dropped == len(odd) - len(clean)


def test_a_row_is_a_copy() -> None:
    cleaner, given_ = Cleaner("trainer"), {"loss": 0.5}
    rows = [cleaner.metrics(given_) for _ in range(2)]
    given_["loss"] = 1.0
    assert rows == [{"loss": 0.5}] * 2
