"""What `log` is given, made ready for the journal.

Almost every row is a dictionary of floats under keys that were logged before. It is recognised by the types of its
values, without a look at each value, and encoded as it is. Anything else is looked at value by value: what JSON cannot
hold, or what no backend could take, is left out, counted, and reported once for each key. Training sees no error of it.
"""

import logging
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from rolecall.rows import Cell, TableData
from rolecall.store.codec import ensure_memory

logger = logging.getLogger("rolecall")

LONGEST_KEY: Final = 512
INT64: Final = 1 << 63
_MOST_WARNINGS: Final = 1000
_MOST_KEYS: Final = 100_000
_DEEPEST: Final = 50
# Exact types only: a subclass may lie about itself, and the encoder would take it at its word.
_FIXED: Final = frozenset([float, bool])
_PLAIN: Final = _FIXED | {int, str}
# No key holds a newline, so joined keys of a known number tell which keys they are, by what they spell: a subclass of
# str may lie about its hash and equality. It takes half of the time of a look at their types and a tuple of them.
_joined: Final = "\n".join
_BYTES: Final = (bytes, bytearray, memoryview)


class Normalizer:
    """Turns what one role logs into rows that the journal can hold.

    Attributes:
        dropped: how many values and rows were left out so far.
    """

    def __init__(self, writer: str) -> None:
        self.dropped = 0
        self._writer = writer
        self._known: dict[str, int] = {}
        self._known_size = 0
        self._warned: set[tuple[str, str]] = set()

    def step(self, value: object) -> int | None:
        """The step as an int; `None` if it is not a whole number of 64 bits."""
        fault = "fit in 64 bits"
        try:
            # An index may be a bool, which JSON writes as `true`, or any other kind of int.
            step = int.__int__(operator.index(value))  # type: ignore[arg-type]
            if -INT64 <= step < INT64:
                return step
        except Exception:  # noqa: BLE001 - anyone's object raises anything, and training must go on
            fault = f"be a whole number, not {type(value).__name__}"
        self.drop("step", f"a step must {fault}; the row is left out")
        return None

    def row(self, data: object) -> Mapping[str, Any]:
        """What of a mapping can be recorded: almost always the mapping itself. Empty if nothing can."""
        try:
            if type(data) is dict and self._known.get(_joined(data)) == len(data):
                if _FIXED.issuperset(map(type, data.values())):
                    return data  # `append` knows how much memory that takes
                if _has_small_ints(data.values()):
                    ensure_memory(data)
                    return data
        except Exception:  # noqa: BLE001, S110 - a class without a hash, for one, costs its own value alone
            pass
        return self.careful(data)

    def careful(self, data: object) -> dict[str, Any]:
        """The same, with a look at each value."""
        if not isinstance(data, Mapping):
            self.drop("data", f"log takes a mapping of metrics, not {type(data).__name__}; the row is left out")
            return {}
        dropped = self.dropped
        plain = self._mapping(data, "", _DEEPEST)
        if self.dropped == dropped and type(data) is dict:
            if self._known_size + len(data) > _MOST_KEYS:
                self._known.clear()
                self._known_size = 0
            self._known[_joined(data)] = len(data)
            self._known_size += len(data)
        ensure_memory(plain)
        return plain

    def drop_row(self, error: Exception) -> None:
        """A row could not be recorded, for a reason that no look at its values shows. Raises nothing."""
        try:
            reason = f"the row cannot be recorded ({_words(error)}) and is left out"
        except Exception:  # noqa: BLE001 - there may be no memory for words
            reason = "the row cannot be recorded and is left out"
        self.drop("data", reason)

    def _mapping(self, data: Mapping[Any, Any], prefix: str, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        try:
            for key, value in data.items():
                name = self._key(key, prefix)
                if name is None:
                    continue
                path = f"{prefix}{name}"
                if isinstance(value, Mapping):
                    if depth:
                        plain[name] = self._mapping(value, f"{path}/", depth - 1)
                    else:
                        self.drop(path, f"mappings are nested deeper than {_DEEPEST}")
                elif value is not None:
                    try:
                        plain[name] = _scalar(value)
                    except MemoryError:
                        self.drop(path, "there is no memory to read it")
                    except Exception:  # noqa: BLE001 - anyone's object raises anything
                        given = type(value).__name__
                        self.drop(path, f"a value must be a number of 64 bits or a string, not {given}")
        except Exception as error:  # noqa: BLE001 - anyone's mapping raises anything
            self.drop(prefix or "data", f"the mapping could not be read to its end ({_words(error)})")
        return plain

    def table(self, name: object, table: Any) -> TableData | None:
        """A table from columns and rows, a list of mappings, or a pandas frame."""
        try:
            if (key := self._key(name)) is None:
                return None
            if hasattr(table, "columns") and hasattr(table, "itertuples"):  # pandas
                columns, rows = table.columns, table.itertuples(index=False, name=None)
            elif isinstance(table, tuple):
                columns, rows = table
            else:
                records = list(table)
                if not all(isinstance(record, Mapping) for record in records):
                    raise TypeError("its records are not mappings")
                columns = dict.fromkeys(column for record in records for column in record)
                rows = ([record.get(column) for column in columns] for record in records)
            names = tuple(_utf8(str(column)) for column in columns)
            return TableData(name=key, columns=names, rows=tuple(_cells(row, len(names)) for row in rows))
        except Exception as error:  # noqa: BLE001 - anyone's table, anyone's exception: it must not end training
            hint = "give (columns, rows), a list of dicts or a frame"
            self.drop(_shown(name), f"not a table ({_words(error)}); {hint}")
            return None

    def _key(self, key: object, prefix: str = "") -> str | None:
        """A key as a plain string; `None` if it cannot be one."""
        if not isinstance(key, str):
            self.drop(_shown(key), f"a key must be a string, not {type(key).__name__}")
            return None
        plain = str.__str__(key)
        if not 0 < len(prefix) + len(plain) <= LONGEST_KEY:
            self.drop(_shown(plain), f"a key must have 1 to {LONGEST_KEY} characters, not {len(prefix) + len(plain)}")
        elif not plain.isprintable() or plain.isspace():
            self.drop(_shown(plain), "a key must consist of printable characters")
        else:
            return plain
        return None

    def drop(self, key: str, reason: str) -> None:
        """Count something that is left out; warn once for each key and reason. Raises nothing."""
        try:
            self.dropped += 1
            if (key, reason) in self._warned or len(self._warned) >= _MOST_WARNINGS:
                return
            self._warned.add((key, reason))
            logger.warning("%s: %s: %s", self._writer, key, reason)
            if len(self._warned) == _MOST_WARNINGS:
                logger.warning("%s: from now on, what is left out is only counted", self._writer)
        except Exception:  # noqa: BLE001, S110 - no memory, or a handler of the user's that raises: it is counted
            pass


def _has_small_ints(values: Collection[Any]) -> bool:
    """Whether these are plain, ints of 64 bits among them: many a reader of JSON takes no longer ones."""
    if not _PLAIN.issuperset(map(type, values)):
        return False
    # A loop, as `all` of a generator takes twice as long.
    for value in values:  # noqa: SIM110
        if type(value) is int and not -INT64 <= value < INT64:
            return False
    return True


def _cells(row: Iterable[object], width: int) -> tuple[Cell, ...]:
    if isinstance(row, (Mapping, str, *_BYTES)):
        raise TypeError(f"a row of it is a {type(row).__name__}")
    cells = tuple(_cell(value) for value in row)
    if len(cells) != width:
        raise ValueError("its rows are not as wide as its columns")
    return cells


def _cell(value: Any) -> Cell:
    """A plain cell; what is not a number, a string or `None` becomes a string."""
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # numpy and torch raise these where there are several values
        plain = value
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, int) and -INT64 <= plain < INT64:
        return int.__int__(plain)
    return float.__float__(plain) if isinstance(plain, float) else _utf8(str(plain))


def _scalar(value: Any) -> str | int | float:
    """A plain string or number.

    Raises:
        Exception: it is neither; what it raises is anyone's.
    """
    # `.item()` makes numpy's and torch's scalars plain. On a GPU it waits: nothing else can read it.
    scalar = value.item() if hasattr(value, "item") else value
    if isinstance(scalar, str):
        # A lone surrogate, as of a token that was cut in two, has no UTF-8.
        return _utf8(str.__str__(scalar))
    if isinstance(scalar, int) and -INT64 <= (whole := int.__int__(scalar)) < INT64:
        return whole
    if isinstance(scalar, _BYTES):  # float() would take what they spell
        raise TypeError
    return float.__float__(scalar) if isinstance(scalar, float) else float(scalar)


def _utf8(value: str) -> str:
    """A string that can be sent: no backend takes a lone surrogate."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _shown(key: object) -> str:
    """A key in a message, whatever it is."""
    try:
        return ascii(key)[:80] if not isinstance(key, str) or not key.isprintable() else key[:80]
    except Exception:  # noqa: BLE001 - anyone's object
        return f"<{type(key).__name__}>"


def _words(error: Exception) -> str:
    """What anyone's error says, on one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}"[:200].split()).removesuffix(":")
    except Exception:  # noqa: BLE001 - anyone's object
        return type(error).__name__
