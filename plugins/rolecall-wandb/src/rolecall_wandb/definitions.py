"""The axes of all keys, as a writer defines them in wandb, and how it repairs what other writers undo.

Every writer of a shared run uploads its *whole* set of definitions whenever the set changes, and the server may let
the last upload replace all others. So each writer defines every key of every writer.
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
"""How many keys of all writers are bound by name; further keys of a writer are bound by a pattern, `{prefix}*`."""


class Definitions:
    """The bindings of keys to axes that an open run has defined."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._axes: set[str] = set()
        self._patterns: set[str] = set()
        self.keys: dict[str, str] = {}

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind the keys that are not bound yet."""
        # Each key once: the SDK's core rebuilds the whole set at each definition, even if nothing changes. 10,000 keys
        # take 121 s of CPU (0.31.0, measured).
        for key, axis in axes.items():
            if axis not in self._axes:
                self._run.define_metric(axis)
                self._axes.add(axis)
            if key in self.keys or "*" in key:  # to the SDK a key with `*` is a pattern
                continue
            if len(self.keys) < MANY:
                self._run.define_metric(key, step_metric=axis)
                self.keys[key] = axis
            else:
                self.define_pattern(key, axis)

    def touch(self) -> None:
        """Make the SDK upload the whole set again."""
        # Defining one axis again is enough (0.31.0 and 0.19.10).
        for axis in sorted(self._axes)[:1]:
            self._run.define_metric(axis)

    def missing(self, config: Mapping[str, Any]) -> list[str]:
        """The keys that are not bound as defined here, in a config from the server."""
        stored = stored_bindings(config)
        return [key for key, axis in self.keys.items() if stored.get(key) != axis]

    def define_pattern(self, key: str, axis: str) -> None:
        """Bind this and all further keys of an axis by a pattern, which the SDK and the server may resolve or not."""
        prefix = axis.removesuffix("step")
        pattern = f"{prefix}*"
        # Without a prefix it would be a pattern of all keys. Those of an axis with a name need not have its prefix.
        if pattern in self._patterns or not prefix or not key.startswith(prefix):
            return
        self._patterns.add(pattern)
        self._run.define_metric(pattern, step_metric=axis)
        logger.warning(
            "wandb: more than %d metric keys; further keys of %s are bound by the pattern %s, if the SDK "
            "and the server support patterns",
            MANY,
            axis.removesuffix("/step"),
            pattern,
        )


def stored_bindings(config: Mapping[str, Any]) -> dict[str, str]:
    """The bindings in a run's config, in the form in which the server stores it."""
    # Definitions are in `_wandb.value.m`, a list of entries. Field 1 is the metric's name. Field 4 is its axis, or
    # field 5 is the position of the axis in the list, from 1 (protobuf `MetricRecord`, wandb 0.19.10 and 0.31.0).
    entries = _definitions(config)
    names = [entry.get("1") for entry in entries]
    found = {str(entry["1"]): _axis(entry, names) for entry in entries if "1" in entry}
    return {key: axis for key, axis in found.items() if axis is not None}


def _definitions(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    own = config.get("_wandb")
    own = own.get("value", own) if isinstance(own, dict) else {}
    entries = own.get("m") if isinstance(own, dict) else None
    return [entry for entry in entries or () if isinstance(entry, dict)]


def _axis(entry: Mapping[str, Any], names: list[Any]) -> str | None:
    if "4" in entry:
        return str(entry["4"])
    position = entry.get("5")
    if isinstance(position, int) and 0 < position <= len(names):
        return str(names[position - 1])
    return None
