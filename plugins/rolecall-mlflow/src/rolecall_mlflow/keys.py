"""Turns keys into names that every MLflow store accepts, for metrics, params and artifacts.

MLflow 2.16 to 3.17 (`mlflow/utils/validation.py`) accept letters, digits, `_`, `-`, `.`, `:`, space and `/`,
up to 250 characters. They refuse what a file system would read as another path: an empty component, `.`, `..`,
a name that begins with `..`. The file store makes a file of each name, so the limit here is 250 *bytes*.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping

__all__ = ["MAX_BYTES", "KeyNames", "valid_key"]

MAX_BYTES = 250
_ILLEGAL = re.compile(r"[^/\w.\- :]")
_DOTS = {".": "_", "..": "__"}
_log = logging.getLogger(__name__)


def valid_key(key: str, most_bytes: int = MAX_BYTES) -> str:
    """The name of up to `most_bytes` under which MLflow stores `key`. It depends on the key alone.

    A name that MLflow accepts stays as it is, and `@` becomes `_at_`, as in Trinity-RFT. If anything else has to
    change, eight hex digits of the key's hash are added. So `acc%` and `acc#` stay two metrics, and each has the
    same name in every process, after every restart and in every run.
    """
    readable = key.replace("@", "_at_")
    tidy = _tidy(readable)
    if tidy == readable and len(tidy.encode()) <= most_bytes:
        return tidy
    return _hashed(tidy, key, most_bytes)


def _tidy(text: str) -> str:
    components = [_DOTS.get(part, part) for part in _ILLEGAL.sub("_", text).split("/") if part]
    return re.sub(r"^\.\.", "__", "/".join(components)) or "_"


def _hashed(tidy: str, key: str, most_bytes: int = MAX_BYTES) -> str:
    suffix = "-" + hashlib.blake2s(key.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return tidy.encode()[: most_bytes - len(suffix)].decode(errors="ignore") + suffix


class KeyNames:
    """The names of one run's keys, different for different keys.

    `valid_key` alone gives `a@b` and `a_at_b` the same name. Here the key that came later gets a hash. As that
    depends on the order in which keys came, the run has to store it.

    Args:
        remembered: names that earlier sessions stored in the run, by key.
    """

    def __init__(self, remembered: Mapping[str, str]) -> None:
        self._names = dict(remembered)
        self._owners = {name: key for key, name in remembered.items()}

    def learn(self, keys: Iterable[str]) -> dict[str, str]:
        """Choose names for new keys; return those whose name depends on the order, for the run to store.

        Of several new keys, those that are valid names come first.
        """
        new = sorted((key for key in set(keys) if key not in self._names), key=lambda key: (valid_key(key) != key, key))
        return {key: name for key in new if (name := self._add(key)) != valid_key(key)}

    def __getitem__(self, key: str) -> str:
        """The name of a key that was passed to `learn`."""
        return self._names[key]

    def _add(self, key: str) -> str:
        name = valid_key(key)
        if self._owners.setdefault(name, key) != key:
            name = _hashed(_tidy(name), key)
            self._owners[name] = key
        self._names[key] = name
        self._report(key, name)
        return name

    def _report(self, key: str, name: str) -> None:
        if name == key:
            return
        expected = name == key.replace("@", "_at_")
        _log.log(logging.INFO if expected else logging.WARNING, "MLflow stores metric %r as %r", key, name)
