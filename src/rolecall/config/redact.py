"""What is a secret, and how it is kept out of what rolecall writes.

A backend's arguments hold secrets as `pydantic.SecretStr`, which masks itself. A role's `run_config` is anything, so
values under keys that sound secret are masked, the known secrets of the job, and the user part of URIs.
"""

import math
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel

MASK = "**********"
_URI_USER = re.compile(r"://[^/?#\s]*@")
"""Up to the last `@` of the host's part: a password may contain one."""
_ASSIGNED = re.compile(r"(?<![\w.-])([A-Za-z][\w.-]{0,80})=(['\"]?)[^\s,;&'\"]+")
_QUOTED = re.compile(r"(['\"])([A-Za-z][\w.-]{0,80})\1(\s*:\s*)(['\"]).*?\4")
_AUTHORIZED = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_ENDS = frozenset(
    {"apikey", "accesskey", "privatekey", "secretkey", "signingkey", "encryptionkey", "sshkey", "connectionstring"}
    | {"secret", "password", "passwd", "passphrase", "passcode", "pwd", "credential", "authorization", "cookie"}
)
_TOKEN_WORDS = frozenset(
    {"eos", "bos", "pad", "unk", "sep", "cls", "mask", "special", "start", "end", "stop", "image", "video", "audio"}
    | {"prompt", "think", "first", "last", "new", "next", "per", "max", "min", "num", "fim", "decoder", "forced"}
)
"""Before `token`: a tokenizer's."""
_PART = re.compile(r"[A-Za-z0-9+=~]+")
_SYMBOLS = re.compile(r"^[^\s/]*[A-Za-z0-9][!#%^&*?@][^\s/]*$")
"""In what is no path and no sentence."""
_SHORTEST_TOKEN = 12
_LONGEST_WORD = 24
_LONGEST_SHOWN = 60
_LARGEST = 1 << 64
_SHORTEST = 4
"""Shorter secrets are not looked for: masking them would mask half of every text."""


def is_secret_name(name: str) -> bool:
    """Whether the value under such a key is treated as a secret, however it is spelled."""
    words = _words(name)
    return _is_token(words) or _ends_secret(words)


def hides(name: str, value: object) -> bool:
    """Whether a value is masked because of its name."""
    # A number under `pad_token` is an index; one under `password` is a password that YAML read as a number.
    if isinstance(value, (int, float)):
        return not isinstance(value, bool) and _ends_secret(_words(name))
    return value is not None and is_secret_name(name)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _ends_secret(words: list[str]) -> bool:
    # `api_keys`, `clientSecret` and `APIKEY` are spellings of one thing.
    ends = ["".join(words[-count:]).removesuffix("s") for count in (1, 2)]
    return not _SECRET_ENDS.isdisjoint(ends) or any(end.endswith(("password", "passwd", "apikey")) for end in ends)


def _is_token(words: list[str]) -> bool:
    if not words or words[-1] not in {"token", "tokens", "authtoken", "accesstoken"}:
        return False
    # `tokens` alone and `max_tokens` are counted; `api_tokens` are not.
    kinds = {"api", "access", "auth", "bearer", "refresh", "hf", "secret", "session", "github", "gitlab"}
    return bool(kinds & {*words[:-1]}) if words[-1] == "tokens" else not _TOKEN_WORDS & {*words[:-1]}


def may_be_secret(text: str) -> bool:
    """Whether somebody may have put a secret here: an address with a password, a key, a password with symbols.

    A short password that is a word looks like any other word.
    """
    return scrub_text(text) != text or _is_like_a_key(text)


def _is_like_a_key(text: str) -> bool:
    parts = _PART.findall(text)
    is_token = any(len(part) >= _SHORTEST_TOKEN and not part.isalpha() and not part.isdigit() for part in parts)
    return is_token or any(len(part) >= _LONGEST_WORD for part in parts) or _SYMBOLS.search(text.strip()) is not None


def shown(value: object) -> str:
    """A value as a message may quote it: a short one that does not look like a secret; of others the kind."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value)
        case int() | float() if -_LARGEST < value < _LARGEST or value != value or value in (math.inf, -math.inf):  # noqa: PLR0124
            return repr(value)
        case date():
            return str(value)
        case str() if len(value) <= _LONGEST_SHOWN and not _is_like_a_key(
            (text := scrub_text(value)).replace(MASK, "")
        ):
            return repr(text)
        case _:
            return kind_of(value)


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


def shown_name(name: object) -> str:
    """A name in a path: a secret may stand where a name should."""
    text = str(name)
    return MASK if len(text) > _LONGEST_SHOWN or may_be_secret(text) else text


def scrub_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The text without known secrets, without the user part of any URI, and as UTF-8 can hold it."""
    # longest first (see `secrets_of`): one secret may be the beginning of another
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _URI_USER.sub(f"://{MASK}@", text)
    # `WANDB_API_KEY=...` in a list of arguments, and a mapping that somebody wrote as JSON.
    text = _ASSIGNED.sub(_mask_assigned, text) if "=" in text else text
    text = _QUOTED.sub(_mask_quoted, text) if ":" in text else text
    return _AUTHORIZED.sub(rf"\1 {MASK}", text).encode("utf-8", "replace").decode()


def _mask_assigned(found: re.Match[str]) -> str:
    return f"{found[1]}={found[2]}{MASK}" if is_secret_name(found[1]) else found[0]


def _mask_quoted(found: re.Match[str]) -> str:
    quote, name, colon, other = found.groups()
    return f"{quote}{name}{quote}{colon}{other}{MASK}{other}" if is_secret_name(name) else found[0]


def scrub_trace(error: BaseException, secrets: tuple[str, ...] = ()) -> str:
    """The error's traceback, for a log: an SDK's error may quote the address or the key that it was given."""
    return scrub_text("".join(traceback.format_exception(error)).rstrip(), secrets)


def secrets_of(value: Any) -> tuple[str, ...]:
    """Every secret in a model's fields, longest first, but for very short ones."""
    found: set[str] = set()

    def collect(secret: Any) -> None:
        plain = secret.get_secret_value()
        found.add(plain.decode(errors="replace") if isinstance(plain, bytes) else str(plain))

    replace_secrets(value, collect)
    return tuple(sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True))


def reveal(value: Any) -> Any:
    """The plain value with every secret unmasked: for `to_env` alone."""
    return replace_secrets(value, lambda secret: secret.get_secret_value())


def replace_secrets(value: Any, plain: Callable[[Any], Any]) -> Any:
    """The value with every secret replaced by something plain."""
    if is_secret(value):
        return plain(value)
    match _fields(value):
        case Mapping() as fields:
            return {key: replace_secrets(item, plain) for key, item in fields.items()}
        case list() | tuple() | set() | frozenset() as items:
            return [replace_secrets(item, plain) for item in items]
        case _:
            return value


def _fields(value: Any) -> Any:
    """A model as a mapping, whose values are as they are; anything else as it is."""
    return {name: getattr(value, name) for name in type(value).model_fields} if isinstance(value, BaseModel) else value


def is_secret(value: Any) -> bool:
    """Whether it is one of pydantic's secrets."""
    # By its method: `SecretStr`, `SecretBytes` and `Secret` have no public class in common (pydantic 2.8 to 2.14).
    return callable(getattr(type(value), "get_secret_value", None))
