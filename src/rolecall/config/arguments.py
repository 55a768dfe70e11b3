"""`monitor_args`: turns what a user wrote into the typed model of each backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from rolecall.config.redact import reveal


def typed_args(value: object, models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    """The arguments of every selected backend.

    Args:
        value: the arguments of the only backend, or a mapping from each backend to its arguments.
        models: the selected backends' models.

    Raises:
        ValidationError, PydanticCustomError: pydantic adds the path, `rolecall.config.messages` writes the message.
    """
    if value is None or not models:
        value = {}
    if not isinstance(value, Mapping):
        raise PydanticCustomError("monitor_args", "must be a mapping of arguments")
    if len(models) == 1 and not _is_keyed(value, models):
        ((name, model),) = models.items()
        return {name: _typed(model, value)}
    typed: dict[str, BaseModel] = {}
    not_selected = PydanticCustomError(
        "not_selected",
        "not a backend of monitor_type; allowed: {allowed}, each with a mapping of its arguments",
        {"allowed": ", ".join(models)},
    )
    # without the input: what is under an unknown name may be a secret
    problems = [InitErrorDetails(type=not_selected, loc=(str(key),), input=None) for key in value if key not in models]
    for name, model in models.items():
        try:
            typed[name] = _typed(model, value.get(name))
        except ValidationError as error:
            problems += [_below(name, problem) for problem in error.errors(include_url=False)]
    if problems:
        raise ValidationError.from_exception_data("monitor_args", problems, hide_input=True)
    return typed


def plain_args(args: Mapping[str, BaseModel]) -> Any:
    """The input from which `typed_args` makes the same models, ready for JSON and **with secrets unmasked**."""
    plain = {name: reveal(model.model_dump(by_alias=True, round_trip=True)) for name, model in args.items()}
    return to_jsonable_python(plain if len(plain) != 1 else next(iter(plain.values())))


def _is_keyed(value: Mapping[Any, Any], models: Mapping[str, type[BaseModel]]) -> bool:
    """Whether the only backend's arguments are given under its name."""
    ((name, model),) = models.items()
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


def _below(name: str, problem: Any) -> InitErrorDetails:
    """The same problem, one step further down the path."""
    # The message goes in as a value: it may hold braces, which a template would try to fill in.
    kind = PydanticCustomError(problem["type"], "{words}", {"words": problem["msg"]})
    return InitErrorDetails(type=kind, loc=(name, *problem["loc"]), input=problem["input"])
