"""An open MLflow run."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rolecall import MediaKind, Point, Rejected, Row, Status, Unavailable
from rolecall_mlflow.args import sqlite_path
from rolecall_mlflow.artifacts.growing import GrowingTables
from rolecall_mlflow.artifacts.media import MEDIA_KINDS, store_media
from rolecall_mlflow.artifacts.tables import store_table
from rolecall_mlflow.faults import Fault, describe, fault_of
from rolecall_mlflow.keys import KeyNames
from rolecall_mlflow.params import Params, flatten
from rolecall_mlflow.sdk import Store, opening, ui_command
from rolecall_mlflow.summary import Summary, summary_metrics
from rolecall_mlflow.system import SystemMetrics

if TYPE_CHECKING:
    import mlflow.entities

__all__ = ["MlflowReadback", "MlflowRun"]

_BATCH = 1000  # metrics that a server accepts in one request (`MAX_METRICS_PER_BATCH`, 2.16 to 3.17)

_STATUS: Final = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_KEY_TAG = "rolecall.key."
_LABELS = "tags"
_LARGEST = 2**63
_PAGE = 25_000  # points that a server sends in one answer (`GET_METRIC_HISTORY_MAX_RESULTS`, 2.16 to 3.17)
# Without this, the pages of MLflow 3 show a visitor's last choice, and to a new one prompts and traces. The kind of the
# experiment does not change that (`workflowType` in its `main.js`, 3.17.2). MLflow 2 ignores it.
_TRAINING = "?workflowType=machine_learning"
_SYSTEM = re.compile("system/.+/(cpu|system_memory|disk|network|gpu)_")  # what MLflow's probes measure


@dataclass(frozen=True, slots=True)
class _Point:
    """One metric of a row, as MLflow stores it."""

    row: Row
    metric: mlflow.entities.Metric


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A row with a metric that MLflow will never accept."""

    row: Row
    reason: str


class MlflowRun:
    """A run of an MLflow store.

    `log` is synchronous: when it returns, the store's database holds the rows. In a database, rows that come again
    count once; the file store doubles them.
    """

    # MLflow's tables have a primary key of key, step, value and time in milliseconds. The time is the row's own, so a
    # row that comes again is the same entry (measured on sqlite and on a server, 2.16.0 and 3.17.2). The file store
    # appends lines to a file.

    def __init__(self, store: Store, run: mlflow.entities.Run, *, primary: bool, attached: bool = False) -> None:
        self._store = store
        self._client = store.client
        self._run_id = str(run.info.run_id)
        self._experiment_id = str(run.info.experiment_id)
        self._primary = primary
        self._attached = attached
        self._ended: int | None = None
        self._system: SystemMetrics | None = None
        self._growing = GrowingTables()
        self._taken: dict[tuple[str, int], int] = {}
        self._names = KeyNames(_remembered(run.data.tags))
        self._params = Params(store.client, self._run_id, run.data.params, run.data.tags)
        self._summary = Summary(store.client, run)

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    @property
    def url(self) -> str:
        """The run's page on a server; for a file, the command that starts MLflow's UI with it."""
        if self._store.is_server:
            return f"{self._store.uri}/#/experiments/{self._experiment_id}/runs/{self._run_id}{_TRAINING}"
        if self._store.uri.startswith("sqlite:"):
            return ui_command(f"sqlite:///{sqlite_path(self._store.uri)}")
        return f"MLFLOW_ALLOW_FILE_STORE=true {ui_command(self._store.uri)}"

    def log(self, rows: Sequence[Row]) -> None:
        """Store the metrics of the rows; see `rolecall.Run`. Strings are left out: MLflow has no series of strings."""
        self._take(rows)
        self._learn(rows)
        refusals: list[_Refusal] = []
        for batch in self._batches(list(self._points(rows, refusals))):
            refusals += self._send(batch)
        if refusals:
            raise Rejected(_distinct(refusals), refusals[0].reason)

    @property
    def holds_text(self) -> bool:
        """See `rolecall.SupportsText`."""
        return False

    def log_table(self, row: Row) -> None:
        """Store a row's table as an artifact; one that grows is kept for its chunk."""
        self._take([row])
        if row.table is not None and not self._growing.add(row):
            with _storing(row, "table"):
                store_table(self._store, self._run_id, row, row.table)

    @property
    def table_media_kinds(self) -> frozenset[MediaKind]:
        """See `rolecall.SupportsTableMedia`."""
        return frozenset({"image"})

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        """See `rolecall.SupportsMedia`: all kinds, as artifacts."""
        return MEDIA_KINDS

    def log_media(self, row: Row) -> None:
        """Store a row's media as artifacts; see `rolecall.SupportsMedia`."""
        self._take([row])
        with _storing(row, row.media[0].kind):
            store_media(self._store, self._run_id, row)

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Store a config as params, `{key}` or `{writer}.{key}`; only the primary does this."""
        if self._primary:
            self._params.add(flatten({key: value for key, value in config.items() if value != {}}))

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`: metrics and tags `summary/{key}`."""
        with _telling("a summary"):
            self._summary.merge(summary)

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`: the labels are one tag of MLflow, `tags`, as its tags are keys with values."""
        with _telling("tags"):
            self._client.set_tag(self._run_id, _LABELS, ", ".join(tags))

    def add_params(self, config: Mapping[str, Any]) -> None:
        """Store the run's own config as params."""
        self._params.add(flatten(config))

    def watch(self, system: SystemMetrics | None) -> None:
        """Stop `system` when the run is closed."""
        self._system = system

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`: store the chunks of growing tables once a minute."""
        if self._growing.is_due():
            self._store_chunks()

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`: all rows but those that wait for a chunk, and those behind them."""
        first = self._growing.first(writer, session)
        return self._taken.get((writer, session), 0) if first is None else first - 1

    def flush(self, timeout: float) -> None:
        """Store the chunks of growing tables; all else was stored when `log` returned."""
        self._store_chunks()

    def _take(self, rows: Sequence[Row]) -> None:
        self._growing.count(len(rows))
        for row in rows:
            self._taken[row.writer, row.session] = row.seq

    def _store_chunks(self) -> None:
        try:
            for row in self._growing.chunks():
                if row.table is not None:
                    with _storing(row, "table"):
                        store_table(self._store, self._run_id, row, row.table)
        except Rejected as error:
            # Its rows come again, and then each is stored or refused by itself.
            self._growing.split()
            raise Unavailable(f"{error.reason}; its rows are tried one by one") from error
        self._growing.clear()

    def end_at(self, time: float) -> None:
        """See `rolecall.SupportsEndTime`."""
        self._ended = round(time * 1000)

    def close(self, status: Status) -> None:
        """Release the run; the primary also sets its status and its end.

        Raises:
            Unavailable: the store does not show the status.
        """
        if self._system is not None:
            self._system.stop()
            self._system = None
        # In MLflow the last status that is set counts, so no other writer sets one. A run that somebody else has made,
        # they will end.
        if not self._primary or self._attached:
            return
        wanted = _STATUS[status]
        try:
            self._client.set_terminated(self._run_id, wanted, self._ended)
            found = self._client.get_run(self._run_id).info.status
        except Exception as error:
            raise Unavailable(f"MLflow cannot end the run at the moment: {describe(error)}") from error
        if found != wanted:
            raise Unavailable(f"MLflow shows the run as {found}, not as {wanted}")

    def _learn(self, rows: Sequence[Row]) -> None:
        """Choose names for new keys, and store in the run those that depend on the order in which keys came."""
        changed = self._names.learn(key for row in rows for key in row.metrics)
        if not changed:
            return
        try:
            self._client.log_batch(self._run_id, tags=list(_name_tags(changed)), synchronous=True)
        except Exception as error:
            raise Unavailable(f"MLflow does not accept rows at the moment: {describe(error)}") from error

    def _points(self, rows: Sequence[Row], refusals: list[_Refusal]) -> Iterator[_Point]:
        from mlflow.entities import Metric

        for row in rows:
            if not -_LARGEST <= row.step < _LARGEST:
                refusals.append(_Refusal(row, "MLflow needs steps that fit in 64 bits"))
                continue
            for key, value in row.metrics.items():
                yield _Point(row, Metric(self._names[key], float(value), _milliseconds(row), row.step))

    def _batches(self, points: Sequence[_Point]) -> Iterator[Sequence[_Point]]:
        """Split the points into requests as large as the store accepts."""
        # The file store may store half of a batch before it fails at a key. With one key in a batch, all of it fails or
        # none.
        if self._store.uri.startswith("file:"):
            by_key: dict[str, list[_Point]] = {}
            for point in points:
                by_key.setdefault(point.metric.key, []).append(point)
            yield from by_key.values()
            return
        for start in range(0, len(points), _BATCH):
            yield points[start : start + _BATCH]

    def _send(self, points: Sequence[_Point]) -> list[_Refusal]:
        """Store the points, in smaller batches if necessary; return those that cannot be stored."""
        try:
            self._client.log_batch(self._run_id, metrics=[point.metric for point in points], synchronous=True)
        except Exception as error:  # noqa: BLE001 - `fault_of` tells them apart
            return self._send_again(points, error)
        return []

    def _send_again(self, points: Sequence[_Point], error: Exception) -> list[_Refusal]:
        """Halve a batch, which is stored completely or not at all, until the point that the store refuses is alone."""
        # Valid points come here too: stores up to MLflow 3.11 refuse a batch that repeats a NaN, or more than 100 keys,
        # that they already hold.
        fault = fault_of(error)
        if fault not in {Fault.INVALID, Fault.TOO_LARGE, Fault.HELD}:
            raise Unavailable(f"MLflow does not accept rows at the moment: {describe(error)}") from error
        if len(points) > 1:
            half = len(points) // 2
            return self._send(points[:half]) + self._send(points[half:])
        if fault is Fault.HELD:
            return []
        self._require_active(error)
        return [_Refusal(points[0].row, f"MLflow refuses {points[0].metric.key}: {describe(error)}")]

    def _require_active(self, error: Exception) -> None:
        """Check that the run was not deleted: then all its rows would be refused."""
        # A deleted run is `Unavailable`, since it can be restored, and until then its rows are safe in the journal.
        # `Rejected` would set them all aside.
        try:
            stage = self._client.get_run(self._run_id).info.lifecycle_stage
        except Exception as another:
            raise Unavailable(f"MLflow does not accept rows at the moment: {describe(another)}") from another
        if stage != "active":
            raise Unavailable(
                f"the run was deleted in MLflow; run `mlflow runs restore --run-id {self._run_id}`"
            ) from error


class MlflowReadback:
    """What a run of an MLflow store holds; a `rolecall.SupportsReadback`."""

    def __init__(self, store: Store, run: mlflow.entities.Run) -> None:
        self._store = store
        self._run_id = str(run.info.run_id)
        self._names = KeyNames(_remembered(run.data.tags))
        self._keys = [key for key in run.data.metrics if key not in summary_metrics(run.data.tags)]
        self._moment: tuple[str, int] | None = None
        self._seen: set[tuple[str, int, float | None]] = set()

    def keys(self) -> Iterator[str]:
        """See `rolecall.SupportsReadback`. System metrics come from no row."""
        has_system = self._store.args.system_metrics
        yield from (key for key in self._keys if not (has_system and _SYSTEM.match(key)))

    def points(self, key: str) -> Iterator[Point]:
        """See `rolecall.SupportsReadback`; reads a page at a time, where the store can send one."""
        # `MlflowClient.get_metric_history` itself keeps all pages in memory (2.16 to 3.17).
        tracking, token = self._store.client._tracking_client.store, None  # noqa: SLF001
        while True:
            with opening(self._store.uri):
                page = tracking.get_metric_history(self._run_id, key, max_results=_PAGE, page_token=token)
            for metric in page:
                yield Point(metric.step, _clipped(metric.value), metric.timestamp / 1000)
            # Stores of a file or a database send all at once, up to 3.11 or so, and name no next page.
            if not (token := getattr(page, "token", None)):
                return

    def expected(self, row: Row) -> Row:
        """The row as MLflow holds it: keys renamed, infinities clipped, times in milliseconds, equal points once."""
        self._names.learn(row.metrics)
        held: dict[str, float] = {}
        for key, value in row.metrics.items():
            name, number = self._names[key], _clipped(float(value))
            if self._is_new(row, name, number):
                held[name] = number
        return replace(row, metrics=held, time=_milliseconds(row) / 1000)

    def close(self) -> None:
        """Nothing is open."""

    def _is_new(self, row: Row, name: str, value: float) -> bool:
        """Whether the store does not hold this very point yet, as far as the time of the row tells."""
        # The file store appends each point to a file; databases have the point as their key: see `MlflowRun`.
        if self._store.uri.startswith("file:"):
            return True
        # Rows come in order, so only those of the same millisecond can repeat a point.
        if self._moment != (moment := (row.writer, _milliseconds(row))):
            self._moment = moment
            self._seen.clear()
        point = (name, row.step, None if math.isnan(value) else value)
        is_new = point not in self._seen
        self._seen.add(point)
        return is_new


@contextmanager
def _storing(row: Row, what: str) -> Iterator[None]:
    """Turn the client's errors into those that `log_table` and `log_media` may raise."""
    try:
        yield
    except Exception as error:
        # What the store already holds is the tag that goes with it: two writers set it for the first time at once
        # (seen with 3.17.2). The next try finds it there.
        if fault_of(error) in {Fault.LATER, Fault.DENIED, Fault.ABSENT, Fault.HELD}:
            raise Unavailable(f"MLflow does not accept a {what} at the moment: {describe(error)}") from error
        raise Rejected([row], f"MLflow cannot store the {what}: {describe(error)}") from error


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turn the client's errors into those that `merge_summary` and `set_tags` may raise."""
    try:
        yield
    except Exception as error:
        if fault_of(error) in {Fault.INVALID, Fault.TOO_LARGE}:
            raise  # it would be refused again
        raise Unavailable(f"MLflow does not accept {what} at the moment: {describe(error)}") from error


def _milliseconds(row: Row) -> int:
    return round(row.time * 1000)


def _clipped(value: float) -> float:
    """The value with infinities as databases hold them; a file, and a server that has one, keeps them."""
    return value if math.isnan(value) else max(-sys.float_info.max, min(sys.float_info.max, value))


def _distinct(refusals: Sequence[_Refusal]) -> list[Row]:
    rows = [refusal.row for refusal in refusals]
    return list({(row.writer, row.session, row.seq): row for row in rows}.values())


def _name_tags(changed: Mapping[str, str]) -> Iterator[mlflow.entities.RunTag]:
    from mlflow.entities import RunTag

    for key, name in changed.items():
        digest = hashlib.blake2s(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        yield RunTag(_KEY_TAG + digest, json.dumps([key, name]))


def _remembered(tags: Mapping[str, str]) -> dict[str, str]:
    """The names that earlier sessions or other writers stored in the run."""
    return dict(json.loads(text) for tag, text in tags.items() if tag.startswith(_KEY_TAG))
