"""`define_metric`: which keys are over another step than the run's own, and what the summary has of them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rolecall.compat.wandb.absent import Error

logger = logging.getLogger("rolecall")

_SUMMARIES: Final = frozenset(["min", "max", "mean", "last", "copy", "none", "first"])
_AXIS_KEY: Final = "/step"
"""How the key of an axis ends: the steps of the axis `train` are the metric `train/step`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What `define_metric` said of a key, or of all keys that begin as `name` does before its `*`."""

    name: str
    step_metric: str | None = None
    summary: frozenset[str] = frozenset()

    def matches(self, key: str) -> bool:
        """Whether it is said of this key."""
        # `log` leaves out what is no string, and says so.
        is_glob = self.name.endswith("*")
        return str(key).startswith(self.name[:-1]) if is_glob else key == self.name


class Part(NamedTuple):
    """What of a call of `log` is over one axis."""

    axis: str | None
    step: Any
    data: Mapping[str, Any]


class Metrics:
    """Everything that one run's script defined."""

    def __init__(self) -> None:
        self._defined: dict[str, Metric] = {}
        self._found: dict[str, Metric] = {}
        self._axes: dict[str, str] = {}
        self._steps: dict[str, int | None] = {}
        self._is_told = False

    def define(self, name: str, step_metric: str | Metric | None, summary: str | None) -> Metric:
        """Say what holds for a key from now on; see `Run.define_metric`."""
        step = step_metric.name if isinstance(step_metric, Metric) else step_metric
        if not name or "*" in name[:-1]:
            raise Error(
                f"define_metric: {name!r}: must be a key, or the beginning of keys and a '*', such as 'train/*'"
            )
        kinds = frozenset(filter(None, (summary or "").lower().split(",")))
        if unknown := kinds - _SUMMARIES:
            allowed = ", ".join(sorted(_SUMMARIES))
            raise Error(f"define_metric: summary: {', '.join(sorted(unknown))}: must be of {allowed}")
        metric = self._defined[name] = Metric(name, step, kinds - {"copy"})
        if step is not None:
            self._axes[step] = step.removesuffix(_AXIS_KEY)
        self._found.clear()
        return metric

    def find(self, key: str) -> Metric:
        """What was said of a key: of itself before that of several, and of these the first."""
        if (found := self._found.get(key)) is None:
            matching = (metric for metric in self._defined.values() if metric.matches(key))
            found = self._defined.get(key) or next(matching, Metric(key))
            self._found[key] = found
        return found

    def split(self, data: Mapping[str, Any], line: Any) -> Sequence[Part]:
        """What of a mapping is over which axis.

        Args:
            data: what is logged.
            line: the run's own step.
        """
        if not self._axes:
            return [Part(None, line, data)]
        for key in self._axes.keys() & data.keys():
            self._steps[key] = _whole(data[key])
        parts: dict[str | None, dict[str, Any]] = {}
        for key, value in data.items():
            parts.setdefault(self._step_of(key), {})[key] = value
        # Without a value of the step, it is the run's own, on the same axis: a key has one axis for good.
        return [
            Part(None, line, part) if step is None else Part(self._axes[step], self._steps.get(step, line), part)
            for step, part in parts.items()
        ]

    def _step_of(self, key: str) -> str | None:
        """The metric that is the step of a key; `None` for the run's own step."""
        step = self.find(key).step_metric
        if key in self._axes:
            # It is the key of an axis itself, or a metric as others are.
            step = key if key.endswith(_AXIS_KEY) else None
        if step is None or self._steps.get(step, 0) is not None:
            return step
        if not self._is_told:
            self._is_told = True
            logger.warning("define_metric: %s is not a whole number; what is over it gets the run's own step", step)
        return None

    def summaries(self, keys: Iterable[str]) -> Mapping[str, frozenset[str]]:
        """What the summary has of each of these keys."""
        return {key: self.find(key).summary for key in keys}


def _whole(value: Any) -> int | None:
    """A step as an int; `None` if it is not a whole number."""
    try:
        number = float(value)
        return int(value) if number.is_integer() else None
    except (TypeError, ValueError, OverflowError):
        return None
