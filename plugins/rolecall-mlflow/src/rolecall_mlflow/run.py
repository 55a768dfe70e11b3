"""An open MLflow run, and how rows get into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rolecall import Rejected, Row, Status, Unavailable
from rolecall_mlflow.args import sqlite_path
from rolecall_mlflow.faults import Fault, describe, fault_of
from rolecall_mlflow.keys import KeyNames
from rolecall_mlflow.params import Params, flatten
from rolecall_mlflow.sdk import Store
from rolecall_mlflow.system import SystemMetrics
from rolecall_mlflow.tables import store_table

if TYPE_CHECKING:
    import mlflow.entities

__all__ = ["MlflowRun"]

_BATCH = 1000
"""The most metrics that a server takes in one request."""

_STATUS: Final = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_KEY_TAG = "rolecall.key."
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class _Point:
    """One metric of a row, as MLflow takes it."""

    row: Row
    metric: mlflow.entities.Metric


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A row with a metric that MLflow will never take."""

    row: Row
    reason: str


class MlflowRun:
    """A run of an MLflow store.

    `log` is synchronous: what it took is in the store's database when it returns, so `flush` has nothing to wait
    for. MLflow stores a metric once for each key, step, value and millisecond, and a row's time is its own, so in
    a database rows that come again count once (measured on sqlite and on a server, 2.16.0 and 3.17.2). The file
    store appends, and doubles them.
    """

    def __init__(self, store: Store, run: mlflow.entities.Run, *, primary: bool) -> None:
        self._store = store
        self._client = store.client
        self._run_id = str(run.info.run_id)
        self._experiment_id = str(run.info.experiment_id)
        self._primary = primary
        self._system: SystemMetrics | None = None
        self._names = KeyNames(_remembered(run.data.tags))
        self._params = Params(store.client, self._run_id, run.data.params)

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    @property
    def url(self) -> str:
        """The run's page on a server; for a file, the command that starts MLflow's UI on it."""
        if self._store.is_server:
            return f"{self._store.uri}/#/experiments/{self._experiment_id}/runs/{self._run_id}"
        if self._store.uri.startswith("sqlite:"):
            return f"mlflow ui --backend-store-uri sqlite:///{sqlite_path(self._store.uri)}"
        return f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {self._store.uri}"

    def log(self, rows: Sequence[Row]) -> None:
        """Store every metric of the rows; see `rolecall.protocol.Run`.

        A run that was deleted meanwhile is `Unavailable`: whoever deleted it can restore it, and until then its
        rows are safe in the journal. `Rejected` would set them all aside.
        """
        self._learn(rows)
        refusals: list[_Refusal] = []
        for batch in self._batches(list(self._points(rows, refusals))):
            refusals += self._send(batch)
        if refusals:
            raise Rejected(_distinct(refusals), refusals[0].reason)

    def log_table(self, row: Row) -> None:
        """Store a row's table as an artifact; see `rolecall_mlflow.tables`."""
        if row.table is None:
            return
        try:
            store_table(self._store, self._run_id, row, row.table)
        except Exception as error:
            if fault_of(error) in {Fault.LATER, Fault.DENIED, Fault.ABSENT}:
                raise Unavailable(f"MLflow takes no tables now: {describe(error)}") from error
            raise Rejected([row], f"MLflow cannot store the table: {describe(error)}") from error

    def merge_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Store each writer's config as params, `{writer}.{key}`; the primary's work alone."""
        if self._primary:
            self._params.add(flatten({writer: one for writer, one in config.items() if one}))

    def add_params(self, config: Mapping[str, Any]) -> None:
        """Store the run's own config as params."""
        self._params.add(flatten(config))

    def watch(self, system: SystemMetrics | None) -> None:
        """Stop these when the run is closed."""
        self._system = system

    def flush(self, timeout: float) -> None:
        """Nothing to wait for: `log` returns when the store holds the rows."""

    def close(self, status: Status) -> None:
        """End the run if this is the primary, for in MLflow the last word on the status counts."""
        if self._system is not None:
            self._system.stop()
            self._system = None
        if not self._primary:
            return
        try:
            self._client.set_terminated(self._run_id, _STATUS[status])
        except Exception as error:
            raise Unavailable(f"MLflow cannot end the run now: {describe(error)}") from error

    def _learn(self, rows: Sequence[Row]) -> None:
        """Name new keys, and keep in the run what only this session can know."""
        if yielded := self._names.learn(key for row in rows for key in row.metrics):
            self._attempt(list(_name_tags(yielded)))

    def _attempt(self, tags: Sequence[mlflow.entities.RunTag]) -> None:
        try:
            self._client.log_batch(self._run_id, tags=tags, synchronous=True)
        except Exception as error:
            raise Unavailable(f"MLflow takes no rows now: {describe(error)}") from error

    def _points(self, rows: Sequence[Row], refusals: list[_Refusal]) -> Iterator[_Point]:
        from mlflow.entities import Metric

        for row in rows:
            if not -_LARGEST <= row.step < _LARGEST:
                refusals.append(_Refusal(row, "MLflow's steps have 64 bits"))
                continue
            time = round(row.time * 1000)
            for key, value in row.metrics.items():
                yield _Point(row, Metric(self._names[key], float(value), time, row.step))

    def _batches(self, points: Sequence[_Point]) -> Iterator[Sequence[_Point]]:
        """As many points at once as the store takes; the file store, which keeps half a batch, one key at a time."""
        if self._store.uri.startswith("file:"):
            by_key: dict[str, list[_Point]] = {}
            for point in points:
                by_key.setdefault(point.metric.key, []).append(point)
            yield from by_key.values()
            return
        for start in range(0, len(points), _BATCH):
            yield points[start : start + _BATCH]

    def _send(self, points: Sequence[_Point]) -> list[_Refusal]:
        """Store the points, whatever it takes; returns those that cannot be stored."""
        try:
            self._client.log_batch(self._run_id, metrics=[point.metric for point in points], synchronous=True)
        except Exception as error:  # noqa: BLE001 - told apart by `fault_of`
            return self._send_again(points, error)
        return []

    def _send_again(self, points: Sequence[_Point], error: Exception) -> list[_Refusal]:
        """A batch is stored whole or not at all, so halve it until what is wrong stands alone.

        (In the file store too, as all its points are of one key.)

        Stores up to MLflow 3.11 refuse a batch that repeats a NaN, or more than 100 keys, that they hold already.
        """
        fault = fault_of(error)
        if fault not in {Fault.INVALID, Fault.TOO_LARGE, Fault.HELD}:
            raise Unavailable(f"MLflow takes no rows now: {describe(error)}") from error
        if len(points) > 1:
            half = len(points) // 2
            return self._send(points[:half]) + self._send(points[half:])
        if fault is Fault.HELD:
            return []
        self._require_active(error)
        return [_Refusal(points[0].row, f"MLflow refuses {points[0].metric.key}: {describe(error)}")]

    def _require_active(self, error: Exception) -> None:
        """Whether it is the row that is wrong, and not the run."""
        try:
            stage = self._client.get_run(self._run_id).info.lifecycle_stage
        except Exception as another:
            raise Unavailable(f"MLflow takes no rows now: {describe(another)}") from another
        if stage != "active":
            raise Unavailable(
                f"the run was deleted in MLflow; run `mlflow runs restore --run-id {self._run_id}`"
            ) from error


def _distinct(refusals: Sequence[_Refusal]) -> list[Row]:
    return list({(one.row.writer, one.row.session, one.row.seq): one.row for one in refusals}.values())


def _name_tags(yielded: Mapping[str, str]) -> Iterator[mlflow.entities.RunTag]:
    from mlflow.entities import RunTag

    for key, name in yielded.items():
        digest = hashlib.blake2s(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        yield RunTag(_KEY_TAG + digest, json.dumps([key, name]))


def _remembered(tags: Mapping[str, str]) -> dict[str, str]:
    """The keys whose names earlier sessions, or other writers, had to choose."""
    return dict(json.loads(text) for tag, text in tags.items() if tag.startswith(_KEY_TAG))
