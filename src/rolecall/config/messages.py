"""Says what is wrong with a config: where, what was given, what is valid, what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from rolecall.config.loading import Settings
from rolecall.config.redact import is_secret_name, scrub

ARGS = "monitor_args"
LONGEST = 100
_NAME = "must be 1 to 200 characters, without control characters"
_FORMATS = {
    "project": _NAME,
    "name": _NAME,
    "group": _NAME,
    "run_id": "must be 1 to 128 letters, digits, '.', '_' and '-', and start with a letter or a digit",
}
# By the type of pydantic's error; what is not here keeps pydantic's own words, which name the limit.
_EXPECTED = {
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
# A boolean is an int to Python: the order counts.
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "a string"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
)


@dataclass(frozen=True, slots=True)
class _Argument:
    """One argument of a backend: the backend, its model, and the path below `monitor_args`."""

    backend: str
    model: type[BaseModel]
    path: tuple[Any, ...]

    @property
    def allowed(self) -> list[str]:
        """The names of the backend's arguments."""
        fields = self.model.model_fields.items() if len(self.path) == 1 else ()
        return sorted(field.alias or name for name, field in fields)

    @property
    def may_be_shown(self) -> bool:
        """Whether its value is known not to be a secret."""
        field = self.model.model_fields.get(str(self.path[0])) if len(self.path) == 1 else None
        return field is not None and "Secret" not in repr(field.annotation)


def explain(
    error: ValidationError, settings: Settings, names: Collection[str], models: Mapping[str, type[BaseModel]]
) -> str:
    """Write a message with a line for each problem.

    Args:
        error: what pydantic found.
        settings: what the user wrote.
        names: the names of all settings.
        models: the arguments of each selected backend, as far as there is such a backend.
    """
    lines = [
        f"{settings.prefix}{'.'.join(map(str, problem['loc'])) or 'config'}: {_describe(problem, names, models)}"
        for problem in error.errors(include_url=False)
    ]
    return "\n  ".join([f"{settings.origin or 'config'} cannot be used:", *lines])


def _describe(problem: Any, names: Collection[str], models: Mapping[str, type[BaseModel]]) -> str:
    argument = _find_argument(problem["loc"], models)
    if problem["type"] == "extra_forbidden":
        return _unknown(problem["loc"], names, argument)
    if problem["type"] == "missing":
        return f"missing; {argument.backend if argument else 'every config'} needs it"
    if problem["type"] == "not_selected":
        return str(problem["msg"])
    advice = ""
    # YAML reads more as numbers and dates than people expect: `name: 2024-05-01` is a date.
    if problem["type"] == "string_type" and _is_scalar(problem["input"]):
        advice = "; put it in quotes"
    return f"{_expected(problem)}; given {_given(problem, argument)}{advice}"


def _find_argument(loc: tuple[Any, ...], models: Mapping[str, type[BaseModel]]) -> _Argument | None:
    """The argument that a problem is in; `None` if it is in no known backend's."""
    if len(loc) > 1 and loc[0] == ARGS and models:
        only = next(iter(models))
        # A single backend's arguments may be given without its name, unless an argument has that name itself.
        if len(models) == 1 and (loc[1] != only or loc[1] in models[only].model_fields):
            return _Argument(only, models[only], loc[1:])
        if loc[1] in models:
            return _Argument(loc[1], models[loc[1]], loc[2:])
    return None


def _unknown(loc: tuple[Any, ...], names: Collection[str], argument: _Argument | None) -> str:
    allowed = argument.allowed if argument else sorted(names) if len(loc) == 1 else []
    near = get_close_matches(str(loc[-1]), allowed, n=1)
    what = f"unknown argument of {argument.backend}" if argument else "unknown setting"
    hint = f"did you mean {near[0]!r}?" if near else "remove it;"
    return f"{what}; {hint} allowed: {', '.join(allowed) or 'none'}"


def _expected(problem: Any) -> str:
    kind, loc = problem["type"], problem["loc"]
    if kind.startswith("string_") and kind != "string_type" and loc[0] in _FORMATS:
        return _FORMATS[loc[0]]
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    words = str(problem["msg"])
    for start in ("Value error, ", "Input ", "String "):
        words = words.removeprefix(start)
    return words.replace("should be ", "must be ", 1) if words.startswith("should be ") else words


def _given(problem: Any, argument: _Argument | None) -> str:
    """The value, or only its kind if it may be a secret."""
    value, name = problem["input"], str(problem["loc"][-1]) if problem["loc"] else ""
    if value is None:
        return "nothing"
    # An argument of a backend may be a password whatever it is called, until its model says otherwise.
    is_known = argument is not None and argument.may_be_shown and _is_scalar(value)
    if is_secret_name(name) or (problem["loc"][:1] == (ARGS,) and not is_known):
        return next((words for kind, words in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")
    text = str(value) if isinstance(value, date) else repr(scrub(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _is_scalar(value: object) -> bool:
    return isinstance(value, (bool, int, float, str, date))
