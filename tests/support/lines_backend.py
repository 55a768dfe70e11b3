"""A backend for the tests: a directory is the server, a file of JSON lines in it is a run.

It is installed as a distribution is (there is a dist-info beside it), so processes find it by its entry point. A
file in the directory puts a fault into every process that talks to this server: `down` (not reachable), `hang`
(calls never return, or only that which it names: `open`, `log`, `flush`, `close`, `read`, or `end`, a primary's
`close`), `forbidden` (credentials refused), `broken` (an error of the plugin's own), `picky` (rows of the steps that it
lists are rejected), `stubborn` (an error of the plugin's own for each summary). Taking the file away fixes it.

As the history of some trackers, a run that is its writer's own takes no points between those that it holds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr

from rolecall import (
    BackendRefused,
    Point,
    Rejected,
    Row,
    Run,
    RunGone,
    RunTicket,
    SharedRunSupport,
    Status,
    Unavailable,
    hookimpl,
)

ROLECALL_HOOKS = 2


class LinesArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    api_key: SecretStr | None = None
    alone: bool = False


class LinesRun:
    """One line for each row, table, declaration, config and end, with the process that wrote it."""

    def __init__(self, args: LinesArgs, ticket: RunTicket) -> None:
        self._server = args.path
        self._ticket = ticket
        self.id = ticket.backend_run_id or ticket.run_id
        self.url: str | None = f"lines://{self.id}"
        self._write({"open": ticket.writer, "primary": ticket.primary, "name": ticket.name, "group": ticket.group})
        if ticket.config:
            self._write({"run_config": dict(ticket.config), "by": ticket.writer})
        if ticket.tags:
            self._write({"run_tags": ticket.tags, "by": ticket.writer})

    def log(self, rows: Sequence[Row]) -> None:
        _suffer(self._server, "log")
        refused = _picky(self._server)
        for row in rows:
            if row.step not in refused:
                place = {"writer": row.writer, "session": row.session, "seq": row.seq, "commit": row.commit}
                self._write({**place, "step": row.step, "time": row.time, "metrics": dict(row.metrics)})
        if bad := [row for row in rows if row.step in refused]:
            raise Rejected(bad, "the server is picky")

    def log_table(self, row: Row) -> None:
        _suffer(self._server, "log")
        assert row.table is not None
        self._write({"table": row.table.name, "step": row.step, "columns": row.table.columns, "rows": row.table.rows})

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self._write({"config": config, "by": self._ticket.writer})

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        _suffer(self._server, "tell")
        if (self._server / "stubborn").exists():
            raise RuntimeError("no summary today")
        self._write({"summary": summary, "by": self._ticket.writer})

    def set_tags(self, tags: Sequence[str]) -> None:
        _suffer(self._server, "tell")
        self._write({"tags": tags, "by": self._ticket.writer})

    def flush(self, timeout: float) -> None:
        _suffer(self._server, "flush")

    def end_at(self, time: float) -> None:
        self._write({"ended": time, "by": self._ticket.writer})

    def close(self, status: Status) -> None:
        for call in ("close", "end") if self._ticket.primary else ("close",):
            _suffer(self._server, call)
        self._write({"closed": status, "by": self._ticket.writer, "primary": self._ticket.primary})

    def declare(self, axes: Mapping[str, str]) -> None:
        self._write({"axes": dict(axes), "by": self._ticket.writer})

    def _write(self, line: Mapping[str, Any]) -> None:
        descriptor = os.open(self._server / f"{self.id}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, json.dumps({**line, "pid": os.getpid()}).encode() + b"\n")
        finally:
            os.close(descriptor)


class LinesReadback:
    """The points of a run's file, which is read once for all metrics, or once for each of them."""

    def __init__(self, args: LinesArgs, ticket: RunTicket) -> None:
        _suffer(args.path, "open")
        self._server = args.path
        self._file = args.path / f"{ticket.backend_run_id}.jsonl"
        if not self._file.exists():
            raise RunGone(f"{self._file} is not there")

    def keys(self) -> Iterator[str]:
        yield from dict.fromkeys(key for key, _ in self.scan())

    def points(self, key: str) -> Iterator[Point]:
        yield from (point for name, point in self.scan() if name == key)

    def scan(self) -> Iterator[tuple[str, Point]]:
        _suffer(self._server, "read")
        with self._file.open() as lines:
            for line in map(json.loads, lines):
                for key, value in line.get("metrics", {}).items():
                    yield key, Point(line["step"], value, line["time"])

    def expected(self, row: Row) -> Row:
        return row

    def close(self) -> None:
        """Nothing is open."""


def _suffer(server: Path, call: str) -> None:
    while _hangs(server, call):
        (server / "hung").touch()  # for tests that wait for it
        time.sleep(0.05)
    if (server / "down").exists():
        raise Unavailable("the server is down")
    if (server / "broken").exists():
        raise RuntimeError("the plugin is broken")


def _hangs(server: Path, call: str) -> bool:
    file = server / "hang"
    return file.exists() and file.read_text() in ("", call)


def _picky(server: Path) -> list[int]:
    file = server / "picky"
    return list(json.loads(file.read_text())) if file.exists() else []


@hookimpl
def backend_args() -> type[BaseModel]:
    return LinesArgs


@hookimpl
def supports_shared_run(args: LinesArgs) -> SharedRunSupport:
    if args.alone:
        return SharedRunSupport(supported=False, reason="alone is set; leave it out to share a run")
    return SharedRunSupport(supported=True)


@hookimpl
def prepare(ticket: RunTicket, args: LinesArgs) -> None:
    _suffer(args.path, "open")
    if (args.path / "forbidden").exists():
        raise BackendRefused(f"the server refuses the api_key {args.api_key}")
    (args.path / "prepared").touch()


@hookimpl
def open_run(ticket: RunTicket, args: LinesArgs) -> Run:
    prepare(ticket, args)
    if ticket.repair and not ticket.shared:
        raise BackendRefused("a run of lines takes rows in order only")
    return LinesRun(args, ticket)


@hookimpl
def open_readback(ticket: RunTicket, args: LinesArgs) -> LinesReadback:
    if (args.path / "forbidden").exists():
        raise BackendRefused(f"the server refuses the api_key {args.api_key}")
    return LinesReadback(args, ticket)


@hookimpl
def declare_axes(run: LinesRun, axes: Mapping[str, str]) -> None:
    run.declare(axes)
