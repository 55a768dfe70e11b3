"""Says what is wrong with a config: where, what was given, what is valid, what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from rolecall.config.loading import Settings
from rolecall.config.redact import is_secret_name, scrub

DESCRIBED = "described"
"""The type of an error whose message says everything already."""
LONGEST = 100
SCALARS = (bool, int, float, str, date)
_NAME = "must be 1 to 200 characters, without control characters"
_FORMATS = {
    **dict.fromkeys(["project", "name", "group"], _NAME),
    "run_id": "must be 1 to 128 letters, digits, '.', '_' and '-', and start with a letter or a digit",
}
# By the beginning of the type of pydantic's error, `int_parsing` for one. What is not here keeps pydantic's own words,
# which name the limit.
_EXPECTED = {
    "string": "must be a string",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "dict": "must be a mapping",
    "model": "must be a mapping",
    "list": "must be a list",
    "tuple": "must be a list",
}
_OF_TYPE = ("_type", "_parsing", "_from_float")


def explain(error: ValidationError, settings: Settings, names: Collection[str]) -> str:
    """Write a message with a line for each problem.

    Args:
        error: what pydantic found.
        settings: what the user wrote.
        names: the names of all settings.
    """
    lines = [f"{settings.origin or 'config'} cannot be used:"]
    for problem in error.errors(include_url=False):
        loc = problem["loc"]
        told = problem["msg"] if problem["type"] == DESCRIBED else describe(problem, names if len(loc) == 1 else ())
        lines.append(f"{settings.prefix}{'.'.join(map(str, loc)) or 'config'}: {told}")
    return "\n  ".join(lines)


def describe(problem: Any, allowed: Collection[str], backend: str = "", *, is_shown: bool = True) -> str:
    """What is wrong with one value, and what to do.

    Args:
        problem: what pydantic found.
        allowed: the names that are valid in this place.
        backend: the backend that the value is an argument of; empty for a setting.
        is_shown: whether the value is known not to be a secret.
    """
    kind, value, name = problem["type"], problem["input"], str(problem["loc"][-1]) if problem["loc"] else ""
    if kind == "extra_forbidden":
        near = get_close_matches(name, sorted(allowed), n=1)
        what = f"unknown argument of {backend}" if backend else "unknown setting"
        hint = f"did you mean {near[0]!r}?" if near else "remove it;"
        return f"{what}; {hint} allowed: {', '.join(sorted(allowed)) or 'none'}"
    if kind == "missing":
        return f"missing; {backend or 'every config'} needs it"
    if value is None:
        given = "nothing"
    elif is_secret_name(name) or not is_shown:
        given = kind_of(value)
    else:
        given = str(value) if isinstance(value, date) else repr(scrub(value))
        given = given if len(given) <= LONGEST else f"{given[: LONGEST - 3]}..."
    # YAML reads more as numbers and dates than people expect: `name: 2024-05-01` is a date.
    advice = "; put it in quotes" if kind == "string_type" and isinstance(value, SCALARS) else ""
    return f"{_expected(problem, backend)}; given {given}{advice}"


def kind_of(value: object) -> str:
    """What a value is, where it may be a secret."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _expected(problem: Any, backend: str) -> str:
    kind, words = problem["type"], str(problem["msg"])
    if kind.endswith(_OF_TYPE) and (expected := _EXPECTED.get(kind.partition("_")[0])):
        return expected
    if kind.startswith("string_") and not backend and problem["loc"][0] in _FORMATS:
        return _FORMATS[problem["loc"][0]]
    for start in ("Value error, ", "Input ", "String "):
        words = words.removeprefix(start)
    return words.replace("should be ", "must be ", 1) if words.startswith("should be ") else words
