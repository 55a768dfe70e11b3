"""A run of one writer: a directory of event files."""

from __future__ import annotations

import errno
import logging
import re
import shlex
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecall import Rejected, Row, Status, Unavailable
from rolecall_tensorboard.encode import Encoder
from rolecall_tensorboard.eventfile import EventFile
from rolecall_tensorboard.ledger import Ledger, Marker, Owner

__all__ = ["Place", "TensorBoardRun", "file_suffix"]

logger = logging.getLogger(__name__)

SAMPLES = "scalars=100000,text=100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run writes.

    Attributes:
        base: what to give to `tensorboard --logdir`.
        directory: the writer's own directory, somewhere under `base`.
        suffix: what file names end in, the same for no other process.
        run_id: the job's name of the run, noted in each file.
        config: the run's config, written at the start of each file.
    """

    base: Path
    directory: Path
    suffix: str
    run_id: str
    config: Mapping[str, Any]

    def new_path(self) -> Path:
        """A file name that no other opening makes, even in the same second, and that sorts by time."""
        stamp = f"{time.time():.6f}.{socket.gethostname()}.{self.suffix}.{uuid.uuid4().hex[:8]}"
        return self.directory / f"events.out.tfevents.{stamp}"


def file_suffix(writer: str, pid: int) -> str:
    """`explorer-0.4711` for the writer `explorer/0`."""
    return f"{re.sub(r'[^A-Za-z0-9_.]', '-', writer)[:64]}.{pid}"


class TensorBoardRun:
    """The run of one writer; a `rolecall.Run` with tables and progress.

    A row that comes again, in the same process or after a crash, is written once: the event files tell which
    rows they hold.
    """

    def __init__(self, place: Place, encoder: Encoder, ledger: Ledger) -> None:
        """Create the first event file.

        Raises:
            OSError: it cannot be created.
        """
        self._place = place
        self._encoder = encoder
        self._ledger = ledger
        self._rows_lost = False
        self._file: EventFile | None = self._new_file()

    @property
    def id(self) -> str:
        """The writer's directory."""
        return str(self._place.directory)

    @property
    def url(self) -> str:
        """The command that shows the whole job.

        Unless told, TensorBoard draws 1,000 points of a metric and 10 tables of a name (2.21).
        """
        return f"tensorboard --logdir {shlex.quote(str(self._place.base))} --samples_per_plugin {SAMPLES}"

    def held(self, writer: str, session: int) -> int:
        """The highest `seq` up to which the event files hold every row of this session."""
        return self._ledger.held(writer, session)

    def log(self, rows: Sequence[Row]) -> None:
        """Append rows in one write; those that are held already are passed over.

        Raises:
            Unavailable: the file system takes no more; none was written.
            Rejected: rows whose step exceeds 64 bits or whose keys are no Unicode text; all others were written.
        """
        try:
            refused = self._append(rows, self._file or self._new_file())
        except OSError as error:
            raise self._unavailable(error) from error
        if refused:
            raise Rejected(refused, "TensorBoard takes steps of 64 bits and keys of valid Unicode")

    def log_table(self, row: Row) -> None:
        """Append one table as text, under its name; errors as in `log`."""
        self.log([row])

    def flush(self, timeout: float) -> None:
        """Return once the file system holds every row.

        The call is one `fsync`. It cannot be bounded by `timeout`: on a network file system that hangs, it
        hangs in the kernel.

        Raises:
            Unavailable: rows since the last flush may be lost. They were taken back, and must come again.
        """
        try:
            self._sync()
        except OSError as error:
            self._take_back()
            raise self._unavailable(error) from error
        finally:
            self._rows_lost = False

    def close(self, status: Status) -> None:
        """Close the file. TensorBoard knows no end of a run, so `status` is not kept."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _new_file(self) -> EventFile:
        file = EventFile(self._place.new_path(), b"".join(self._header(time.time())))
        self._ledger.interrupt()
        self._file, self._acknowledged = file, (file.size, self._ledger.copy())
        return file

    def _header(self, now: float) -> Iterator[bytes]:
        """What a file begins with.

        TensorBoard takes the first start of a run for no restart (`--load_fast=false`, 2.21), so a run needs one
        before there is anything to drop.
        """
        yield self._encoder.version(now)
        yield self._encoder.note(Owner(run_id=self._place.run_id))
        if self._ledger.top_step is None:
            yield self._encoder.start(0, now)
        yield from self._config(now)

    def _config(self, now: float) -> Iterator[bytes]:
        if self._place.config:
            yield self._encoder.config(self._place.config, now)

    def _append(self, rows: Sequence[Row], file: EventFile) -> list[Row]:
        """Write what is not held yet, and return the rows that cannot be encoded."""
        ledger, records, refused = self._ledger.copy(), list[bytes](), list[Row]()
        for row in rows:
            if ledger.has(row):
                continue
            try:
                records += self._records(row, ledger)
            except ValueError:
                refused.append(row)
        self._write(file, b"".join(records))
        self._ledger = ledger
        return refused

    def _records(self, row: Row, ledger: Ledger) -> list[bytes]:
        """The row, and before it what TensorBoard or the ledger must know."""
        last, before = self._encoder.row(row), list[bytes]()
        if ledger.restarts(row):
            ledger.interrupt()
            before = [self._encoder.start(row.step, row.time), *self._config(row.time)]
        if not ledger.expects(row):
            marker = Marker(writer=row.writer, session=row.session, seq=row.seq)
            ledger.mark(marker)
            before.append(self._encoder.note(marker))
        ledger.count(row.step)
        return [*before, last]

    def _write(self, file: EventFile, records: bytes) -> None:
        try:
            file.append(records)
        except OSError:
            if file.torn:
                self._take_back()
                self._rows_lost = True
            raise

    def _sync(self) -> None:
        if self._rows_lost:
            raise OSError(errno.EIO, "rows were lost with a torn file", str(self._place.directory))
        if self._file is not None and self._file.size > self._acknowledged[0]:
            self._file.sync()
            self._acknowledged = (self._file.size, self._ledger.copy())

    def _take_back(self) -> None:
        """Forget what was not acknowledged; the next row begins another file if this one is lost."""
        size, ledger = self._acknowledged
        self._ledger = ledger.copy()
        if self._file is None:
            return
        self._file.rewind(size)
        if self._file.torn or not self._file.in_place():
            self.close("failed")

    def _unavailable(self, error: OSError) -> Unavailable:
        told = f"tensorboard: {error.strerror} ({error.filename or self._place.directory})"
        logger.debug(told, exc_info=error)
        return Unavailable(told)
