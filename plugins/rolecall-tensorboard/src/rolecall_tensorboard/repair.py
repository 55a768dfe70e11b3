"""Puts rows back between those that a run's event files hold.

TensorBoard's default loader drops what it has read of a metric from a step on when a later record has that step: of 50
points, two of them in a second file, it drew 11 (data server 0.7.2, measured). So rows that are missing cannot be
appended. All that the files hold is written into one new file instead, with the missing rows where they belong.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rolecall import Rejected, Row, Status, Unavailable
from rolecall_tensorboard.eventfile import EventFile
from rolecall_tensorboard.ledger import Aside, Held, Ledger, Marker, Owner, is_note, owned_files, read_records, sync
from rolecall_tensorboard.readback import has_scalars
from rolecall_tensorboard.records.encode import Encoder
from rolecall_tensorboard.run import RunPlace
from rolecall_tensorboard.sdk import Sdk

__all__ = ["TensorBoardRepair"]


class TensorBoardRepair:
    """A `rolecall.Run` that takes rows which the event files of a run lack, in the order in which they were logged."""

    def __init__(self, place: RunPlace, sdk: Sdk, ledger: Ledger) -> None:
        self._place = place
        self._sdk = sdk
        self._encoder = Encoder(sdk)
        self._ledger = ledger
        self._rows: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it

    @property
    def id(self) -> str:
        """The writer's directory."""
        return str(self._place.directory)

    @property
    def url(self) -> None:
        """A repair is shown nowhere."""

    def log(self, rows: Sequence[Row]) -> None:
        """Keep rows until `flush`.

        Raises:
            Rejected: some rows cannot be encoded; see `TensorBoardRun.log`.
        """
        refused = []
        for row in rows:
            try:
                self._rows.write(self._encoder.row(row))
            except ValueError:
                refused.append(row)
                continue
            # What is missing ends where the acknowledged rows end, or before; so they are all there in the end.
            self._ledger.restore(Held(writer=row.writer, session=row.session, held=row.seq, top_step=row.step))
        if refused:
            raise Rejected(refused, "TensorBoard needs steps that fit in 64 bits and keys that are valid Unicode")

    def flush(self, timeout: float) -> None:
        """Write all rows into a new file, and remove those that it replaces; `timeout` has no effect.

        Raises:
            Unavailable: the file system is full or unreachable; the files are as they were.
        """
        if not self._rows.tell():
            return
        try:
            self._replace(owned_files(self._place.directory, self._place.run_id, self._sdk))
        except OSError as error:
            where = error.filename or self._place.directory
            raise Unavailable(f"tensorboard: {error.strerror} ({where})") from error
        self._rows.seek(0)
        self._rows.truncate()

    def close(self, status: Status) -> None:
        """Drop what was not flushed."""
        self._rows.close()

    def _replace(self, files: Sequence[Path]) -> None:
        # No event file for TensorBoard, and none of this run, before it is whole.
        draft = self._place.directory / f"repair.{uuid.uuid4().hex}"
        ends: dict[Path, int] = {}
        try:
            self._write(draft, self._merge(files, ends))
            draft.rename(self._place.new_path())
            sync(draft.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        # If this process is killed here, rows are there twice, and not lost.
        for path in files:
            if ends[path] == path.stat().st_size:
                path.unlink()
            else:  # tables and strings may be behind the damage, for people who want to look for them
                path.rename(path.with_name(path.name.replace("tfevents", "damaged")))

    def _write(self, path: Path, records: Iterator[bytes]) -> None:
        now = time.time()
        notes = [Owner(run_id=self._place.run_id), *self._ledger.notes()]
        file = EventFile(path, self._encoder.version(now) + b"".join(map(self._encoder.note, notes)))
        try:
            for record in records:  # one by one: a record may hold images of many megabytes
                file.append(record)
            file.sync()
        finally:
            file.close()

    def _merge(self, files: Iterable[Path], ends: dict[Path, int]) -> Iterator[bytes]:
        """The records of all files, and the missing rows before the first that was logged later."""
        self._rows.seek(0)
        missing = read_records(self._rows, self._sdk)
        waiting = next(missing, None)
        for moment, record in self._records(files, ends):
            while waiting is not None and waiting[0].wall_time < moment:
                yield waiting[1]
                waiting = next(missing, None)
            yield record
        while waiting is not None:
            yield waiting[1]
            waiting = next(missing, None)

    def _records(self, files: Iterable[Path], ends: dict[Path, int]) -> Iterator[tuple[float, bytes]]:
        """Each record but the ledger's, and when its row was logged: 0 of what stays before the next row."""
        has_started = False
        for path in files:
            ends[path] = 0
            with path.open("rb") as file:
                for event, record in read_records(file, self._sdk):
                    ends[path] += len(record)
                    kind = event.WhichOneof("what")
                    if kind == "file_version" or is_note(event, Owner, Marker, Aside, Held):
                        continue
                    # A restart drops rows that were logged before it. The first one drops none, and its time is when
                    # the file was opened, which may be after the first rows; so is that of a config.
                    is_timed = has_started if kind == "session_log" else has_scalars(event)
                    has_started = has_started or kind == "session_log"
                    yield (event.wall_time if is_timed else 0.0), record
