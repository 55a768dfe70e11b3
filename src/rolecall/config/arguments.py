"""`monitor_args`: what a user wrote, made the typed model of each backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from rolecall.config.redact import reveal

__all__ = ["plain_args", "typed_args"]


def typed_args(value: object, models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    """The arguments of every selected backend.

    Args:
        value: the arguments of the only backend, or a mapping of each one's.
        models: the selected backends' models.

    Raises:
        ValidationError, PydanticCustomError: for pydantic to place, and for `rolecall.config.messages` to tell.
    """
    if value is None or not models:
        value = {}
    if not isinstance(value, Mapping):
        raise PydanticCustomError("monitor_args", "must be a mapping of arguments")
    if len(models) == 1 and not _is_keyed(value, models):
        ((name, model),) = models.items()
        return {name: _typed_model(model, value)}
    return _typed_several(value, models)


def plain_args(args: Mapping[str, BaseModel]) -> Any:
    """What `typed_args` makes the same models of, ready for JSON and **with secrets unmasked**."""
    plain = {name: reveal(model.model_dump(by_alias=True, round_trip=True)) for name, model in args.items()}
    return to_jsonable_python(plain if len(plain) != 1 else next(iter(plain.values())))


def _is_keyed(value: Mapping[Any, Any], models: Mapping[str, type[BaseModel]]) -> bool:
    """Whether the only backend's arguments stand under its name all the same."""
    ((name, model),) = models.items()
    if list(value) != [name]:
        return False
    own = {key for field, info in model.model_fields.items() for key in (field, info.alias)}
    return name not in own or isinstance(value[name], model)


def _typed_model(model: type[BaseModel], value: object) -> BaseModel:
    if isinstance(value, model):
        return value
    return model.model_validate(dict(value or {}) if value is None or isinstance(value, Mapping) else value)


def _typed_several(value: Mapping[Any, Any], models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    typed: dict[str, BaseModel] = {}
    faults = [_stray(key, models) for key in value if key not in models]
    for name, model in models.items():
        try:
            typed[name] = _typed_model(model, value.get(name))
        except ValidationError as error:
            faults += [_moved(fault, name) for fault in error.errors(include_url=False)]
    if faults:
        raise ValidationError.from_exception_data("monitor_args", faults, hide_input=True)
    return typed


def _stray(key: object, models: Mapping[str, type[BaseModel]]) -> InitErrorDetails:
    fault = PydanticCustomError(
        "not_selected",
        "is not a backend of monitor_type; valid are {valid}, each with a mapping of its arguments",
        {"valid": ", ".join(models)},
    )
    return InitErrorDetails(type=fault, loc=(str(key),), input=None)


def _moved(fault: Any, name: str) -> InitErrorDetails:
    """The same fault, one step further down the path. Its words may hold braces, so they are no template."""
    kind = PydanticCustomError(fault["type"], "{words}", {"words": fault["msg"]})
    return InitErrorDetails(type=kind, loc=(name, *fault["loc"]), input=fault["input"])
