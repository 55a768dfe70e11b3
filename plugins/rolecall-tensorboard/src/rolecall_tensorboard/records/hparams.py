"""The config as hyperparameters, which TensorBoard's HParams tab lists: one value for each column."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["LONGEST", "hyperparameters"]

LONGEST: Final = 200
"""Characters of a value that are shown: each is in a cell of a table. The whole is in the Text tab."""

LARGEST: Final = sys.float_info.max

Value = str | float | bool


def hyperparameters(config: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Value]:
    """`{"optim.lr": 0.1}` for `{"optim": {"lr": 0.1}}`, and the labels where the config has no such key."""
    # Labels first, as the columns are in this order.
    shown = {key: _shown(value) for key, value in _leaves(config, "") if value is not None}
    return {**labels, **shown}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not key):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield _utf8(key), value


def _shown(value: Any) -> Value:
    if isinstance(value, bool):
        return value
    # TensorBoard has no integers; tensorboardX warns of numbers that are not finite, and fails at what is no float.
    if isinstance(value, int | float) and abs(value) <= LARGEST:
        return float(value)
    return _utf8(str(value) if isinstance(value, str | int | float) else json.dumps(value, default=str))[:LONGEST]


def _utf8(text: str) -> str:
    """The text with half of a surrogate pair, which protobuf refuses, as its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
