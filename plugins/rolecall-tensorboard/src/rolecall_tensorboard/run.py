"""A run of one writer, or of all that one process writes for: a directory of event files."""

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

from rolecall import Media, MediaKind, Rejected, Row, Status, Unavailable
from rolecall_tensorboard.eventfile import EventFile
from rolecall_tensorboard.ledger import Aside, Ledger, Marker, Owner
from rolecall_tensorboard.records.encode import Encoder
from rolecall_tensorboard.records.media import KINDS, table_images, why_not

__all__ = ["RunPlace", "TensorBoardRun", "file_suffix"]

logger = logging.getLogger(__name__)

# Without this option TensorBoard draws 1,000 points of a metric and 10 texts of a tag, chosen at random (2.21).
SAMPLES = "scalars=100000,text=100"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """Where a run writes, and what each of its files begins with.

    Attributes:
        base: the directory to pass to `tensorboard --logdir`.
        directory: the writer's own directory below `base`.
        suffix: part of each file name, which names the writer and its process.
        run_id: rolecall's id of the run, recorded in each file.
        config: the run's config, written at the start of each file.
        labels: what the HParams tab lists beside the config: the job and the role.
        tags: the run's tags, written there too.
        many: whether the rows of several writers come here.
    """

    base: Path
    directory: Path
    suffix: str
    run_id: str
    config: Mapping[str, Any]
    labels: Mapping[str, str]
    tags: Sequence[str] = ()
    many: bool = False

    def new_path(self) -> Path:
        """A file name that is unique, also within one second, and that sorts by time."""
        stamp = f"{time.time():.6f}.{socket.gethostname()}.{self.suffix}.{uuid.uuid4().hex[:8]}"
        return self.directory / f"events.out.tfevents.{stamp}"


def file_suffix(writer: str, pid: int) -> str:
    """`explorer-0.4711` for the writer `explorer/0`."""
    return f"{re.sub(r'[^A-Za-z0-9_.]', '-', writer)[:64]}.{pid}"


class TensorBoardRun:
    """A run; a `rolecall.Run` that supports tables, media, details and progress.

    A row that comes again, in the same process or after a crash, is written once: the event files record which
    rows they hold.
    """

    def __init__(self, place: RunPlace, encoder: Encoder, ledger: Ledger) -> None:
        """Create the first event file.

        Raises:
            OSError: it cannot be created.
        """
        self._place = place
        self._encoder = encoder
        self._ledger = ledger
        self._rows_lost = False
        self._config: Mapping[str, Any] = place.config
        self._summary: Mapping[str, float | str] = {}
        self._tags: Sequence[str] = place.tags
        self._file: EventFile | None = self._new_file()

    @property
    def id(self) -> str:
        """The writer's directory."""
        return str(self._place.directory)

    @property
    def url(self) -> str:
        """The command that shows the whole job."""
        return f"tensorboard --logdir {shlex.quote(str(self._place.base))} --samples_per_plugin {SAMPLES}"

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`: the rows of this session that the event files hold."""
        return self._ledger.held(writer, session)

    def log(self, rows: Sequence[Row]) -> None:
        """Append rows in one write, except for rows that the files already hold.

        Raises:
            Unavailable: the file system is full or unreachable; none was written.
            Rejected: some rows have a step of more than 64 bits or a key that is not valid Unicode; all others were
                written.
        """
        try:
            refused = self._append(rows, self._file or self._new_file())
        except OSError as error:
            raise self._unavailable(error) from error
        if refused:
            raise Rejected(refused, "TensorBoard needs steps that fit in 64 bits and keys that are valid Unicode")

    def log_table(self, row: Row) -> None:
        """Append one table as text, under its name, and its images under `{name}/{column}`; errors as in `log`.

        Raises:
            Rejected: its images are larger than what TensorBoard reads at once.
        """
        self._log_files(row, table_images(row.table) if row.table is not None else ())

    @property
    def table_media_kinds(self) -> frozenset[MediaKind]:
        """See `rolecall.SupportsTableMedia`."""
        return frozenset({"image"})

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        """All but files, for which TensorBoard has no place."""
        return KINDS

    def log_media(self, row: Row) -> None:
        """Append the media of one key, each kind for the tab that TensorBoard has for it; errors as in `log`.

        Raises:
            Rejected: TensorBoard cannot show a file of this format or size.
        """
        self._log_files(row, row.media)

    def _log_files(self, row: Row, media: Sequence[Media]) -> None:
        try:
            reason = why_not(media)
        except OSError as error:
            raise self._unavailable(error) from error
        if reason is not None:
            raise Rejected([row], reason)
        self.log([row])

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """See `rolecall.SupportsConfig`: the whole config is written as text once more."""
        self._config = {**self._config, **config}
        self._tell(self._encoder.config(self._config, self._place.labels, time.time()))

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`: text, of which TensorBoard shows the last."""
        self._summary = summary
        self._tell(self._encoder.summary(summary, time.time()))

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`: text, as TensorBoard has no tags for runs."""
        self._tags = tags
        self._tell(self._encoder.tags(tags, time.time()))

    def flush(self, timeout: float) -> None:
        """Return once the file system holds every row; `timeout` has no effect.

        Raises:
            Unavailable: rows since the last flush may be lost. They were removed, and must come again.
        """
        # One `fsync`, which cannot be interrupted: on a network file system that hangs, it hangs in the kernel.
        try:
            self._sync()
        except OSError as error:
            self._take_back()
            raise self._unavailable(error) from error
        finally:
            self._rows_lost = False

    def close(self, status: Status) -> None:
        """Close the file. An event file has no place for `status`."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _new_file(self) -> EventFile:
        file = EventFile(self._place.new_path(), b"".join(self._header(time.time())))
        self._ledger.interrupt()
        self._file, self._acknowledged = file, (file.size, self._ledger.copy())
        return file

    def _header(self, now: float) -> Iterator[bytes]:
        """The first records of a file."""
        yield self._encoder.version(now)
        yield self._encoder.note(Owner(run_id=self._place.run_id))
        # TensorBoard does not treat a run's first `start` as a restart (`--load_fast=false`, 2.21), so a run needs one
        # before there is anything to drop.
        if self._ledger.top_step is None:
            yield self._encoder.start(0, now)
        yield from self._details(now)

    def _details(self, now: float) -> Iterator[bytes]:
        """What is said of the run beside its rows."""
        yield self._encoder.config(self._config, self._place.labels, now)
        if self._summary:
            yield self._encoder.summary(self._summary, now)
        if self._tags:
            yield self._encoder.tags(self._tags, now)

    def _tell(self, record: bytes) -> None:
        """Append a record that is no row.

        Raises:
            Unavailable: the file system is full or unreachable.
        """
        try:
            if self._file is None:
                self._new_file()  # with all that is said of the run
                return
            self._write(self._file, self._encoder.note(Aside(aside="details")) + record)
        except OSError as error:
            raise self._unavailable(error) from error
        self._ledger.interrupt()

    def _append(self, rows: Sequence[Row], file: EventFile) -> list[Row]:
        """Write the rows that the files do not hold yet; return those that cannot be encoded."""
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
        """The row's record, preceded by those that TensorBoard or the ledger needs."""
        last, before = self._encoder.row(row), list[bytes]()
        # TensorBoard would also drop what other writers logged from that step on.
        if not self._place.many and ledger.restarts(row):
            ledger.interrupt()
            before = [self._encoder.start(row.step, row.time), *self._details(row.time)]
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
            raise OSError(errno.EIO, "rows were lost in a damaged file", str(self._place.directory))
        if self._file is not None and self._file.size > self._acknowledged[0]:
            self._file.sync()
            self._acknowledged = (self._file.size, self._ledger.copy())

    def _take_back(self) -> None:
        """Remove what was not acknowledged; if the file is lost, the next row begins another one."""
        size, ledger = self._acknowledged
        self._ledger = ledger.copy()
        if self._file is None:
            return
        self._file.rewind(size)
        if self._file.torn or not self._file.in_place():
            self.close("failed")

    def _unavailable(self, error: OSError) -> Unavailable:
        message = f"tensorboard: {error.strerror} ({error.filename or self._place.directory})"
        logger.debug(message, exc_info=error)
        return Unavailable(message)
