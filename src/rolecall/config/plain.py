"""Makes plain values of anyone's config: mappings, lists, strings and numbers, without secrets, ready for JSON.

A `run_config` may be OmegaConf, a dataclass, a Namespace, a model; it may hold itself, and any of it may raise whatever
it likes when it is read. What can be kept is kept, and what cannot is named.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rolecall.config.redact import MASK, hides, is_secret, replace_secrets, scrub_text

_INT64: Final = 1 << 63
_LONGEST_DECIMAL: Final = 4096
_DEEPEST: Final = 50
_MOST: Final = 100_000
"""Values: where a mapping holds another one twice, which does the same, and so on, no disk would hold them all."""
_MOST_TEXT: Final = 4 << 20
"""Characters: a config is one line of a journal, and readers take lines of 32 MiB."""

_Readers = Mapping[str, Callable[[], Any]] | list[Callable[[], Any]]


def plain(value: object, secrets: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """The value without its secrets, ready for JSON, and the dotted paths of what was left out, with the reason.

    Enums become their values; numpy's scalars stay numbers; what is no container and no number becomes its text.
    """
    copy = _Copy(secrets)
    found = next(copy.read(lambda: value, ()), None)
    return found, copy.left_out


def plain_config(config: object, secrets: tuple[str, ...] = ()) -> tuple[dict[str, Any], list[str]]:
    """The same for a whole `run_config`, as a mapping; what is none comes under the key `config`."""
    if config is None:
        return {}, []
    found, left_out = plain(config, secrets)
    return found if isinstance(found, dict) else {"config": found}, left_out


def scrub(value: object, secrets: tuple[str, ...] = ()) -> Any:
    """The value without its secrets, ready for JSON."""
    return plain(value, secrets)[0]


def public_args(model: BaseModel) -> dict[str, Any]:
    """The arguments of a backend that may be written to disk: those without a secret."""
    # Left out, not masked: `rolecall deliver` reads them back, and would take a mask for the password.
    given = model.model_dump(exclude_unset=True, by_alias=True, round_trip=True)
    dump = to_jsonable_python(replace_secrets(given, lambda _: MASK))
    return {name: value for name, value in dump.items() if MASK not in str(scrub({name: value}))}


class _Unreadable(Exception):
    """A value that is left out; why."""


class _Copy:
    """One copy of one config."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.left_out: list[str] = []
        self._secrets = secrets
        self._around: set[int] = set()
        self._count = 0
        self._text = 0

    def read(self, read: Callable[[], Any], path: tuple[str, ...], hidden_by: str = "") -> Iterator[Any]:
        """The plain value, once; nothing if it had to be left out."""
        try:
            self._count += 1
            if self._count > _MOST:
                raise _Unreadable(f"the config holds more than {_MOST:,} values")
            value = read()
            yield MASK if hides(hidden_by, value) else self._plain(value, path)
        except Exception as error:  # noqa: BLE001 - anyone's object raises anything
            reason = str(error) if isinstance(error, _Unreadable) else f"it cannot be read ({type(error).__name__})"
            self.left_out.append(f"{'.'.join(path) or 'the config'}: {reason}")

    def _plain(self, value: Any, path: tuple[str, ...]) -> Any:
        value = value.value if isinstance(value, Enum) else value
        match value:
            case _ if is_secret(value):
                return MASK
            case None | bool():
                return value
            case float() | int():
                return _number(value)
            case str():
                self._text += len(value)
                if self._text > _MOST_TEXT:
                    raise _Unreadable(f"the config holds more than {_MOST_TEXT:,} characters of text")
                return scrub_text(str.__str__(value), self._secrets)
            case _ if (readers := _readers(value)) is not None:
                return self._container(value, readers, path)
            case _:
                return self._plain(_scalar_or_text(value), path)

    def _container(self, value: object, readers: _Readers, path: tuple[str, ...]) -> Any:
        if id(value) in self._around:
            raise _Unreadable("it holds itself")
        if len(path) > _DEEPEST:
            raise _Unreadable(f"it is nested deeper than {_DEEPEST}")
        self._around.add(id(value))
        try:
            if isinstance(readers, list):
                return [item for at, read in enumerate(readers) for item in self.read(read, (*path, str(at)))]
            names = {key: scrub_text(key, self._secrets) for key in readers}
            return {
                names[key]: item
                for key, read in readers.items()
                for item in self.read(read, (*path, names[key]), hidden_by=key)
            }
        finally:
            self._around.discard(id(value))


def _readers(value: Any) -> _Readers | None:
    """How to read what is inside, one by one, as each may fail; `None` for what is no container."""
    names: Iterable[str]
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return None
        case BaseModel():
            names = type(value).model_fields
        case _ if isinstance(value, _namespaces()):
            names = vars(value)
        case _ if dataclasses.is_dataclass(value) and not inspect.isclass(value):
            names = [field.name for field in dataclasses.fields(value)]
        case tuple() if fields := getattr(type(value), "_fields", None):
            names = fields
        case Mapping():
            return {str(key): partial(value.__getitem__, key) for key in value}
        case Sequence():
            return [partial(value.__getitem__, at) for at in range(min(len(value), _MOST))]
        case AbstractSet():
            return [partial(lambda item: item, item) for item in islice(value, _MOST)]
        case _:
            return None
    return {name: partial(getattr, value, name) for name in names}


def _namespaces() -> tuple[type, ...]:
    # Whoever has an `argparse.Namespace` has imported argparse; a role that has none need not.
    argparse = sys.modules.get("argparse")
    return (SimpleNamespace, argparse.Namespace) if argparse else (SimpleNamespace,)


def _number(value: Any) -> float | int | str:
    if isinstance(value, float):
        return float.__float__(value)
    number = int.__int__(value)
    if -_INT64 <= number < _INT64:
        return number
    # pandas takes 64 bits, and Python's json 4,300 digits.
    return str(number) if number.bit_length() < _LONGEST_DECIMAL else hex(number)


def _scalar_or_text(value: Any) -> bool | float | int | str:
    """A scalar of numpy or torch as a number, anything else as words."""
    if callable(getattr(type(value), "item", None)) and not getattr(value, "shape", ()):
        scalar = value.item()
        if isinstance(scalar, (bool, float, int, str)):
            return scalar
    is_named = inspect.isclass(value) or inspect.isroutine(value)
    return f"{value.__module__}.{value.__qualname__}" if is_named else str(value)
