"""`files`: a run is a file of JSON lines, which one process writes, so each role has a run of its own.

It can do all that a run can do, and holds every row once: `held` finds the rows in the file.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, SecretStr

from rolecall import (
    Media,
    MediaKind,
    Point,
    Row,
    Run,
    RunGone,
    RunTicket,
    SharedRunSupport,
    Status,
    SupportsReadback,
    Unavailable,
    hookimpl,
)


class FilesArgs(BaseModel):
    """Where the runs are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Path("runs")
    """The folder of the runs. A relative path is relative to the backend's own folder."""
    api_key: SecretStr | None = None
    """A file needs none; that one is given must not show."""


class FilesRun:
    """A run's file, to which each call appends."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        self.id = ticket.backend_run_id or ticket.run_id
        self.url: str | None = f"less {folder / self.id}.jsonl"
        self._primary = ticket.primary
        self._writer = ticket.writer
        self._media = folder / f"{self.id}.media"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / f"{self.id}.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise Unavailable(f"{folder} cannot be written: {error.strerror}") from error
        if ticket.primary:
            self.write({"name": ticket.name, "config": ticket.config, "tags": ticket.tags, "status": "running"})

    def log(self, rows: Sequence[Row]) -> None:
        self.write(*({**_place(row), "metrics": row.metrics, "text": row.text} for row in rows))

    def log_table(self, row: Row) -> None:
        table = row.table
        assert table is not None
        rows = [[self._stored(cell) if isinstance(cell, Media) else cell for cell in cells] for cells in table.rows]
        self.write({**_place(row), "table": table.name, "columns": table.columns, "rows": rows})

    @property
    def table_media_kinds(self) -> frozenset[MediaKind]:
        return frozenset({"image"})

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        return frozenset(get_args(MediaKind))

    def log_media(self, row: Row) -> None:
        self.write({**_place(row), "media": [self._stored(media) for media in row.media]})

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self.write({"config": config})

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        self.write({"summary": summary, "by": self._writer})  # all of this writer's, so that a removed key goes

    def set_tags(self, tags: Sequence[str]) -> None:
        self.write({"tags": tags})

    def end_at(self, time: float) -> None:
        self.write({"ended": time})

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        # It reads the whole file each time, which is short here; a tracker has an index.
        lines = (line for line in self.lines() if line.get("writer") == writer and line["session"] == session)
        return as_ranges({line["seq"] for line in lines})

    def flush(self, timeout: float) -> None:
        os.fsync(self._file)

    def close(self, status: Status) -> None:
        if self._file < 0:
            return
        if self._primary:
            self.write({"status": status})
        os.close(self._file)
        self._file = -1

    def write(self, *lines: Mapping[str, Any]) -> None:
        # All in one `write`, at the end of the file: lines of several processes do not mix, and a kill tears none.
        # A full disk may; so each `write` begins with a newline.
        data = "".join(["\n", *(f"{json.dumps(line)}\n" for line in lines)]).encode()
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise Unavailable(f"the run's file cannot be written: {error.strerror}") from error
        if written < len(data):
            raise Unavailable("the run's file cannot be written: the disk is full")

    def _stored(self, media: Media) -> dict[str, Any]:
        """What is written of an image, a histogram or the like, whose file is copied: rolecall's goes after a while."""
        what = {"key": media.key, "kind": media.kind, "mime": media.mime, "caption": media.caption}
        if media.path is None:
            return {**what, "counts": media.counts, "edges": media.edges}
        data = media.path.read_bytes()
        # Named after its content, so that a row that comes again needs no second file.
        name = f"{sha256(data).hexdigest()}{media.path.suffix}"
        self._media.mkdir(exist_ok=True)
        (self._media / name).write_bytes(data)
        return {**what, "file": name}

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from read_lines(os.pread(self._file, os.fstat(self._file).st_size, 0))


def _place(row: Row) -> dict[str, Any]:
    """What identifies a row, and when it was logged."""
    return {"writer": row.writer, "session": row.session, "seq": row.seq, "step": row.step, "time": row.time}


def read_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a run's file, without those that are empty or torn: their rows were not acknowledged."""
    for line in data.splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def as_ranges(seqs: set[int]) -> list[tuple[int, int]]:
    """Numbers as ranges: `{1, 2, 4}` is `[(1, 2), (4, 4)]`."""
    ranges: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        first = ranges.pop()[0] if ranges and ranges[-1][1] == seq - 1 else seq
        ranges.append((first, seq))
    return ranges


class FilesReadback:
    """The points in a run's file."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            raise RunGone(f"{file} is not there")
        self._file = file

    def keys(self) -> Iterator[str]:
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        yield from (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        for line in read_lines(self._file.read_bytes()):
            for key, value in line.get("metrics", {}).items():
                yield key, Point(line["step"], value, line["time"])

    def expected(self, row: Row) -> Row:
        return row  # it holds rows as they are

    def close(self) -> None:
        """Nothing is open."""


class FilesBackend:
    """The hooks."""

    ROLECALL_HOOKS = 2
    run: type[FilesRun] = FilesRun

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return FilesArgs

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        reason = "one process writes a run's file; choose shared-files, or set shared_run: relay"
        return SharedRunSupport(supported=False, reason=reason)

    @hookimpl
    def open_run(self, ticket: RunTicket, args: FilesArgs) -> Run:
        return self.run(ticket, ticket.directory / args.path)

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return FilesReadback(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


backend = FilesBackend()
