"""`monitor_args`: turns what a user wrote into the typed model of each backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from rolecall.config.messages import DESCRIBED, SCALARS, describe, kind_of
from rolecall.config.redact import reveal


def typed_args(value: object, models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    """The arguments of every selected backend.

    Args:
        value: the arguments of the only backend, or a mapping from each backend to its arguments.
        models: the selected backends' models.

    Raises:
        ValidationError: each problem in words, under its path below `monitor_args`.
    """
    if value is None or not models:
        value = {}
    if not isinstance(value, Mapping):
        raise _errors([_error((), f"must be a mapping of arguments; given {kind_of(value)}")])
    is_keyed = len(models) != 1 or _is_keyed(value, *models.items())
    given = value if is_keyed else dict.fromkeys(models, value)
    typed: dict[str, BaseModel] = {}
    # The message has no value: what is under an unknown name may be a secret.
    not_selected = f"not a backend of monitor_type; allowed: {', '.join(models)}, each with a mapping of its arguments"
    problems = [_error((str(key),), not_selected) for key in given if key not in models]
    for name, model in models.items():
        try:
            typed[name] = _typed(model, given.get(name))
        except ValidationError as error:
            path = (name,) if is_keyed else ()
            found = error.errors(include_url=False)
            problems += [_error((*path, *problem["loc"]), _describe(problem, name, model)) for problem in found]
    if problems:
        raise _errors(problems)
    return typed


def plain_args(args: Mapping[str, BaseModel]) -> Any:
    """The input from which `typed_args` makes the same models, ready for JSON and **with secrets unmasked**."""
    plain = {name: reveal(model.model_dump(by_alias=True, round_trip=True)) for name, model in args.items()}
    return to_jsonable_python(plain if len(plain) != 1 else next(iter(plain.values())))


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


def _describe(problem: Any, backend: str, model: type[BaseModel]) -> str:
    """What is wrong with an argument; its value is left out if it may be a secret."""
    fields = model.model_fields if len(problem["loc"]) == 1 else {}
    # An argument may be a password whatever it is called, until its model says otherwise.
    field = fields.get(str(problem["loc"][0])) if fields else None
    is_shown = field is not None and "Secret" not in repr(field.annotation) and isinstance(problem["input"], SCALARS)
    return describe(problem, [info.alias or name for name, info in fields.items()], backend, is_shown=is_shown)


def _error(path: tuple[int | str, ...], words: str) -> InitErrorDetails:
    # The message goes in as a value: it may hold braces, which a template would try to fill in.
    return InitErrorDetails(type=PydanticCustomError(DESCRIBED, "{words}", {"words": words}), loc=path, input=None)


def _errors(problems: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("monitor_args", problems, hide_input=True)
