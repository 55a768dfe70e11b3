"""A run of swanlab, written by one process or by several.

`swanlab.init` would not do: it prints, replaces `sys.excepthook` and the handler of SIGINT, and allows one run in a
process; `Run.log` takes no time of a row, and says nothing of one that is lost. So rows go to the SDK's core as
`swanlab.Run` hands them over, without its thread and its queue (read in 0.10.0 and 0.10.3).
"""

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from swanlab.proto.swanlab.grpc.core.v1.core_pb2 import DeliverRunFinishRequest
from swanlab.proto.swanlab.run.v1.run_pb2 import FinishRecord, RunState
from swanlab.sdk.internal.bus.events import MetricDefineEvent
from swanlab.sdk.internal.core_python import client
from swanlab.sdk.internal.pkg import console
from swanlab.sdk.internal.pkg.helper import fmt_run_path
from swanlab.sdk.internal.run.components.config import Config
from swanlab.sdk.internal.run.components.consumer import DefinitionResolver, RecordBuilder
from swanlab.sdk.internal.run.transforms import Scalar

from rolecall import MediaKind, Rejected, Row, RunTicket, Status, Unavailable
from rolecall_swanlab.account import open_context
from rolecall_swanlab.args import SwanlabArgs
from rolecall_swanlab.values import contents, renamed

__all__ = ["SwanlabRun"]

_STATES: Final[Mapping[Status, str]] = {"finished": "FINISHED", "failed": "CRASHED", "killed": "ABORTED"}


class SwanlabRun:
    """One run; a `rolecall.Run` that supports tables, media, configs and an end.

    Each key has steps of its own, and keeps the first value of a step. In a shared run, each process writes keys of its
    own.
    """

    media_kinds: Final[frozenset[MediaKind]] = frozenset({"image", "figure", "audio", "video", "html", "histogram"})

    def __init__(self, ticket: RunTicket, args: SwanlabArgs) -> None:
        self.id = ticket.backend_run_id or ticket.run_id
        self._ticket, self._args, self._config = ticket, args, dict(ticket.config)
        self._axes, self._types = dict[str, str](), dict[str, str]()
        console.c.quiet = True  # what it warns of is in the run's folder, too
        self._open()

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes, before their first rows come."""
        self._axes |= axes
        for key, axis in axes.items():
            self._resolver.handle_define(MetricDefineEvent(key=renamed(key), x_axis=renamed(axis)))

    def log(self, rows: Sequence[Row]) -> None:
        """Hand over rows to the SDK; `flush` waits until they are stored.

        Raises:
            Unavailable: rows were lost, as the disk is full or the server refused them.
            Rejected: some rows have a step, a string, a table or media that swanlab does not take.
        """
        self._renew()
        if self._path and self._note not in (hooks := client._get_client()._session.hooks["response"]):
            hooks.append(self._note)
        refused, reason = list[Row](), ""
        for row in rows:
            try:
                for part, record in self._records(row):
                    # Not `upsert_scalars` and the like, which print what is wrong and go on.
                    getattr(self._core, f"_upsert_{part}_when_{self._args.mode}")([record])
            except (TypeError, ValueError) as error:
                refused.append(row)
                reason = f"swanlab does not take {error}"
            except OSError as error:
                self._loss = str(error)
                self._renew()
        if refused:
            raise Rejected(refused, reason)

    def log_table(self, row: Row) -> None:
        """Hand over one table or the media of one key; errors as in `log`."""
        self.log([row])

    log_media = log_table

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Store the whole config: that of the last process replaces all of it."""
        self._renew()
        self._config |= config
        self._stored.update(self._config)

    def flush(self, timeout: float) -> None:
        """Return once the rows are on the disk, and online with the server.

        Raises:
            Unavailable: not within `timeout` seconds, or not at all; the rows since the last flush must come again.
        """
        end = time.monotonic() + timeout
        while not self._loss and (now := self._core.get_operation_stats().stats).uploaded_records < now.total_records:
            if time.monotonic() > end:
                raise Unavailable(f"swanlab: the server did not take all rows within {timeout:g} s")
            time.sleep(0.05)
        try:
            if store := self._core._store:  # until the run has ended
                store.ensure_flushed()
                os.fsync(store._fp.fileno())
        except OSError as error:
            self._loss = str(error)
        self._renew()

    def close(self, status: Status) -> None:
        """End the run, if this is its primary."""
        self.flush(30.0)
        self._end(status, ends_run=self._ticket.primary)

    def _open(self) -> None:
        self._context, self._path = open_context(self._ticket, self._args)
        core, builder = self._context.core, RecordBuilder(self._context)
        self._core, self._builder, self._resolver, self._loss = core, builder, DefinitionResolver(), ""
        self.define(self._axes)
        self._stored = Config()
        self._stored._bindctx(self._context.config_file, lambda event: core.upsert_saves([builder.build_config(event)]))
        self._stored.update(self._config)
        folders = f"{shlex.quote(str(self._ticket.directory))}/run-*-{self._ticket.run_id}"
        command = f"SWANLAB_RUN_ID={self.id} swanlab sync {folders}"
        self.url = f"{self._context.config.settings.web_host}{fmt_run_path(self._path)}" if self._path else command

    def _renew(self) -> None:
        """After a loss, open the run again for the rows that come again: the SDK takes no step of a key twice.

        Raises:
            Unavailable: there was one.
        """
        if loss := self._loss:
            self._end("killed", ends_run=False)
            if client.exists():  # the server ends the login of a process with its run (the SDK's issue 1742)
                client.reset()
            self._open()
            raise Unavailable(f"swanlab: {loss}")

    def _records(self, row: Row) -> list[tuple[str, Any]]:
        """What the SDK makes of a row: its values, and before the first one of a key the key's axis."""
        if not 0 <= row.step <= 1 << 48:  # `RunMetrics` leaves out other ones (0.10)
            raise ValueError(f"the step {row.step}")
        logged, records = Timestamp(), list[tuple[str, Any]]()
        logged.FromMicroseconds(round(row.time * 1e6))
        for key, value in contents(row).items():
            record, kind = self._builder.build_scalar_or_media(value, self._name(key, value), logged, row.step)
            if isinstance(value, list) and (record is None or len(record.value.items) < len(value)):
                raise ValueError("a file of more than 10 MiB, or more than 108 of one key")
            kind = "SCALAR" if kind is Scalar else "MEDIA"
            self._resolver.resolve_concrete(record.key, kind)
            if column := self._resolver.materialize_column(record.key, kind, record.type):
                records.append(("columns", column))
            records.append(("scalars" if kind == "SCALAR" else "media", record))
        return records

    def _name(self, key: str, value: Any) -> str:
        """The SDK drops what is of another type than the first value of its key."""
        each = value[0] if isinstance(value, list) else value
        kind = "number" if isinstance(each, int | float) else type(each).__name__
        return name if self._types.setdefault(name := renamed(key), kind) == kind else f"{name}_{kind}"

    def _note(self, response: Any, **_: Any) -> None:
        """Of rows that the server refuses, the SDK only warns, and counts them as uploaded (0.10.3)."""
        is_refusal = response.status_code // 100 == 4 and response.url.endswith("/house/metrics")  # noqa: PLR2004 - HTTP
        if is_refusal and self._core._ctx.experiment_id in str(response.request.body):
            self._loss = f"the server refused rows: HTTP {response.status_code} {response.text[:200]}"

    def _end(self, status: Status, *, ends_run: bool) -> None:
        state = RunState.Value(f"RUN_STATE_{_STATES[status]}")
        error = None if status == "finished" else f"rolecall: {status}"
        record = FinishRecord(state=state, error=error, finished_at=Timestamp(seconds=int(time.time())))
        self._core.deliver_run_finish(DeliverRunFinishRequest(finish_record=record))
        if not ends_run:  # the SDK would end it, whichever process this is
            self._core._pending_online_finish_record = None
        answer = self._core.confirm_run_finish()
        if ends_run and not answer.success:
            raise Unavailable(f"swanlab: {answer.message}")
