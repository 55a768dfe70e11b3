"""`service`: a tracker with a server, which may be away, and which chooses the ids of runs itself.

Each request is answered when the server holds what it was sent, and a row that comes again counts once. So `flush` has
nothing to wait for, and a request that failed is sent again as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, SecretStr

from rolecall import (
    BackendRefused,
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

TIMEOUT = 10.0
"""The seconds after which a server that does not answer is away."""


class ServiceArgs(BaseModel):
    """Where the server is, and the key to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "http://127.0.0.1:8123"
    api_key: SecretStr = SecretStr("")


def ask(args: ServiceArgs, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The server's answer to a GET, or with a body to a POST."""
    headers = {"Authorization": f"Bearer {args.api_key.get_secret_value()}"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(f"{args.url}/runs/{path}", data, headers), timeout=TIMEOUT) as answer:
            return json.loads(answer.read())
    except HTTPError as error:
        if error.code == 404:
            raise RunGone(f"{args.url} has no run {path.partition('/')[0]}") from error
        if error.code in (401, 403):
            raise BackendRefused(f"{args.url} refuses the api_key; set monitor_args.api_key to a valid one") from error
        raise Unavailable(f"{args.url} answers {error.code}") from error
    except (OSError, HTTPException) as error:
        raise Unavailable(f"{args.url} does not answer: {error}") from error


class ServiceRun:
    """A run of the server."""

    def __init__(self, ticket: RunTicket, args: ServiceArgs) -> None:
        self._args = args
        self._primary = ticket.primary
        self._writer = ticket.writer or ""
        if ticket.backend_run_id is not None:
            self.id = ticket.backend_run_id
            ask(args, self.id)  # raises if it is gone
            if ticket.primary:
                self.send("status", {"status": "running"})
        elif ticket.primary:
            self.id = ask(args, "", {"name": ticket.name, "config": ticket.config, "tags": ticket.tags})["id"]
        else:
            raise Unavailable("the primary has not opened the run yet")
        self.url: str | None = f"{args.url}/runs/{self.id}"

    def log(self, rows: Sequence[Row]) -> None:
        held = [
            {"id": [row.writer, row.session, row.seq], "step": row.step, "time": row.time, "metrics": dict(row.metrics)}
            for row in rows
        ]
        self.send("rows", {"rows": held})

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self.send("config", config)

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        self.send("summary", {self._writer: dict(summary)})  # all of this writer's, so that a removed key goes

    def declare(self, axes: Mapping[str, str]) -> None:
        self.send("axes", axes)

    def flush(self, timeout: float) -> None:
        """Nothing to wait for: each request was answered."""

    def close(self, status: Status) -> None:
        if self._primary:
            self.send("status", {"status": status})

    def send(self, what: str, body: Mapping[str, Any]) -> None:
        ask(self._args, f"{self.id}/{what}", body)


class ServiceReadback:
    """The points of a run of the server."""

    def __init__(self, args: ServiceArgs, name: str) -> None:
        self._rows = list(ask(args, name)["rows"].values())

    def keys(self) -> Iterator[str]:
        yield from dict.fromkeys(key for row in self._rows for key in row["metrics"])

    def points(self, key: str) -> Iterator[Point]:
        for row in self._rows:
            if key in row["metrics"]:
                yield Point(row["step"], row["metrics"][key], row["time"])

    def expected(self, row: Row) -> Row:
        return row

    def close(self) -> None:
        """Nothing is open."""


class ServiceBackend:
    """The hooks."""

    ROLECALL_HOOKS = 2
    run: type[ServiceRun] = ServiceRun

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return ServiceArgs

    @hookimpl
    def supports_shared_run(self, args: ServiceArgs) -> SharedRunSupport:
        return SharedRunSupport(supported=True)

    @hookimpl
    def prepare(self, ticket: RunTicket, args: ServiceArgs) -> None:
        try:
            ask(args, "any")
        except RunGone:
            """It answered, and the key is valid."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        return self.run(ticket, args)

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: ServiceArgs) -> SupportsReadback:
        return ServiceReadback(args, ticket.backend_run_id or "")

    @hookimpl
    def declare_axes(self, run: ServiceRun, axes: Mapping[str, str]) -> None:
        run.declare(axes)


backend = ServiceBackend()
