"""Encodes rows as the records of an event file."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from rolecall import Media, Row, TableData
from rolecall_tensorboard.records.hparams import hyperparameters
from rolecall_tensorboard.records.markdown import config_text, shortened, source_text, table_text
from rolecall_tensorboard.records.media import add_media, table_images, tagged
from rolecall_tensorboard.sdk import Sdk

__all__ = ["Encoder"]

logger = logging.getLogger(__name__)

FLOAT32_END = 3.4028235677973366e38
"""The smallest float that becomes infinite in 32 bits."""

LONG = 1 << 14
"""From how many bytes on numpy computes a checksum faster than tensorboardX."""


class Encoder:
    """Encodes rows as records; equal rows give equal bytes."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self._warned: set[str] = set()

    def version(self, time: float) -> bytes:
        """The first record of every event file."""
        return self._record(self._sdk.Event(wall_time=time, file_version="brain.Event:2"))

    def note(self, note: BaseModel) -> bytes:
        """A record for the ledger, which TensorBoard skips."""
        event = self._sdk.Event()
        event.log_message.message = note.model_dump_json()
        return self._record(event)

    def config(self, config: Mapping[str, Any], labels: Mapping[str, str], time: float) -> bytes:
        """The run's config, at step 0: as text, and for the HParams tab, there with labels."""
        # The summary of a session alone. With one of an experiment, which names metrics, TensorBoard would list only
        # the columns of the first role that it finds. Without any, those of all roles, and each metric (2.21, read in
        # `hparams/backend_context.py`).
        _, summary, _ = self._sdk.hparams(hyperparameters(config, labels), {})
        if config:
            summary.MergeFrom(self._summary("run_config", config_text(config)))
        return self._record(self._sdk.Event(wall_time=time, summary=summary))

    def summary(self, summary: Mapping[str, float | str], time: float) -> bytes:
        """The run's summary as text, a table at step 0."""
        rows = tuple(summary.items())
        table = TableData(name="summary", columns=("key", "value"), rows=rows)
        return self._text("run_summary", table_text(table), 0, time)

    def tags(self, tags: Sequence[str], time: float) -> bytes:
        """The run's tags as text, at step 0."""
        rows = tuple((tag,) for tag in tags)
        return self._text("run_tags", table_text(TableData(name="tags", columns=("tag",), rows=rows)), 0, time)

    def start(self, step: int, time: float) -> bytes:
        """A record that makes TensorBoard drop all that the run logged at this step or later, the config included."""
        event = self._sdk.Event(wall_time=time, step=step)
        event.session_log.status = self._sdk.SessionLog.START
        return self._record(event)

    def row(self, row: Row) -> bytes:
        """The record of one row: a table, media, or metrics and strings.

        Raises:
            ValueError: its step exceeds 64 bits, or a key is not valid Unicode.
            OSError: a file of its media cannot be read.
        """
        if row.table is not None:
            return self._table(row, row.table)
        if row.media:
            return self._media(row)
        for key, value in row.metrics.items():
            if abs(value) >= FLOAT32_END:
                self._warn_overflow(key, value)
        return self._record(self.event(row))

    def event(self, row: Row) -> Any:
        """The content of that record, of a row of metrics and strings; its values are of 32 bits."""
        # One record for all values of a row: 6 µs for each metric, where `SummaryWriter.add_scalar` takes 190 µs
        # (measured: 2.6.5 with protobuf 7, 10 metrics in a row, 2 busy cores).
        event = self._sdk.Event(wall_time=row.time, step=row.step)
        event.summary.SetInParent()  # a row without values is a record too: the ledger counts records
        # Tags are the keys as they were logged, since TensorBoard 2.21 draws any string. tensorboardX's own
        # `add_scalar` would turn `a@b`, `a b` and `a#b` into the same `a_b`.
        add = event.summary.value.add
        for key, value in row.metrics.items():
            add(tag=key, simple_value=value)
        for key, text in row.text.items():
            event.summary.MergeFrom(self._summary(key, text))
        return event

    def _warn_overflow(self, key: str, value: float) -> None:
        if math.isinf(value) or key in self._warned:
            return
        self._warned.add(key)
        logger.warning("tensorboard: %s = %r does not fit in 32 bits; TensorBoard shows it as infinity", key, value)

    def _table(self, row: Row, table: TableData) -> bytes:
        event = self._sdk.Event(wall_time=row.time, step=row.step, summary=self._summary(table.name, table_text(table)))
        by_column: dict[str, list[Media]] = {}
        for image in table_images(table):
            by_column.setdefault(image.key, []).append(image)
        for images in by_column.values():
            add_media(event.summary, images)
        return self._record(event)

    def _media(self, row: Row) -> bytes:
        event = self._sdk.Event(wall_time=row.time, step=row.step)
        if row.media[0].kind not in ("html", "markdown"):
            add_media(event.summary, row.media)
            return self._record(event)
        for tag, each in tagged(row.media):
            text = each.path.read_text("utf-8", "replace") if each.path is not None else ""
            shown = shortened(text) if each.kind == "markdown" else source_text(text)
            event.summary.MergeFrom(self._summary(tag, shown))
        return self._record(event)

    def _text(self, tag: str, text: str, step: int, time: float) -> bytes:
        return self._record(self._sdk.Event(wall_time=time, step=step, summary=self._summary(tag, text)))

    def _summary(self, tag: str, text: str) -> Any:
        # A model's sample may end in half a surrogate pair, which protobuf refuses: it is shown as its escape.
        return self._sdk.text(tag, text.encode("utf-8", "backslashreplace").decode("utf-8"))

    def _record(self, event: Any) -> bytes:
        """Frame an event as a TFRecord: length, checksum of the length, event, checksum of the event."""
        body: bytes = event.SerializeToString()
        length = struct.pack("<Q", len(body))
        return b"".join((length, self._checksum(length), body, self._checksum(body)))

    def _checksum(self, data: bytes) -> bytes:
        if len(data) < LONG:
            return struct.pack("<I", self._sdk.masked_crc32c(data))
        from rolecall_tensorboard.records.checksum import masked_crc32c  # imports numpy

        return struct.pack("<I", masked_crc32c(data))
