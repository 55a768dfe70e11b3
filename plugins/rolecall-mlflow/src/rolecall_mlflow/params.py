"""Stores a run's config as MLflow params.

In MLflow 2.16 to 3.17 the value of a param cannot be changed; logging the same value again is not an error. So a param
keeps its first value, and the value that holds now is in the tag `config.{param}`, which can change. Limits: 100 params
or tags in a request, values of up to 6,000 characters, and 5,000 in a tag (`mlflow/utils/validation.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rolecall import Unavailable
from rolecall_mlflow.faults import Fault, describe, fault_of
from rolecall_mlflow.keys import valid_key
from rolecall_mlflow.summary import MAX_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Param

__all__ = ["MAX_VALUE", "Params", "flatten"]

MAX_VALUE = 6000  # `MAX_PARAM_VAL_LENGTH`
_BATCH = 100  # `MAX_PARAMS_TAGS_PER_BATCH`
_logger = logging.getLogger(__name__)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn `{"optim": {"lr": 0.1}}` into `{"optim.lr": "0.1"}`; lists become JSON, long values are cut."""
    return {valid_key(key): _text(value)[:MAX_VALUE] for key, value in _leaves(config, prefix)}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, value


def _text(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, list | tuple | Mapping) else str(value)
    # PostgreSQL's text holds no NUL (its manual, 8.3), and UTF-8 no half of a surrogate pair. With one of them the
    # request would fail each time, and the run would never open.
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _tag(key: str) -> str:
    """The tag with the value that a param would have if it could change."""
    return valid_key(f"config.{key}")


def _short(value: str) -> str:
    return value[:MAX_TAG]


class Params:
    """The params of one run. Only the primary writes them."""

    def __init__(self, client: MlflowClient, run_id: str, stored: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._client = client
        self._run_id = run_id
        self._stored = dict(stored)
        self._changed = {key: tags[tag] for key in stored if (tag := _tag(key)) in tags}
        self._warned: set[str] = set()

    def add(self, params: Mapping[str, str]) -> None:
        """Store new params. A value that differs from the run's becomes a tag, with one warning for each key.

        Raises:
            Unavailable: the store cannot answer at the moment; the next call tries what is missing again.
        """
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in params.items() if key not in self._stored]
        for start in range(0, len(new), _BATCH):
            self._store(new[start : start + _BATCH])
        now = {key: self._changed.get(key, _short(self._stored[key])) for key in params}
        self._change({key: _short(value) for key, value in params.items() if _short(value) != now[key]})

    def _change(self, changed: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(_tag(key), value) for key, value in changed.items()]
        for start in range(0, len(tags), _BATCH):
            try:
                self._client.log_batch(self._run_id, tags=tags[start : start + _BATCH], synchronous=True)
            except Exception as error:
                raise Unavailable(f"MLflow does not accept tags at the moment: {describe(error)}") from error
        self._changed |= changed
        if new := sorted(set(changed) - self._warned):
            _logger.warning(
                "MLflow keeps the first value of a param; what the config has now is in tags, such as %s, for: %s",
                *(_tag(new[0]), ", ".join(new)),
            )
            self._warned.update(new)

    def _store(self, params: Sequence[Param]) -> None:
        try:
            self._client.log_batch(self._run_id, params=params, synchronous=True)
        except Exception as error:  # noqa: BLE001 - `fault_of` tells them apart
            self._store_again(params, error)
        else:
            self._stored |= {param.key: param.value for param in params}

    def _store_again(self, params: Sequence[Param], error: Exception) -> None:
        """Halve a batch, which is stored completely or not at all, until the param that the store refuses is alone."""
        if fault_of(error) not in {Fault.INVALID, Fault.TOO_LARGE, Fault.HELD}:
            raise Unavailable(f"MLflow does not accept params at the moment: {describe(error)}") from error
        if len(params) > 1:
            self._store(params[: len(params) // 2])
            self._store(params[len(params) // 2 :])
            return
        _logger.warning("MLflow refuses the param %s: %s", params[0].key, describe(error))
        self._stored[params[0].key] = params[0].value
