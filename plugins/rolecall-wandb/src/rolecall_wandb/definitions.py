"""What one writer tells wandb of the axes of all keys, and how it puts right what others undid.

Every writer of a shared run uploads its *whole* set of definitions whenever that set is touched, and the server may
let the last upload replace all others. So each writer defines every key of every writer, once: the SDK's core
rebuilds the set at each definition, whether it changes anything or not, and that is what costs (measured on 0.31.0:
10,000 keys 121 s of CPU; the same keys again at each flush, without end).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import wandb

__all__ = ["MANY", "Definitions", "stored_bindings"]

logger = logging.getLogger("rolecall.wandb")

MANY: Final = 2_000
"""Keys of all writers from which on a writer's further ones are bound by one pattern, `{writer}/*`."""


class Definitions:
    """The bindings of keys to axes that one open run has defined."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._axes: set[str] = set()
        self._patterns: set[str] = set()
        self.keys: dict[str, str] = {}

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind those of the keys that are not bound yet."""
        for key, axis in axes.items():
            if axis not in self._axes:
                self._run.define_metric(axis)
                self._axes.add(axis)
            if key in self.keys or "*" in key:  # the sign of a pattern, and nothing else to the SDK
                continue
            if len(self.keys) < MANY:
                self._run.define_metric(key, step_metric=axis)
                self.keys[key] = axis
            else:
                self.define_pattern(axis)

    def touch(self) -> None:
        """Have the whole set uploaded again, by defining one axis anew: all that the SDK needs (0.31.0, 0.19.10)."""
        for axis in sorted(self._axes)[:1]:
            self._run.define_metric(axis)

    def missing(self, config: Mapping[str, Any]) -> list[str]:
        """The keys that the server, with this config, does not bind as defined here."""
        stored = stored_bindings(config)
        return [key for key, axis in self.keys.items() if stored.get(key) != axis]

    def define_pattern(self, axis: str) -> None:
        """Bind all further keys of an axis' writer at once, as far as the SDK and the server resolve patterns."""
        pattern = f"{axis.removesuffix('step')}*"
        if pattern in self._patterns:
            return
        self._patterns.add(pattern)
        self._run.define_metric(pattern, step_metric=axis)
        logger.warning(
            "wandb: more than %d metric keys; further ones of %s are bound by the pattern %s, which is the SDK's and "
            "the server's to resolve",
            MANY,
            axis.removesuffix("/step"),
            pattern,
        )


def stored_bindings(config: Mapping[str, Any]) -> dict[str, str]:
    """The bindings in a run's config as the server stores it.

    Definitions stand in `_wandb.value.m`, a list whose entries name the metric in field 1 and its axis in field 4, or
    by its place in the list, from 1, in field 5 (wandb 0.19.10 and 0.31.0: the protobuf `MetricRecord`).
    """
    told = _definitions(config)
    names = [entry.get("1") for entry in told]
    found = {str(entry["1"]): _axis(entry, names) for entry in told if "1" in entry}
    return {key: axis for key, axis in found.items() if axis is not None}


def _definitions(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    own = config.get("_wandb")
    own = own.get("value", own) if isinstance(own, dict) else {}
    told = own.get("m") if isinstance(own, dict) else None
    return [entry for entry in told or () if isinstance(entry, dict)]


def _axis(entry: Mapping[str, Any], names: list[Any]) -> str | None:
    if "4" in entry:
        return str(entry["4"])
    place = entry.get("5")
    if isinstance(place, int) and 0 < place <= len(names):
        return str(names[place - 1])
    return None
