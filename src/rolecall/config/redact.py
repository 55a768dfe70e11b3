"""Keeps secrets out of what rolecall writes.

A backend's arguments hold secrets as `pydantic.SecretStr`, which masks itself. A role's `run_config` is any mapping,
so rolecall masks values under keys that sound secret, the known secrets of the job, and the user part of URIs.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

MASK = "**********"
_TOKEN = re.compile(r"(^|[_.-])(auth_?)?token$", re.IGNORECASE)
_SECRET_NAME = re.compile(
    r"(^|[_.-])(api_?key|access_?key|private_?key|secret|secret_?key|passw(or)?d|credentials?)$", re.IGNORECASE
)
_URI_USER = re.compile(r"://[^/?#\s]*@")
"""Up to the last `@` of the host's part: a password may contain one."""
_SHORTEST = 4
"""Shorter secrets are not looked for: masking them would mask half of every text."""
_DEEPEST = 50
_COLLECTIONS = (list, tuple, set, frozenset)


def is_secret_name(name: str) -> bool:
    """Whether the value under such a key is treated as a secret."""
    return bool(_TOKEN.search(name) or _SECRET_NAME.search(name))


def scrub(value: Any, secrets: tuple[str, ...] = (), depth: int = _DEEPEST) -> Any:
    """Copy a config without its secrets, ready for JSON; values that JSON lacks become strings.

    Values nested deeper than `depth` are left out: a mapping may contain itself.
    """
    if _is_secret(value):
        return MASK
    if isinstance(value, (Mapping, BaseModel, *_COLLECTIONS)):
        return _scrub_inside(value, secrets, depth - 1) if depth else "..."
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return scrub_text(str(value), secrets)


def _scrub_inside(value: Any, secrets: tuple[str, ...], depth: int) -> Any:
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        items = ((str(key), value[key]) for key in value)
        return {scrub_text(key, secrets): _scrub_item(key, item, secrets, depth) for key, item in items}
    return [scrub(item, secrets, depth) for item in value]


def _scrub_item(key: str, value: Any, secrets: tuple[str, ...], depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    # A number under `pad_token` is an index; one under `password` is a password that YAML read as a number.
    is_index = isinstance(value, (int, float)) and _SECRET_NAME.search(key) is None
    return MASK if is_secret_name(key) and not is_index else scrub(value, secrets, depth)


def scrub_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without known secrets and without the user part of any URI."""
    # longest first (see `secrets_of`): one secret may be the beginning of another
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _URI_USER.sub(f"://{MASK}@", text)


def scrub_trace(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """The error's traceback, for a log: an SDK's error may quote the address or the key that it was given."""
    return scrub_text("".join(traceback.format_exception(error)).rstrip(), secrets)


def public_args(model: BaseModel) -> dict[str, Any]:
    """The arguments of a backend that may be written to disk: those without a secret."""
    # Left out, not masked: `rolecall deliver` reads them back, and would take a mask for the password.
    given = model.model_dump(exclude_unset=True, by_alias=True, round_trip=True)
    dump = to_jsonable_python(_replace(given, lambda _: MASK))
    return {
        name: value for name, value in dump.items() if scrub({name: value}) == {name: value} and MASK not in str(value)
    }


def secrets_of(value: Any) -> tuple[str, ...]:
    """Every secret in a model's fields, longest first, but for very short ones."""
    found = {secret for secret in _secrets(value) if len(secret) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _secrets(value: Any) -> Iterator[str]:
    if _is_secret(value):
        secret = value.get_secret_value()
        yield secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, _COLLECTIONS):
        for item in value:
            yield from _secrets(item)


def reveal(value: Any) -> Any:
    """The plain value with every secret unmasked: for `to_env` alone."""
    return _replace(value, lambda secret: secret.get_secret_value())


def _replace(value: Any, plain: Callable[[Any], Any]) -> Any:
    """The value with every secret replaced by something plain."""
    if _is_secret(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _replace(item, plain) for key, item in value.items()}
    if isinstance(value, _COLLECTIONS):
        return [_replace(item, plain) for item in value]
    return value


def _is_secret(value: Any) -> bool:
    """Whether it is pydantic's `SecretStr`, `SecretBytes` or `Secret`."""
    # By its method: `Secret` came with pydantic 2.8, and 2.7 is supported.
    return callable(getattr(type(value), "get_secret_value", None))
