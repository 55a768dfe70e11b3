"""What a server was seen to hold of a job's run, beside what the journals of the job's roles say was logged."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self

from packaging.version import Version
from wandb_emulator import StoredRun, WandbServer

from rolecall import Row

__all__ = ["DEBOUNCE", "Hole", "Key", "Poll", "check_bound", "check_rows", "check_summary", "holes_of", "report"]

DEBOUNCE: Final = 5.0 if Version(version("wandb")) >= Version("0.19.11") else 30.0
"""Seconds for which the SDK holds back an upload of definitions."""
LIMIT: Final = 2 * DEBOUNCE + 20.0
"""Seconds from the first row of a key to when it is bound, and the longest hole at a join: an upload that had to wait
for another one, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the shared run: its axis, and when it was first logged."""

    name: str
    axis: str
    logged: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a poll found bound; the answer was made some time between these two."""

    began: float
    ended: float
    bindings: Mapping[str, str]

    def missing(self, keys: Iterable[Key]) -> list[str]:
        """Those that it did not find bound to their axis."""
        return [key.name for key in keys if self.bindings.get(key.name) != key.axis]


class Poll:
    """Asks the server each second what is bound; a context manager."""

    def __init__(self, server: WandbServer, run_id: str) -> None:
        self.looks: list[Look] = []
        self._server = server
        self._run_id = run_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _look_on(self) -> None:
        while not self._over.wait(1.0):
            self._look()

    def _look(self) -> None:
        began = time.time()
        bindings = self._server.bindings(self._run_id)
        self.looks.append(Look(began, time.time(), bindings))


@dataclass(slots=True)
class Hole:
    """Seconds in which keys were not bound that had been, and the upload with which it began."""

    began: float
    ended: float
    writer: str
    joined: bool
    lost: set[str] = field(default_factory=set)

    @property
    def length(self) -> float:
        """In seconds."""
        return self.ended - self.began

    def covers(self, look: Look) -> bool:
        """Whether this is what the poll may have seen."""
        return self.began <= look.ended and look.began <= self.ended


def keys_of(rows: Sequence[Row]) -> list[Key]:
    """The keys of a job, as they first were in a journal, which is before the server heard of them."""
    found: dict[str, Key] = {}
    for row in rows:
        for name in row.metrics:
            key = f"{row.writer}/{name}"
            found.setdefault(key, Key(key, f"{row.writer}/step", row.time))
    return list(found.values())


def writers_of(run: StoredRun, rows: Sequence[Row]) -> dict[str | None, str]:
    """Who is behind each client id, by the rows that it sent; the launcher sends none."""
    names = {row.writer for row in rows}
    return {entry.client: name for entry in run.history for name in names if f"{name}/step" in entry.line}


def holes_of(run: StoredRun, rows: Sequence[Row]) -> list[Hole]:
    """All holes, by the bindings as they were after each upload."""
    names, seen = writers_of(run, rows), set[str | None]()
    bound: set[str] = set()
    holes: list[Hole] = []
    uploads = [upsert for upsert in run.upserts if upsert.config is not None]
    for upload, (changed, bindings) in zip(uploads, run.changes, strict=True):
        lost = bound - bindings.keys()
        if holes and holes[-1].ended == float("inf"):
            holes[-1].ended = float("inf") if lost else changed
            holes[-1].lost |= lost
        elif lost:
            writer = names.get(upload.client, "@launcher")
            holes.append(Hole(changed, float("inf"), writer, upload.client not in seen, lost))
        seen.add(upload.client)
        bound |= bindings.keys()
    return holes


def check_bound(run: StoredRun, rows: Sequence[Row], looks: Sequence[Look], *, forgets: bool) -> None:
    """From `LIMIT` after its first row each poll finds a key bound, but for holes at joins if the server forgets."""
    keys = keys_of(rows)
    holes = holes_of(run, rows)
    assert [hole for hole in holes if not forgets or hole.length > LIMIT] == []
    at_joins = [hole for hole in holes if hole.joined]
    for look in looks:
        due = [key for key in keys if look.began >= key.logged + LIMIT]
        if not any(hole.covers(look) for hole in at_joins):
            assert look.missing(due) == []
    assert looks[-1].missing(keys) == []


def check_rows(run: StoredRun, rows: Sequence[Row]) -> None:
    """The server holds each row once, in its order, with all its values, and with the time at which it was logged."""
    for writer in {row.writer for row in rows}:
        logged = [_as_line(row) for row in rows if row.writer == writer]
        stored = run.rows(f"{writer}/step")
        assert [line[f"{writer}/step"] for line in stored] == [line[f"{writer}/step"] for line in logged]
        assert [_as_logged(line) for line in stored] == logged


def check_summary(run: StoredRun, rows: Sequence[Row]) -> None:
    """The summary holds the last value of every key of every role."""
    last: dict[str, Any] = {}
    for row in rows:
        last |= _as_line(row)
    del last["_timestamp"]  # the SDK's own, and so that of whoever came last
    assert {key: run.summary.get(key) for key in last} == last


def _as_line(row: Row) -> dict[str, Any]:
    metrics = {f"{row.writer}/{name}": value for name, value in row.metrics.items()}
    return {**metrics, f"{row.writer}/step": row.step, "_timestamp": row.time}


def _as_logged(line: Mapping[str, Any]) -> dict[str, Any]:
    hidden = ("_runtime", "_step", "_rolecall/")
    return {key: value for key, value in line.items() if not key.startswith(hidden)}


def report(run: StoredRun, rows: Sequence[Row], looks: Sequence[Look]) -> None:
    """Print how long keys waited, and the holes."""
    print(f"\nwandb {version('wandb')}: {len(keys_of(rows))} keys, {len(rows)} rows, {len(looks)} polls")
    for name, waits in _waits(run, rows):
        middle = statistics.median(waits)
        print(f"{name}: median {middle:.1f} s, longest {max(waits):.1f} s (limit {LIMIT:.0f} s)")
    start = rows[0].time if rows else 0.0
    print("  at s  writer           by        keys lost  seconds")
    for hole in holes_of(run, rows):
        how = "joining" if hole.joined else "uploading"
        print(f"{hole.began - start:6.1f}  {hole.writer:<15}  {how:<9} {len(hole.lost):9d}  {hole.length:7.1f}")


def _waits(run: StoredRun, rows: Sequence[Row]) -> Iterator[tuple[str, list[float]]]:
    """For each key the seconds until it was bound, and until it was and stayed so but for holes at joins."""
    keys = keys_of(rows)
    yield "first row to bound", [_bound(run, key) - key.logged for key in keys]
    joins = [hole for hole in holes_of(run, rows) if hole.joined]
    yield "first row to staying bound", [_bound(run, key, joins) - key.logged for key in keys]


def _bound(run: StoredRun, key: Key, joins: Sequence[Hole] | None = None) -> float:
    """When the key was bound; for good, if the holes are given that do not count."""
    since = float("inf")
    for changed, bindings in run.changes:
        is_bound = bindings.get(key.name) == key.axis
        if is_bound and since == float("inf"):
            since = changed
        elif not is_bound and joins is not None and not any(entry.began <= changed < entry.ended for entry in joins):
            since = float("inf")
    return since
