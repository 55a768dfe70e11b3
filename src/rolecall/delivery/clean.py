"""Removes from a job's journals what every backend holds.

A session whose rows all backends have acknowledged is left with its header and its end, which says how many rows were
removed: `{"end": "finished", "seq": 500, "steps": {...}, "cleaned": 500}`. So its writer, its steps and its numbers are
still known, and whoever reads it later neither misses the rows nor takes them for lost. The record stays, and so does
what a backend rejected, as only the journal has it.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rolecall.backends.builtin import LOCAL
from rolecall.errors import DirectoryError, WriterConflict
from rolecall.states import State
from rolecall.store.acks import acknowledged, is_meant_for, leases, only_of, rejections
from rolecall.store.codec import encode, folder_below, last_line, last_seq, put_whole, refuse_link
from rolecall.store.details import details_of, last_steps
from rolecall.store.layout import Layout, job_record, slug_of
from rolecall.store.lease import Session, claim, end, held_now, sessions


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed of one session, or would be.

    Attributes:
        rows: how many rows.
        size: how many bytes, attachments included.
    """

    writer: str
    session: int
    rows: int
    size: int


def clean(root: Path, *, dry_run: bool = False) -> list[Cleaned]:
    """Remove the rows of a job that each of its backends has acknowledged; with `dry_run`, only say which.

    Raises:
        DirectoryError: no job is there, or its journals are all that there is of it.
        WriterConflict: the job is alive, or a courier delivers its rows.
    """
    layout = Layout(root.absolute())
    record, _ = job_record(layout)
    planned = [each.backend for each in record.plan.backends]
    if LOCAL in planned or not planned:
        raise DirectoryError(f"{layout.root}: the job's journals are its run in local, so none of it can be removed")
    backends = list(dict.fromkeys([*planned, *layout.backends()]))
    # No launcher goes on with the job meanwhile.
    launching = claim(layout.launching, {}, "the launcher's place")
    try:
        if busy := held_now(leases(layout, backends)):
            raise WriterConflict(f"{layout.root}: {next(iter(busy.values()))} is alive; wait for its end, or stop it")
        found = [each for writer in layout.writers() for each in _removable(layout, writer, backends)]
        return [_remove(layout, writer, session, rows, dry_run=dry_run) for writer, session, rows in found]
    finally:
        end(launching, "finished")


def earlier(root: Path) -> dict[Path, int]:
    """The jobs that were set aside in a `monitor_dir`, each to be cleaned by itself, and how many bytes each takes."""
    return {path: sum(_sizes(path)) for path in Layout(root).earlier()}


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):  # it follows no symlink
        yield from (os.lstat(os.path.join(path, name)).st_size for name in names)


def _removable(layout: Layout, writer: str, backends: list[str]) -> Iterator[tuple[str, Session, int]]:
    """The sessions of a writer that all backends are done with, and how many rows each has of its own."""
    backends = [backend for backend in backends if is_meant_for(layout, backend, writer)]
    positions = [acknowledged(layout, backend, writer).position for backend in backends]
    rejected = {number for backend in backends for number, _ in rejections(layout, backend, writer)}
    seq = changes = 0
    for session in sessions(layout.journal(writer)):
        last = last_line(session.path, session.seed) or {}
        before, changed = (seq, changes) if "continues" in session.header() else (0, 0)
        seq, changes = max(before, last_seq(last)), only_of(session).get("", 0)
        is_held_by_all = all((each.session, each.seq) >= (session.number, seq) for each in positions)
        if is_held_by_all and session.number not in rejected and seq > 0 and "cleaned" not in last:
            yield writer, session, max(0, seq - before - max(0, changes - changed))


def _remove(layout: Layout, writer: str, session: Session, rows: int, *, dry_run: bool) -> Cleaned:
    last = last_line(session.path, session.seed) or {}
    # Who died without a word was killed, and is taken for that from now on, too.
    status, ended = last.get("end", State.KILLED), last.get("time", time.time())
    final = {"end": status, "seq": last_seq(last), "steps": last_steps(session), "time": ended, "cleaned": rows}
    if details := details_of(session).line():
        final["details"] = details
    if only := only_of(session):
        final["only"] = only
    stub = encode(session.header(), session.seed) + encode(final, session.seed)
    files = [path for path in refuse_link(session.attachments).glob("*") if path.is_file()]
    size = session.path.lstat().st_size - len(stub) + sum(path.lstat().st_size for path in files)
    if not dry_run:
        # By a descriptor: somebody may put a symlink in the place of a directory after the looks above.
        with folder_below(layout.root, "journal", slug_of(writer)) as folder, suppress(FileNotFoundError):
            # First the rows that refer to the attachments.
            put_whole(Path(session.path.name), stub, folder=folder)
            shutil.rmtree(session.attachments.name, dir_fd=folder)
    return Cleaned(writer, session.number, rows, max(0, size))
