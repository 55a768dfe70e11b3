"""`run.summary`: the last value of each key, what `define_metric(summary=...)` asks for, and what the script sets."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from rolecall import Monitor
from rolecall.compat.wandb.configs import Items

Scalar = bool | float | int | str


class Summary(Items, MutableMapping[str, Any]):
    """What stands for the whole run, as `wandb.summary`.

    The last value of a key is what every tracker shows by itself, so it is read here and written nowhere. What the
    script sets, and a minimum, maximum or mean, goes to `Monitor.summary`.

    Args:
        monitor: where it goes.
    """

    _monitor: Monitor
    _counts: dict[str, int]

    def __init__(self, monitor: Monitor) -> None:
        # `__setattr__` sets items. What a run had before it was resumed is still there.
        self.__dict__.update(_monitor=monitor, _values=dict(monitor.summary), _counts={})

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._monitor.summary.update(dict(_flat(key, value)))

    def __delitem__(self, key: str) -> None:
        value = self._values.pop(key)
        for name, _ in _flat(key, value):
            self._monitor.summary.pop(name, None)

    def _without(self, name: str) -> str:
        return f"the summary has no {name!r}"

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def take(self, key: str, value: Scalar, kinds: frozenset[str]) -> None:
        """A value was logged.

        Args:
            key: under this key.
            value: a number, or a string.
            kinds: what the summary has of it, of `min`, `max`, `mean`, `first`, `last` and `none`; with nothing in
                it, the value itself.
        """
        if "none" in kinds:
            return
        if kinds:
            if not isinstance(value, str):
                self._combine(key, value, kinds)
            return
        self._values[key] = value
        # It was set by hand before; in wandb, what is logged later replaces that.
        if key in self._monitor.summary:
            self._monitor.summary[key] = value

    def _combine(self, key: str, value: float, kinds: frozenset[str]) -> None:
        before = self._values.get(key)
        known: dict[str, float] = dict(before) if isinstance(before, Mapping) else {}
        count = self._counts[key] = self._counts.get(key, 0) + 1
        mean = known.get("mean", 0.0)
        found = {
            "min": min(known.get("min", value), value),
            "max": max(known.get("max", value), value),
            "mean": mean + (value - mean) / count,
            "first": known.get("first", value),
            "last": value,
        }
        changed = {kind: found[kind] for kind in sorted(kinds) if known.get(kind) != found[kind]}
        self._values[key] = {**known, **changed}
        if changed:
            self._monitor.summary.update({f"{key}.{kind}": number for kind, number in changed.items()})


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value as rolecall's summaries have it, which are flat; wandb shows a nested one with dots, too."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value
