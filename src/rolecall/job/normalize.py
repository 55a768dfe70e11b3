"""What `log` is given, made ready for the journal.

Almost every row is a dictionary of numbers under short keys that were logged before. One quick look recognises it, and
it is encoded as it is. So are strings and long keys, after a second look. In anything else each value is made ready:
what JSON cannot hold, or what no backend could take, is left out, counted, and reported once for each key. Training
sees no error of it.
"""

import logging
import operator
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

from pydantic_core import to_json

from rolecall.job.media import drafts_of, markdown_draft
from rolecall.job.tables import BYTES, INT64, table_data, table_in, utf8, words
from rolecall.rows import NOT_FINITE, TableData
from rolecall.store.codec import DEFAULT_AXIS, LONGEST_SHORT_KEY, ensure_memory
from rolecall.store.journal import Drafts, More, TableDraft, Values
from rolecall.values import BOXES, Table, Text

logger = logging.getLogger("rolecall")

LONGEST_KEY: Final = 512
LONGEST_TAG: Final = 64
"""As in wandb, which takes no longer ones."""
_MOST_WARNINGS: Final = 1000
_MOST_KEYS: Final = 100_000
_DEEPEST: Final = 50
_MOST_AXES: Final = 100
"""Of a role: their last steps are in every 1,000th line."""
_PLAIN: Final = frozenset([float, bool, int, str])
_Value = TableData | TableDraft | Drafts


class _Unfit(Exception):
    """A value that cannot be recorded, and why."""


@dataclass(slots=True)
class _Found:
    """What a mapping held beside numbers and strings: tables and media, and the keys of texts that spell a number."""

    values: list[_Value] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


class Normalizer:
    """Turns what one role logs into rows that the journal can hold.

    Attributes:
        dropped: how many values and rows were left out so far.
    """

    def __init__(self, writer: str) -> None:
        self.dropped = 0
        self._writer = writer
        self._short: set[str] = set()
        self._long: set[str] = set()
        self._axes: set[str] = set()
        self._warned: set[tuple[str, str]] = set()

    def step(self, value: Any) -> int | None:
        """The step as an int; `None`, which is the next one, if it is not a whole number of 64 bits."""
        fault = "fit in 64 bits"
        try:
            # As for a value. A bool, which JSON would write as `true`, is an index too.
            plain = value.item() if hasattr(value, "item") else value
            if isinstance(plain, float) and float.is_integer(plain):
                plain = float.__int__(plain)
            step = int.__int__(operator.index(plain))
            if -INT64 <= step < INT64:
                return step
        except Exception:  # noqa: BLE001 - anyone's object raises anything, and training must go on
            fault = f"be a whole number, not {type(value).__name__}"
        self.drop("step", f"a step must {fault}; the row is kept at the next one")
        return None

    def axis(self, value: object) -> str:
        """The name of an axis as a plain string; that of the default one if it is none."""
        if (name := self._key(value, what="the name of an axis")) is None:
            return DEFAULT_AXIS
        if name not in self._axes and len(self._axes) >= _MOST_AXES:
            self.drop(_shown(name), f"a role has at most {_MOST_AXES} axes; the row is kept on the role's own axis")
            return DEFAULT_AXIS
        self._axes.add(name)
        return name

    def is_ready(self, data: object) -> bool:
        """Whether it is a dictionary of numbers under short keys that were logged before, as almost every row is.

        `append` sees to the memory that such a row takes.
        """
        if type(data) is not dict:
            return False
        short = self._short
        try:
            # Exact types only: a subclass may lie about itself, and the encoder would take it at its word. A loop, as
            # between two steps of training all that is called is out of the processor's caches.
            for key, value in data.items():
                if type(key) is not str or key not in short or (type(value) is not float and not _is_whole(value)):
                    return False
        except RuntimeError:  # another thread has changed it meanwhile
            return False
        return bool(data)

    def row(self, data: object) -> tuple[Mapping[str, Any], Values, More]:
        """What of a mapping can be recorded, its tables and media, and what the line says of the texts among the rest.

        Often it is the mapping itself, and nothing else.
        """
        with suppress(RuntimeError):  # another thread has changed it meanwhile
            if type(data) is dict and self._is_plain(data):
                ensure_memory(data)
                return data, (), None
        return self.careful(data)

    def careful(self, data: object) -> tuple[dict[str, Any], Values, More]:
        """The same, with a look at each value."""
        if not isinstance(data, Mapping):
            self.drop("data", f"log takes a mapping of metrics, not {type(data).__name__}; the row is left out")
            return {}, (), None
        found = _Found()
        plain = self._mapping(data, "", _DEEPEST, found)
        ensure_memory(plain)
        self._keep(plain)
        return plain, found.values, {"text": found.text} if found.text else None

    def _is_plain(self, data: dict[Any, Any]) -> bool:
        """Whether all of it may be encoded as it is: strings and long keys may be among it."""
        short, long = self._short, self._long
        # A loop, as `all` of a generator takes twice as long.
        for key, value in data.items():
            if type(key) is not str or (key not in short and key not in long):
                return False
            if type(value) is not float and type(value) is not str and not _is_whole(value):
                return False
        return True

    def _keep(self, keys: Collection[str]) -> None:
        """Know these keys from now on."""
        new = [key for key in keys if key not in self._short and key not in self._long]
        if len(self._short) + len(self._long) + len(new) > _MOST_KEYS:
            self._short.clear()
            self._long.clear()
        for key in new:
            (self._short if len(to_json(key)) <= LONGEST_SHORT_KEY else self._long).add(key)

    def drop_row(self, error: Exception) -> None:
        """A row could not be recorded, for a reason that no look at its values shows. Raises nothing."""
        try:
            reason = f"the row cannot be recorded ({words(error)}) and is left out"
        except Exception:  # noqa: BLE001 - there may be no memory for words
            reason = "the row cannot be recorded and is left out"
        self.drop("data", reason)

    def _mapping(self, data: Mapping[Any, Any], prefix: str, depth: int, found: _Found) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        try:
            for key, value in data.items():
                name = self._key(key, prefix)
                if name is None or value is None:
                    continue
                path = f"{prefix}{name}"
                try:
                    content = self._content(value, path, depth, found)
                except MemoryError:
                    self.drop(path, "there is no memory to read it")
                except _Unfit as error:
                    self.drop(path, str(error))
                except Exception:  # noqa: BLE001 - anyone's object raises anything
                    given = type(value).__name__
                    self.drop(path, f"a value must be a number of 64 bits or a string, not {given}")
                else:
                    if content is not None:
                        plain[name] = content
        except Exception as error:  # noqa: BLE001 - anyone's mapping raises anything
            self.drop(prefix or "data", f"the mapping could not be read to its end ({words(error)})")
        return plain

    def _content(self, value: Any, path: str, depth: int, found: _Found) -> Any:
        """A plain number, string or mapping; `None` for tables and media, which are among what was `found`."""
        is_boxed = isinstance(value, BOXES)
        if not is_boxed and is_dataclass(value) and not isinstance(value, type):
            value = {each.name: getattr(value, each.name) for each in fields(value)}
        if not is_boxed and isinstance(value, Mapping):
            if not depth:
                raise _Unfit(f"mappings are nested deeper than {_DEEPEST}")
            before = len(found.values)
            inner = self._mapping(value, f"{path}/", depth - 1, found)
            return inner if inner or len(found.values) == before else None
        if isinstance(value, Text) and not value.markdown:
            text = str(_scalar(value.text))
            if text in NOT_FINITE:
                found.text.append(path)
            return text
        if (rich := _rich(value, path)) is not None:
            found.values.append(rich)
            for draft in rich.drafts if isinstance(rich, Drafts) else ():
                if draft.note:
                    self.drop(path, draft.note)
            return None
        return _scalar(value)

    def table(self, name: object, table: Any) -> TableData | TableDraft | None:
        """A table under a name; `None` if it is none."""
        if (key := self._key(name)) is None:
            return None
        try:
            return table_data(key, table if isinstance(table, Table) else Table(table))
        except Exception as error:  # noqa: BLE001 - anyone's table, anyone's exception: it must not end training
            hint = "give (columns, rows), a list of dicts or a frame"
            self.drop(_shown(name), f"not a table ({words(error)}); {hint}")
            return None

    def summary(self, values: Mapping[Any, Any]) -> dict[str, float | str]:
        """What of a mapping can be in a summary: numbers and strings."""
        found: dict[str, float | str] = {}
        for key, value in values.items():
            if (name := self._key(key)) is None:
                continue
            try:
                found[name] = _scalar(value.text if isinstance(value, Text) else value)
            except Exception:  # noqa: BLE001 - anyone's object raises anything
                self.drop(name, f"a value of the summary must be a number or a string, not {type(value).__name__}")
        return found

    def tag(self, tag: object) -> str | None:
        """A tag as a plain string; `None` if it cannot be one."""
        return self._key(tag, what="a tag", longest=LONGEST_TAG)

    def backends(self, given: object, known: Collection[str]) -> list[str]:
        """Those of the backends' names that are known."""
        names = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
        for name in names:
            if name not in known:
                have = f"this job has {', '.join(known)}"
                self.drop(_shown(name), f"there is no backend of this name, so the row does not go there; {have}")
        return [str(name) for name in known if name in names]

    def _key(self, key: object, prefix: str = "", *, what: str = "a key", longest: int = LONGEST_KEY) -> str | None:
        """A key, or what else has the form of one, as a plain string; `None` if it cannot be one."""
        if not isinstance(key, str):
            self.drop(_shown(key), f"{what} must be a string, not {type(key).__name__}")
            return None
        plain = str.__str__(key)
        if not 0 < len(prefix) + len(plain) <= longest:
            self.drop(_shown(plain), f"{what} must have 1 to {longest} characters, not {len(prefix) + len(plain)}")
        elif not plain.isprintable() or plain.isspace():
            self.drop(_shown(plain), f"{what} must consist of printable characters")
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


def _rich(value: Any, key: str) -> _Value | None:
    """The table or the media that a value is; `None` if it is none.

    Raises:
        _Unfit: it is one that cannot be recorded.
    """
    if type(value) in _PLAIN:
        return None
    try:
        if (table := table_in(value)) is not None:
            return table_data(key, table)
        drafts = [markdown_draft(value)] if isinstance(value, Text) else drafts_of(value)
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else words(error)
        raise _Unfit(f"this {type(value).__name__} cannot be logged: {reason}") from error
    return None if drafts is None else Drafts(key, drafts)


def _is_whole(value: Any) -> bool:
    """Whether it is a bool, or an int of 64 bits: many a reader of JSON takes no longer ones."""
    return type(value) is bool or (type(value) is int and -INT64 <= value < INT64)


def _scalar(value: Any) -> str | int | float:
    """A plain string or number.

    Raises:
        Exception: it is neither; what it raises is anyone's.
    """
    # `.item()` makes numpy's and torch's scalars plain. On a GPU it waits: nothing else can read it.
    scalar = value.item() if hasattr(value, "item") else value
    if isinstance(scalar, str):
        # A lone surrogate, as of a token that was cut in two, has no UTF-8.
        return utf8(str.__str__(scalar))
    if isinstance(scalar, int) and -INT64 <= (whole := int.__int__(scalar)) < INT64:
        return whole
    if isinstance(scalar, BYTES):  # float() would take what they spell
        raise TypeError
    return float.__float__(scalar) if isinstance(scalar, float) else float(scalar)


def _shown(key: object) -> str:
    """A key in a message, whatever it is."""
    try:
        return ascii(key)[:80] if not isinstance(key, str) or not key.isprintable() else key[:80]
    except Exception:  # noqa: BLE001 - anyone's object
        return f"<{type(key).__name__}>"
