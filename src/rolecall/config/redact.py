"""Keeps secrets out of what rolecall writes.

A backend's arguments hold secrets as `pydantic.SecretStr`, which masks itself. A role's `run_config` is any mapping,
so rolecall masks values under keys that sound secret, the known secrets of the job, and the user part of URIs.
"""

import re
import traceback
from collections.abc import Callable, Mapping
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
_INT64 = 1 << 63
_LONGEST_DECIMAL = 4096


def is_secret_name(name: str) -> bool:
    """Whether the value under such a key is treated as a secret."""
    return bool(_TOKEN.search(name) or _SECRET_NAME.search(name))


def scrub(value: Any, secrets: tuple[str, ...] = (), depth: int = _DEEPEST) -> Any:
    """Copy a config without its secrets, ready for JSON; what some reader of JSON does not take becomes a string.

    Values nested deeper than `depth` are left out: a mapping may contain itself.
    """
    if _is_secret(value):
        return MASK
    value = _fields(value)
    match value:
        case int() if not -_INT64 <= value < _INT64:
            # pandas takes 64 bits, and Python's json 4,300 digits.
            return str(value) if value.bit_length() < _LONGEST_DECIMAL else hex(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            items = ((str(key), value[key]) for key in value) if depth else ()
            inside = {
                scrub_text(key, secrets): MASK if _hides(key, item) else scrub(item, secrets, depth - 1)
                for key, item in items
            }
            return inside if depth else "..."
        case list() | tuple() | set() | frozenset():
            return [scrub(item, secrets, depth - 1) for item in value] if depth else "..."
        case _:
            return scrub_text(str(value), secrets)


def _hides(name: str, value: object) -> bool:
    """Whether a value is masked because of its name."""
    # A number under `pad_token` is an index; one under `password` is a password that YAML read as a number.
    if isinstance(value, (int, float)):
        return not isinstance(value, bool) and _SECRET_NAME.search(name) is not None
    return value is not None and is_secret_name(name)


def scrub_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without known secrets, without the user part of any URI, and as UTF-8 can hold it."""
    # longest first (see `secrets_of`): one secret may be the beginning of another
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _URI_USER.sub(f"://{MASK}@", text).encode("utf-8", "replace").decode()


def scrub_trace(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """The error's traceback, for a log: an SDK's error may quote the address or the key that it was given."""
    return scrub_text("".join(traceback.format_exception(error)).rstrip(), secrets)


def public_args(model: BaseModel) -> dict[str, Any]:
    """The arguments of a backend that may be written to disk: those without a secret."""
    # Left out, not masked: `rolecall deliver` reads them back, and would take a mask for the password.
    given = model.model_dump(exclude_unset=True, by_alias=True, round_trip=True)
    dump = to_jsonable_python(_replace(given, lambda _: MASK))
    return {name: value for name, value in dump.items() if MASK not in str(scrub({name: value}))}


def secrets_of(value: Any) -> tuple[str, ...]:
    """Every secret in a model's fields, longest first, but for very short ones."""
    found: set[str] = set()

    def collect(secret: Any) -> None:
        plain = secret.get_secret_value()
        found.add(plain.decode(errors="replace") if isinstance(plain, bytes) else str(plain))

    _replace(value, collect)
    return tuple(sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True))


def reveal(value: Any) -> Any:
    """The plain value with every secret unmasked: for `to_env` alone."""
    return _replace(value, lambda secret: secret.get_secret_value())


def _replace(value: Any, plain: Callable[[Any], Any]) -> Any:
    """The value with every secret replaced by something plain."""
    if _is_secret(value):
        return plain(value)
    match _fields(value):
        case Mapping() as fields:
            return {key: _replace(item, plain) for key, item in fields.items()}
        case list() | tuple() | set() | frozenset() as items:
            return [_replace(item, plain) for item in items]
        case _:
            return value


def _fields(value: Any) -> Any:
    """A model as a mapping, whose values are as they are; anything else as it is."""
    return {name: getattr(value, name) for name in type(value).model_fields} if isinstance(value, BaseModel) else value


def _is_secret(value: Any) -> bool:
    # By its method: `SecretStr`, `SecretBytes` and `Secret` have no public class in common (pydantic 2.8 to 2.14).
    return callable(getattr(type(value), "get_secret_value", None))
