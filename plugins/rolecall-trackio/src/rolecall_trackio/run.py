"""A run in trackio's database, written by one process or by several."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rolecall import Media, MediaKind, Rejected, Row, RunTicket, Status
from rolecall_trackio.store import Entry, Store
from rolecall_trackio.values import log_id, log_prefix, metrics, renamed, timestamp

__all__ = ["TrackioRun"]

# How many rows wait for the next flush at most. Each write takes trackio 10 to 60 ms, of one row or of hundreds.
_MOST_WAITING: Final = 2_000

# The types by which the dashboard shows them (0.38 to 0.43). It has no place for files of a run.
_TYPES: Final[Mapping[MediaKind, str]] = {
    "image": "trackio.image",
    "figure": "trackio.image",
    "video": "trackio.video",
    "audio": "trackio.audio",
    "html": "trackio.html",
}


class TrackioRun:
    """One run of a project; a `rolecall.Run` that supports tables, media, configs, an end and progress.

    Several processes write it, each its own rows. trackio ignores a row that it has already, so each is there once.
    """

    def __init__(self, store: Store, ticket: RunTicket) -> None:
        self.id = ticket.backend_run_id or ticket.run_id
        self._store = store
        self._ticket = ticket
        self._ended = ticket.ended
        self._waiting: list[Entry] = []
        # trackio knows a run by its rows, and a config by a row beside it: this one has no metrics.
        self._first = Entry(f"{self.id}:opened", 0, timestamp(ticket.created or time.time()), {})
        if ticket.primary:
            # the names of `trackio.Run` for what begins with an underscore; the dashboard groups runs by them
            own = {"status": "running", "ended": None, "_Group": ticket.group, "_Created": self._first.timestamp}
            self._add_config({**ticket.config, **({"tags": list(ticket.tags)} if ticket.tags else {}), **own})

    @property
    def url(self) -> str:
        """The command that shows the project."""
        return f"TRACKIO_DIR={shlex.quote(str(self._store.directory))} trackio show --project " + shlex.quote(
            self._ticket.project
        )

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`."""
        prefix = log_prefix(self.id, writer, session)
        found = {int(each.removeprefix(prefix).partition(":")[0]) for each in self._store.log_ids(prefix)}
        return list(_ranges(sorted(found)))

    def log(self, rows: Sequence[Row]) -> None:
        """Keep rows for the next flush.

        Raises:
            Unavailable: so many wait that they were to be written, and could not be.
            Rejected: some rows have a key or a string that is not valid Unicode.
        """
        refused = [row for row in rows if not self._add(row, metrics(row))]
        if len(self._waiting) >= _MOST_WAITING:
            self._write()
        if refused:
            raise Rejected(refused, "trackio needs keys and strings that are valid Unicode")

    def log_table(self, row: Row) -> None:
        """Keep one table for the next flush; errors as in `log`."""
        self.log([row])

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        """All but files."""
        return frozenset({"histogram", *_TYPES})

    def log_media(self, row: Row) -> None:
        """Copy the files to trackio's directory, and keep the row for the next flush; a list has a key for each item.

        Raises:
            Unavailable: a file cannot be copied.
            Rejected: the figure is one of Plotly.
        """
        if any(each.kind == "figure" and not each.mime.startswith("image/") for each in row.media):
            raise Rejected([row], "trackio holds figures of Plotly only as HTML; they stay in the job's directory")
        many = len(row.media) > 1
        values = {f"{each.key}/{at}" if many else each.key: self._medium(row, at) for at, each in enumerate(row.media)}
        if not self._add(row, {renamed(key): value for key, value in values.items()}):
            raise Rejected([row], "trackio needs keys that are valid Unicode")

    def merge_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the configs of all writers to the run's.

        Two writers may do this at once, and the later one wins. It knows what the first knew, or the primary adds
        the rest before the run ends.
        """
        self._add_config(config)

    def end_at(self, time: float) -> None:
        """See `rolecall.SupportsEndTime`."""
        self._ended = time

    def flush(self, timeout: float) -> None:
        """Return once the rows are on the disk. `timeout` has no effect: trackio waits 10 s for another process.

        Raises:
            Unavailable: the database is locked, or the disk is full; the rows since the last flush must come again.
        """
        self._write()
        self._store.sync()

    def close(self, status: Status) -> None:
        """Write into a primary's config how the run ended, as trackio has no other place for it."""
        if self._ticket.primary:
            self._add_config({"status": status, "ended": timestamp(self._ended or time.time())})

    def _add(self, row: Row, values: Mapping[str, Any]) -> bool:
        """Whether the row can be written."""
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return False
        name = log_id(self.id, row)
        if self._ticket.repair:
            # trackio has the rest of the row under its own name
            name = f"{name}:{hashlib.sha256(repr(sorted(values)).encode()).hexdigest()[:8]}"
        self._waiting.append(Entry(name, row.step, timestamp(row.time), values))
        return True

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._store.append(self.id, self._ticket.name, waiting)

    def _add_config(self, config: Mapping[str, Any]) -> None:
        merged = {**self._store.config(self.id), **_plain(config)}
        self._store.append(self.id, self._ticket.name, [self._first], merged)

    def _medium(self, row: Row, at: int) -> Mapping[str, Any]:
        media: Media = row.media[at]
        if media.path is None:
            return {"_type": "trackio.histogram", "bins": media.edges, "values": media.counts}
        # The name is made of the row, so that a row that comes again leaves no second file.
        digest = hashlib.sha256(log_id(self.id, row).encode()).hexdigest()[:24]
        name = f"{digest}-{at}{mimetypes.guess_extension(media.mime) or media.path.suffix}"
        path = self._store.keep(media.path, self._ticket.name, row.step, name)
        return {"_type": _TYPES[media.kind], "file_path": path, "caption": media.caption or None}


def _plain(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What trackio's encoder takes: it refuses integers of more than 64 bits and what is not valid Unicode."""
    text = json.dumps(config, default=str, skipkeys=True, ensure_ascii=False).encode(errors="replace")
    found: Mapping[str, Any] = json.loads(text, parse_int=_number)
    return found


def _number(digits: str) -> int | str:
    number = int(digits)
    return number if number.bit_length() < 64 else digits  # noqa: PLR2004 - bits


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """`[1, 2, 4]` as `(1, 2), (4, 4)`."""
    start = 0
    for at, number in enumerate(numbers):
        if at + 1 == len(numbers) or numbers[at + 1] > number + 1:
            yield numbers[start], number
            start = at + 1
