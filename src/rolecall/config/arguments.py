"""Types the arguments of backends, and says what is wrong with a config: where, what was given, what is valid."""

from collections.abc import Collection, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from rolecall.config.loading import BLOCK, Settings
from rolecall.config.redact import is_secret_name, kind_of, reveal, scrub_text, shown, shown_name

_DESCRIBED = "described"
"""The type of an error whose message says everything already."""
_SCALARS = (bool, int, float, str, date)
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


def typed_args(value: object, models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    """The arguments of every selected backend.

    Args:
        value: the arguments of the only backend, or a mapping from each backend to its arguments.
        models: the selected backends' models.

    Raises:
        ValidationError: each problem in words, under its path below `monitor_args`.
    """
    problems: list[tuple[tuple[int | str, ...], str]] = []
    if value is None or not models:
        value = {}
    if not isinstance(value, Mapping):
        problems.append(((), f"must be a mapping of arguments; given {kind_of(value)}"))
        value, models = {}, {}
    is_keyed = len(models) != 1 or _is_keyed(value, *models.items())
    given = value if is_keyed else dict.fromkeys(models, value)
    typed: dict[str, BaseModel] = {}
    # The message has no value: what is under an unknown name may be a secret.
    not_selected = f"not a backend of monitor_type; allowed: {', '.join(models)}, each with a mapping of its arguments"
    problems += [((str(key),), not_selected) for key in given if key not in models]
    for name, model in models.items():
        try:
            typed[name] = _typed(model, given.get(name))
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                path = (name, *problem["loc"]) if is_keyed else problem["loc"]
                problems.append((path, _describe_argument(problem, name, model)))
    if problems:
        # The message goes in as a value: it may hold braces, which a template would try to fill in.
        details = [
            InitErrorDetails(type=PydanticCustomError(_DESCRIBED, "{words}", {"words": words}), loc=path, input=None)
            for path, words in problems
        ]
        raise ValidationError.from_exception_data("monitor_args", details, hide_input=True)
    return typed


def plain_args(args: Mapping[str, BaseModel]) -> Any:
    """The input from which `typed_args` makes the same models, ready for JSON and **with secrets unmasked**."""
    plain = {name: reveal(model.model_dump(by_alias=True, round_trip=True)) for name, model in args.items()}
    return to_jsonable_python(plain if len(plain) != 1 else next(iter(plain.values())))


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
        text = problem["msg"] if problem["type"] == _DESCRIBED else _describe(problem, names if len(loc) == 1 else ())
        lines.append(f"{settings.prefix}{'.'.join(map(shown_name, loc)) or 'config'}: {scrub_text(text)}")
    return "\n  ".join(lines)


def _describe(problem: Any, allowed: Collection[str], backend: str = "", *, is_shown: bool = True) -> str:
    """What is wrong with one value, and what to do.

    Args:
        problem: what pydantic found.
        allowed: the names that are valid in this place.
        backend: the backend that the value is an argument of; empty for a setting.
        is_shown: whether the value is known not to be a secret.
    """
    kind, value, name = problem["type"], problem["input"], str(problem["loc"][-1]) if problem["loc"] else ""
    if kind == "extra_forbidden":
        # `monitr:` in a whole training config is our block, misspelled.
        near = get_close_matches(name, sorted(allowed) if backend else [BLOCK, *sorted(allowed)], n=1)
        what = f"unknown argument of {backend}" if backend else "unknown setting"
        hint = f"did you mean {near[0]!r}?" if near else "remove it;"
        return f"{what}; {hint} allowed: {', '.join(sorted(allowed)) or 'none'}"
    if kind == "missing":
        return f"missing; {backend or 'every config'} needs it"
    is_hidden = value is not None and (is_secret_name(name) or not is_shown)
    given = kind_of(value) if is_hidden else shown(value)
    # YAML reads more as numbers and dates than people expect: `name: 2024-05-01` is a date.
    advice = "; put it in quotes" if kind == "string_type" and isinstance(value, _SCALARS) else ""
    return f"{_expected(problem, backend)}; given {given}{advice}"


def _expected(problem: Any, backend: str) -> str:
    kind, words = problem["type"], str(problem["msg"])
    if kind.endswith(_OF_TYPE) and (expected := _EXPECTED.get(kind.partition("_")[0])):
        return expected
    if kind.startswith("string_") and not backend and problem["loc"][0] in _FORMATS:
        return _FORMATS[problem["loc"][0]]
    for start in ("Value error, ", "Input ", "String "):
        words = words.removeprefix(start)
    return words.replace("should be ", "must be ", 1) if words.startswith("should be ") else words


def _is_keyed(value: Mapping[Any, Any], only: tuple[str, type[BaseModel]]) -> bool:
    """Whether the only backend's arguments are given under its name."""
    name, model = only
    if list(value) != [name]:
        return False
    # A backend `acme` may have an argument `acme`; a typed model under that name can only be the backend's.
    own = {key for field, info in model.model_fields.items() for key in (field, info.alias)}
    return name not in own or isinstance(value[name], model)


def _typed(model: type[BaseModel], value: object) -> BaseModel:
    if isinstance(value, model):
        return value
    # `dict`: pydantic takes an OmegaConf node or another Mapping for a foreign object
    return model.model_validate(dict(value or {}) if value is None or isinstance(value, Mapping) else value)


def _describe_argument(problem: Any, backend: str, model: type[BaseModel]) -> str:
    """What is wrong with an argument; its value is left out if it may be a secret."""
    fields = model.model_fields if len(problem["loc"]) == 1 else {}
    # An argument may be a password whatever it is called, until its model says otherwise.
    field = fields.get(str(problem["loc"][0])) if fields else None
    is_shown = field is not None and "Secret" not in repr(field.annotation) and isinstance(problem["input"], _SCALARS)
    return _describe(problem, [info.alias or name for name, info in fields.items()], backend, is_shown=is_shown)
