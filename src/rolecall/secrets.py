"""Keeps secrets out of what rolecall writes.

Secrets stand in a backend's arguments as `pydantic.SecretStr`, which masks itself. A role's `run_config` is
anyone's mapping, so it is scrubbed by the names of its keys, by the known secrets of the job, and of the user
part of URIs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

__all__ = ["MASK", "reveal", "scrub", "scrub_text", "secrets_of"]

MASK = "**********"
_SECRET_KEY = re.compile(
    r"(^|[_.-])(api_?key|access_?key|private_?key|secret|secret_?key|token|auth_?token|passw(or)?d|credentials?)$",
    re.IGNORECASE,
)
_URI_USER = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/@\s]+@")
_SHORTEST = 4


def scrub(value: Any, secrets: tuple[str, ...] = ()) -> Any:
    """A copy of a config that is ready for JSON and holds no secret; what JSON lacks becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): _scrub_item(str(key), item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [scrub(item, secrets) for item in value]
    if isinstance(value, (SecretStr, SecretBytes)):
        return MASK
    if isinstance(value, BaseModel):
        return scrub(value.model_dump(), secrets)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return scrub_text(str(value), secrets)


def _scrub_item(key: str, value: Any, secrets: tuple[str, ...]) -> Any:
    hidden = _SECRET_KEY.search(key) is not None and isinstance(value, (str, bytes))
    return MASK if hidden else scrub(value, secrets)


def scrub_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without known secrets and without the user part of any URI."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _URI_USER.sub(rf"\g<scheme>{MASK}@", text)


def public_args(model: BaseModel) -> dict[str, Any]:
    """What of a backend's arguments may be written down; what holds a secret is left out, not masked."""
    dump = to_jsonable_python({name: getattr(model, name) for name in model.model_fields_set})
    return {
        name: value
        for name, value in dump.items()
        if scrub({name: value}) == {name: value} and MASK not in str(value)
    }


def secrets_of(value: Any) -> tuple[str, ...]:
    """Every secret in a model's fields, longest first; too short ones would mask half of every text."""
    found = {secret for secret in _secrets(value) if len(secret) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item)


def reveal(value: Any) -> Any:
    """The plain value with every secret unmasked: for `to_env` alone."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [reveal(item) for item in value]
    return value
