"""Stores a run's summary: numbers as metrics, by which MLflow's UI sorts runs, and strings as tags.

Both are named `summary/{key}`, so that none is taken for a point of a series of the same key. The names of these
metrics are in tags `rolecall.summary.{hash}`, as they come from no row.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rolecall_mlflow.keys import valid_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MAX_TAG", "Summary", "summary_metrics"]

MAX_TAG = 5000  # characters: `MAX_TAG_VAL_LENGTH` of MLflow 2.16; 8,000 in 3.17
_BATCH = 100  # `MAX_PARAMS_TAGS_PER_BATCH`
_MARK = "rolecall.summary."
_PREFIX = "summary/"


def summary_metrics(tags: Mapping[str, str]) -> frozenset[str]:
    """The metrics of a run that are values of its summary."""
    return frozenset(name for tag, name in tags.items() if tag.startswith(_MARK))


class Summary:
    """The summary of one run, as far as this writer sets it."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self._run_id = str(run.info.run_id)
        self._marked = set(summary_metrics(run.data.tags))
        self._numbers = {name: run.data.metrics[name] for name in self._marked if name in run.data.metrics}
        self._texts = {tag: text for tag, text in run.data.tags.items() if tag.startswith(_PREFIX)}
        self._set: set[str] = set()
        self._last = 0

    def merge(self, summary: Mapping[str, float | str]) -> None:
        """Store the values that the run does not have yet. Whatever MLflow's client raises passes through."""
        named = {valid_key(_PREFIX + key): value for key, value in summary.items()}
        texts = {name: value[:MAX_TAG] for name, value in named.items() if isinstance(value, str)}
        numbers = {name: float(value) for name, value in named.items() if not isinstance(value, str)}
        self._mark(name for name in numbers if name not in self._marked)
        self._send(
            {name: value for name, value in numbers.items() if self._numbers.get(name) != value},
            {name: text for name, text in texts.items() if self._texts.get(name) != text},
        )
        # MLflow has no way to remove a metric. A tag that others have set is not among these.
        for name in self._set - texts.keys():
            self._client.delete_tag(self._run_id, name)
            self._set.discard(name)
            self._texts.pop(name, None)

    def _mark(self, names: Iterable[str]) -> None:
        """Before their first point: who reads the run back must not take it for one of a row."""
        new = sorted(names)
        self._send({}, {_MARK + hashlib.blake2s(name.encode(), digest_size=8).hexdigest(): name for name in new})
        self._marked.update(new)

    def _send(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        # All at step 0, where the one with the latest time is what MLflow shows.
        self._last = max(round(time.time() * 1000), self._last + 1)
        metrics = [Metric(name, value, self._last, 0) for name, value in numbers.items()]
        tags = [RunTag(name, text) for name, text in texts.items()]
        for start in range(0, max(len(metrics), len(tags)), _BATCH):
            stop = start + _BATCH
            self._client.log_batch(self._run_id, metrics[start:stop], tags=tags[start:stop], synchronous=True)
        self._numbers |= numbers
        self._texts |= texts
        self._set |= {name for name in texts if name.startswith(_PREFIX)}
