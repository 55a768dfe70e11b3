"""Rows as the records of an event file.

One record holds all metrics of a row: 6 µs a metric, where `SummaryWriter.add_scalar` takes 190 µs (2.6.5 with
protobuf 7, 10 metrics a row, 2 busy cores). Tags are the keys as they were logged: TensorBoard 2.21 draws any
string, and what tensorboardX makes of `a@b`, `a b` and `a#b` is one `a_b`.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rolecall import Row
from rolecall_tensorboard.markdown import config_text, table_text
from rolecall_tensorboard.sdk import Sdk

__all__ = ["Encoder"]

logger = logging.getLogger(__name__)

FLOAT32_END = 3.4028235677973366e38
"""The smallest float that becomes infinite in 32 bits."""


class Encoder:
    """Makes records; equal rows make equal bytes."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self._told: set[str] = set()

    def version(self, time: float) -> bytes:
        """The first record of every event file."""
        return self._record(self._sdk.Event(wall_time=time, file_version="brain.Event:2"))

    def note(self, note: BaseModel) -> bytes:
        """A record that TensorBoard skips, for the ledger."""
        event = self._sdk.Event()
        event.log_message.message = note.model_dump_json()
        return self._record(event)

    def config(self, config: Mapping[str, Any], time: float) -> bytes:
        """The run's config as text, at step 0."""
        return self._text("run_config", config_text(config), 0, time)

    def start(self, step: int, time: float) -> bytes:
        """Tells TensorBoard to drop what the run logged at this step or later, its config included."""
        event = self._sdk.Event(wall_time=time, step=step)
        event.session_log.status = self._sdk.SessionLog.START
        return self._record(event)

    def row(self, row: Row) -> bytes:
        """One row.

        Raises:
            ValueError: it cannot be encoded: its step exceeds 64 bits, or a key is no Unicode text.
        """
        if row.table is not None:
            return self._text(row.table.name, table_text(row.table), row.step, row.time)
        event = self._sdk.Event(wall_time=row.time, step=row.step)
        event.summary.SetInParent()
        add = event.summary.value.add
        for key, value in row.metrics.items():
            if abs(value) >= FLOAT32_END:
                self._tell_overflow(key, value)
            add(tag=key, simple_value=value)
        return self._record(event)

    def _tell_overflow(self, key: str, value: float) -> None:
        if math.isinf(value) or key in self._told:
            return
        self._told.add(key)
        logger.warning(
            "tensorboard: %s = %r is beyond 32 bits, TensorBoard will show an infinity", key, value
        )

    def _text(self, tag: str, text: str, step: int, time: float) -> bytes:
        """A text; half a surrogate pair, as a model's sample may end in, is shown as its escape."""
        sound = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return self._record(self._sdk.Event(wall_time=time, step=step, summary=self._sdk.text(tag, sound)))

    def _record(self, event: Any) -> bytes:
        """Frame an event as TFRecord does: length, its checksum, the event, its checksum."""
        body: bytes = event.SerializeToString()
        length = struct.pack("<Q", len(body))
        return b"".join((length, self._checksum(length), body, self._checksum(body)))

    def _checksum(self, data: bytes) -> bytes:
        return struct.pack("<I", self._sdk.masked_crc32c(data))
