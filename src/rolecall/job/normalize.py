"""What is logged, made plain: Python ints and floats under sound keys, and tables of plain cells.

What cannot be logged is left out and told once for each key; training never sees an error of it.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rolecall.rows import Cell, TableData

__all__ = ["LONGEST_KEY", "Cleaner"]

logger = logging.getLogger("rolecall")

LONGEST_KEY = 512
_INT64 = 1 << 63
_MOST_TOLD = 1000
_BYTES = (str, bytes, bytearray, memoryview)


class Cleaner:
    """Turns what one role logs into rows that every backend can take.

    Attributes:
        dropped: how many values and rows could not be logged so far.
    """

    def __init__(self, writer: str) -> None:
        self.dropped = 0
        self._writer = writer
        self._sound: set[str] = set()
        self._told: set[tuple[str, str]] = set()

    def step(self, value: object) -> int | None:
        """The step as an int, `None` if it is not a whole number of 64 bits."""
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        try:
            # An index may be a bool, which is written `true`, or any other kind of int.
            step = int.__int__(operator.index(value))  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - anyone's object, anyone's exception: it must not end training
            self._drop(
                "step", f"a step must be a whole number, not {type(value).__name__}; the row is dropped"
            )
            return None
        if -_INT64 <= step < _INT64:
            return step
        self._drop("step", "a step must fit in 64 bits; the row is dropped")
        return None

    def metrics(self, data: object) -> dict[str, int | float]:
        """What of a mapping can be logged; almost always all of it."""
        if not isinstance(data, Mapping):
            self._drop(
                "data", f"log takes a mapping of metrics, not {type(data).__name__}; the row is dropped"
            )
            return {}
        clean: dict[str, int | float] = {}
        try:
            for key, value in data.items():
                if (type(key) is str and key in self._sound) or self._is_sound(key):
                    plain = value if type(value) is float else self._number(key, value)
                    if plain is not None:
                        clean[key] = plain
        except Exception as error:  # noqa: BLE001 - anyone's mapping, anyone's exception
            self._drop("data", f"the mapping could not be read to its end ({_words(error)})")
        return clean

    def table(self, name: object, table: Any) -> TableData | None:
        """A table from columns and rows, a list of mappings, or a pandas frame."""
        try:
            if not self._is_sound(name):
                return None
            columns, rows = _split_table(table)
            cells = tuple(_cells(row, len(columns)) for row in rows)
            return TableData(
                name=str(name), columns=tuple(_text(str(column)) for column in columns), rows=cells
            )
        except Exception as error:  # noqa: BLE001 - anyone's table, anyone's exception: it must not end training
            hint = "give (columns, rows), a list of dicts or a frame"
            self._drop(_shown(name), f"is no table ({_words(error)}); {hint}")
            return None

    def _is_sound(self, key: object) -> bool:
        if not isinstance(key, str):
            self._drop(_shown(key), f"a key must be a string, not {type(key).__name__}")
        elif not 0 < len(key) <= LONGEST_KEY:
            self._drop(_shown(key), f"a key must have 1 to {LONGEST_KEY} characters, not {len(key)}")
        elif not key.isprintable() or key.isspace():
            self._drop(_shown(key), "a key must consist of printable characters")
        else:
            self._sound.add(key)
            return True
        return False

    def _number(self, key: str, value: Any) -> int | float | None:
        """A plain number; `.item()` of a GPU tensor waits for the GPU, as nothing else can read it."""
        given = type(value).__name__
        try:
            plain = value.item() if hasattr(value, "item") else value
            if isinstance(plain, _BYTES):  # float() would take what they spell
                raise TypeError
            if isinstance(plain, int) and -_INT64 <= (whole := int.__int__(plain)) < _INT64:
                return whole
            return float(plain)
        except Exception:  # noqa: BLE001 - anyone's object, anyone's exception: it must not end training
            self._drop(key, f"a metric must be one number of 64 bits, not {given}")
            return None

    def _drop(self, key: str, reason: str) -> None:
        self.dropped += 1
        if (key, reason) in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add((key, reason))
        logger.warning("%s: %s: %s", self._writer, key, reason)
        if len(self._told) == _MOST_TOLD:
            logger.warning("%s: from now on, what cannot be logged is only counted", self._writer)


def _split_table(table: Any) -> tuple[Sequence[object], Iterable[Iterable[object]]]:
    if hasattr(table, "columns") and hasattr(table, "itertuples"):
        return list(table.columns), table.itertuples(index=False, name=None)
    if isinstance(table, tuple):
        columns, rows = table
        return list(columns), rows
    records = list(table)
    if not all(isinstance(record, Mapping) for record in records):
        raise TypeError("its records are no mappings")
    columns = list(dict.fromkeys(column for record in records for column in record))
    return columns, ([record.get(column) for column in columns] for record in records)


def _cells(row: Iterable[object], width: int) -> tuple[Cell, ...]:
    if isinstance(row, (Mapping, *_BYTES)):
        raise TypeError(f"a row of it is a {type(row).__name__}")
    cells = tuple(_cell(value) for value in row)
    if len(cells) != width:
        raise ValueError("its rows are not as wide as its columns")
    return cells


def _cell(value: Any) -> Cell:
    """A plain cell; what is no number, text or `None` is shown as text."""
    plain = _scalar(value)
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, int) and -_INT64 <= plain < _INT64:
        return int.__int__(plain)
    if isinstance(plain, float) and math.isfinite(plain):
        return float(plain)
    return _text(str(plain))


def _scalar(value: Any) -> Any:
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # numpy's and torch's way to say that it has several
        return value


def _text(value: str) -> str:
    """Text that can be sent: what a tokenizer cut in two may not be, and no backend would ever take it."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _shown(key: object) -> str:
    """What names a key in a message, whatever it is."""
    try:
        return ascii(key)[:80] if not isinstance(key, str) or not key.isprintable() else key[:80]
    except Exception:  # noqa: BLE001 - anyone's object
        return f"<{type(key).__name__}>"


def _words(error: Exception) -> str:
    """What an error of anyone's says, on one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}"[:200].split())
    except Exception:  # noqa: BLE001 - anyone's object
        return type(error).__name__
