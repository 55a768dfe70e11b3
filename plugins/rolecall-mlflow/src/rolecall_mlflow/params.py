"""Stores a run's config as MLflow params.

In MLflow 2.16 to 3.17 the value of a param cannot be changed; logging the same value again is not an error. Limits:
100 params in a request, values of up to 6,000 characters (`mlflow/utils/validation.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rolecall import Unavailable
from rolecall_mlflow.faults import Fault, describe, fault_of
from rolecall_mlflow.keys import valid_key

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


class Params:
    """The params of one run. Only the primary writes them."""

    def __init__(self, client: MlflowClient, run_id: str, stored: Mapping[str, str]) -> None:
        self._client = client
        self._run_id = run_id
        self._stored = dict(stored)
        self._warned: set[str] = set()

    def add(self, params: Mapping[str, str]) -> None:
        """Store new params. If a value differs from the run's, the run's is kept, with one warning for each key.

        Raises:
            Unavailable: the store cannot answer at the moment; the next call tries what is missing again.
        """
        from mlflow.entities import Param

        self._warn([key for key, value in params.items() if self._stored.get(key, value) != value])
        new = [Param(key, value) for key, value in params.items() if key not in self._stored]
        for start in range(0, len(new), _BATCH):
            self._store(new[start : start + _BATCH])

    def _warn(self, changed: Sequence[str]) -> None:
        if new := sorted(set(changed) - self._warned):
            _logger.warning(
                "MLflow keeps the first value of a param; the config now has another value for: %s", ", ".join(new)
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
