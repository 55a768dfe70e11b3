"""A run in trackio's database, written by one process or by several."""

import hashlib
import json
import mimetypes
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from rolecall import MediaKind, Rejected, Row, RunTicket, Status
from rolecall_trackio.rows import log_id, metrics, renamed, timestamp
from rolecall_trackio.store import Entry, Store

__all__ = ["TrackioRun"]

# How many rows wait for the next flush at most. Each write takes trackio 10 to 60 ms, of one row or of hundreds.
_MOST_WAITING: Final = 2_000


class TrackioRun:
    """One run of a project; a `rolecall.Run` that supports tables, media, configs, an end and progress.

    Several processes write it, each its own rows. trackio ignores a row that it has already, so each is there once.

    Attributes:
        id: rolecall's id of the run.
        url: the command that shows the project.
        media_kinds: all but files: the dashboard has no place for them (0.38 to 0.43).
    """

    media_kinds: Final[frozenset[MediaKind]] = frozenset({"image", "figure", "video", "audio", "html", "histogram"})

    def __init__(self, store: Store, ticket: RunTicket) -> None:
        self.id = ticket.backend_run_id or ticket.run_id
        folder, project = shlex.quote(str(store.directory)), shlex.quote(ticket.project)
        self.url = f"TRACKIO_DIR={folder} trackio show --project {project}"
        self._store, self._ticket, self._ended = store, ticket, ticket.ended
        self._waiting = list[Entry]()
        # trackio knows a run by its rows, and a config by a row beside it: this one has no metrics.
        created = timestamp(ticket.created or time.time())
        self._first = _entry(f"{self.id}:opened", 0, created, {})
        if ticket.primary:
            # the names of `trackio.Run` for what begins with an underscore; the dashboard groups runs by them
            own = {"status": "running", "ended": None, "_Group": ticket.group, "_Created": created}
            self.merge_config({**ticket.config, **({"tags": list(ticket.tags)} if ticket.tags else {}), **own})

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`."""
        prefix = log_id(self.id, writer, session)
        # by the index on `log_id`: a colon comes after all digits
        ids = self._store.select("SELECT log_id FROM metrics WHERE log_id BETWEEN ? AND ?", prefix, f"{prefix}:")
        found = sorted({int(each[len(prefix) :].partition(":")[0]) for (each,) in ids})
        runs = [[seq for _, seq in run] for _, run in groupby(enumerate(found), lambda pair: pair[1] - pair[0])]
        return [(run[0], run[-1]) for run in runs]

    def log(self, rows: Sequence[Row]) -> None:
        """Keep rows for the next flush.

        Raises:
            Unavailable: so many wait that they were to be written, and could not be.
            Rejected: some rows have a key or a string that is not valid Unicode.
        """
        refused = [row for row in rows if not self._add(row)]
        if len(self._waiting) >= _MOST_WAITING:
            self.flush(0.0)
        if refused:
            raise Rejected(refused, "trackio needs keys and strings that are valid Unicode")

    def log_table(self, row: Row) -> None:
        """Keep one table for the next flush; errors as in `log`."""
        self.log([row])

    def log_media(self, row: Row) -> None:
        """Copy the files to trackio's directory, and keep the row for the next flush; a list has a key for each item.

        Raises:
            Unavailable: a file cannot be copied.
            Rejected: the figure is one of Plotly.
        """
        if any(each.kind == "figure" and not each.mime.startswith("image/") for each in row.media):
            raise Rejected([row], "trackio holds figures of Plotly only as HTML; they stay in the job's directory")
        self.log([row])

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Add the configs of all writers to the run's.

        Two writers may do this at once, and the later one wins. It knows what the first knew, or the primary adds
        the rest before the run ends.
        """
        # trackio's encoder refuses integers of more than 64 bits and what is not valid Unicode
        text = json.dumps(config, default=str, skipkeys=True, ensure_ascii=False).encode(errors="replace")
        plain = json.loads(text, parse_int=lambda digits: number if abs(number := int(digits)) < 1 << 63 else digits)
        self._store.append(self.id, self._ticket.name, [self._first], plain)

    def end_at(self, time: float) -> None:
        """See `rolecall.SupportsEndTime`."""
        self._ended = time

    def flush(self, timeout: float) -> None:
        """Return once the rows are on the disk. `timeout` has no effect: trackio waits 10 s for another process.

        Raises:
            Unavailable: the database is locked, or the disk is full; the rows since the last flush must come again.
        """
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._store.append(self.id, self._ticket.name, waiting)

    def close(self, status: Status) -> None:
        """Write into a primary's config how the run ended, as trackio has no other place for it."""
        if self._ticket.primary:
            self.merge_config({"status": status, "ended": timestamp(self._ended or time.time())})

    def _add(self, row: Row) -> bool:
        """Whether the row can be written."""
        name = log_id(self.id, row.writer, row.session, row.seq)
        values = {**metrics(row), **{renamed(key): value for key, value in self._media(row, name)}}
        text = json.dumps(values, ensure_ascii=False)
        if text.encode(errors="ignore") != text.encode(errors="surrogatepass"):
            return False
        # when one is repaired, trackio has the rest of the row under its own name
        part = f":{hashlib.sha256(repr(sorted(values)).encode()).hexdigest()[:8]}" if self._ticket.repair else ""
        self._waiting.append(_entry(name + part, row.step, timestamp(row.time), values))
        return True

    def _media(self, row: Row, log_id: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """As the dashboard knows them (0.38 to 0.43)."""
        for at, media in enumerate(row.media):
            key = f"{media.key}/{at}" if len(row.media) > 1 else media.key
            if media.path is None:
                yield key, {"_type": "trackio.histogram", "bins": media.edges, "values": media.counts}
                continue
            # The name is made of the row, so that a row that comes again leaves no second file.
            digest, suffix = hashlib.sha256(log_id.encode()).hexdigest(), mimetypes.guess_extension(media.mime)
            name = f"{digest[:24]}-{at}{suffix or media.path.suffix}"
            path = self._store.keep(media.path, self._ticket.name, row.step, name)
            kind = f"trackio.{media.kind.replace('figure', 'image')}"
            yield key, {"_type": kind, "file_path": path, "caption": media.caption or None}


def _entry(name: str, step: int, stamp: str, values: Mapping[str, Any]) -> Entry:
    return {"log_ids": name, "steps": step, "timestamps": stamp, "metrics_list": dict(values)}
