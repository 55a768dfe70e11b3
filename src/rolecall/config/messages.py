"""Tells what is wrong with a config: where, what was given, what is valid, what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from rolecall.backends.builtin import LOCAL
from rolecall.backends.registry import Registry
from rolecall.config.loading import Source
from rolecall.config.redact import is_secret_name, scrub
from rolecall.errors import BackendError

__all__ = ["explain"]

ARGS = "monitor_args"
LONGEST = 100
_NAME = "must be 1 to 200 characters, none of them a control character"
_TEXTS = {
    "project": _NAME,
    "name": _NAME,
    "group": _NAME,
    "run_id": "must be 1 to 128 letters, digits, '.', '_' and '-', and begin with a letter or a digit",
}
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a truth value"),
    ((int, float), "a number"),
    (str, "a text"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
)


@dataclass(frozen=True, slots=True)
class _Argument:
    """A place in a backend's arguments."""

    backend: str
    model: type[BaseModel]
    path: tuple[Any, ...]

    @property
    def names(self) -> list[str]:
        """What may be written there."""
        fields = self.model.model_fields.items() if len(self.path) == 1 else ()
        return sorted(field.alias or name for name, field in fields)

    @property
    def may_be_shown(self) -> bool:
        """Whether its value is known to be no secret."""
        field = self.model.model_fields.get(str(self.path[0])) if len(self.path) == 1 else None
        return field is not None and "Secret" not in repr(field.annotation)


def explain(error: ValidationError, source: Source, settings: Collection[str], registry: Registry) -> str:
    """A message with a line for each fault.

    Args:
        error: what pydantic found.
        source: where the settings stand.
        settings: all that there are.
        registry: where the backends were looked up.
    """
    models = _models(source.data, registry)
    lines = [
        f"{source.prefix}{_path(fault)}: {_words(fault, settings, models)}"
        for fault in error.errors(include_url=False)
    ]
    return "\n  ".join([f"{source.place or 'config'} cannot be used:", *lines])


def _models(data: Mapping[str, Any], registry: Registry) -> dict[str, type[BaseModel]]:
    """The arguments of each selected backend, as far as there is such a backend."""
    names = data.get("monitor_type", LOCAL)
    names = (names,) if isinstance(names, str) else names if isinstance(names, (list, tuple)) else ()
    try:
        return {name: registry.load(name).args_model() for name in names if name in registry.names()}
    except BackendError:
        return {}


def _path(fault: Any) -> str:
    return ".".join(str(part) for part in fault["loc"]) or "config"


def _words(fault: Any, settings: Collection[str], models: Mapping[str, type[BaseModel]]) -> str:
    argument = _argument(fault["loc"], models)
    if fault["type"] == "extra_forbidden":
        return _unknown(fault["loc"], settings, argument)
    if fault["type"] == "missing":
        return f"is missing; {argument.backend if argument else 'every config'} needs it"
    if fault["type"] == "not_selected":
        return str(fault["msg"])
    return f"{_valid(fault)}; given {_given(fault, argument)}{_advice(fault)}"


def _argument(loc: tuple[Any, ...], models: Mapping[str, type[BaseModel]]) -> _Argument | None:
    """The place in a backend's arguments; `None` if the fault is not in those of a known backend."""
    if len(loc) > 1 and loc[0] == ARGS and models:
        only = next(iter(models))
        if len(models) == 1 and (loc[1] != only or loc[1] in models[only].model_fields):
            return _Argument(only, models[only], loc[1:])
        if loc[1] in models:
            return _Argument(loc[1], models[loc[1]], loc[2:])
    return None


def _unknown(loc: tuple[Any, ...], settings: Collection[str], argument: _Argument | None) -> str:
    valid = argument.names if argument else sorted(settings) if len(loc) == 1 else []
    near = get_close_matches(str(loc[-1]), valid, n=1)
    what = f"an argument of {argument.backend}" if argument else "a setting"
    hint = f"did you mean {near[0]!r}? " if near else "take it out; "
    return f"is not {what}; {hint}valid are {', '.join(valid) or 'none'}"


def _valid(fault: Any) -> str:
    """What may stand there."""
    if fault["type"].startswith("string_") and fault["type"] != "string_type" and fault["loc"][0] in _TEXTS:
        return _TEXTS[fault["loc"][0]]
    if fault["type"] in {"bool_parsing", "bool_type"}:
        return "must be true or false"
    words = str(fault["msg"])
    for start in ("Value error, ", "Input ", "String "):
        words = words.removeprefix(start)
    return words


def _given(fault: Any, argument: _Argument | None) -> str:
    """The value, or only its kind if it may be a secret."""
    value, name = fault["input"], str(fault["loc"][-1]) if fault["loc"] else ""
    hidden = fault["loc"][:1] == (ARGS,) and not (argument and argument.may_be_shown and _is_plain(value))
    if value is None:
        return "nothing"
    if is_secret_name(name) or hidden:
        return next((words for kind, words in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")
    text = str(value) if isinstance(value, date) else repr(scrub(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _advice(fault: Any) -> str:
    """YAML reads more as numbers and dates than people think."""
    return "; put it in quotes" if fault["type"] == "string_type" and _is_plain(fault["input"]) else ""


def _is_plain(value: object) -> bool:
    return isinstance(value, (bool, int, float, str, date))
