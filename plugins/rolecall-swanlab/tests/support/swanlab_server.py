"""An emulator of SwanLab's server: what the SDK sends to it, read in 0.10.0 and 0.10.3, and seen on the wire.

What a real server does beyond that is not known: whether it replaces a point that comes again, for example. This one
keeps both, so that a test sees it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "a-key-that-is-accepted"


@dataclass
class Experiment:
    """One run."""

    body: dict[str, Any]
    state: str = "RUNNING"
    scalars: list[dict[str, Any]] = field(default_factory=list)
    media: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def points(self, key: str) -> list[tuple[int, Any]]:
        """In the order in which they came."""
        return [(each["index"], each["data"]) for each in self.scalars if each["key"] == key]


@dataclass
class SwanlabServer:
    """What it holds, and how it misbehaves.

    Attributes:
        experiments: by their ids.
        series: the definitions of columns, by key.
        files: what was uploaded, by path.
        refuse: the status with which uploads of rows are answered; 0 for those that succeed.
        logins: how often anyone logged in.
    """

    url: str = ""
    experiments: dict[str, Experiment] = field(default_factory=dict)
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    refuse: int = 0
    logins: int = 0
    projects: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, body: Any, key: str | None) -> tuple[int, Any]:
        """The status and the content of an answer."""
        for pattern, action in ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                status, content = action(self, body, key, *found.groups())
                return int(status), content
        return 404, {"code": "404", "message": f"{method} {path}"}


def _login(server: SwanlabServer, _: Any, key: str | None) -> tuple[int, Any]:
    if key != API_KEY:
        return 401, {}
    server.logins += 1
    return 200, {"sid": "s", "expiredAt": "2999-01-01T00:00:00.000Z", "userInfo": {"username": "ada"}}


def _project(server: SwanlabServer, _: Any, __: Any, user: str, name: str) -> tuple[int, Any]:
    if name not in server.projects:
        return 404, {}
    count = {"experiments": len(server.experiments)}
    path = f"/{user}/{name}"
    return 200, {"name": name, "cuid": "p1", "group": {"username": user}, "_count": count, "path": path, "version": 1}


def _new_project(server: SwanlabServer, body: Any, *_: Any) -> tuple[int, Any]:
    server.projects.add(body["name"])
    return 201, {}


def _open(server: SwanlabServer, body: Any, *_: Any) -> tuple[int, Any]:
    cuid = body["cuid"]
    known = server.experiments.get(cuid)
    if known is None:
        server.experiments[cuid] = Experiment(body)
    else:
        known.state = "RUNNING"
    answer = {"cuid": cuid, "slug": cuid, "name": body["name"], "createdAt": "2026-01-01T00:00:00.000Z"}
    return (201 if known is None else 200), answer


def _summary(server: SwanlabServer, _: Any, __: Any, cuid: str) -> tuple[int, Any]:
    def last(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        steps = dict[str, int]()
        for row in rows:
            steps[row["key"]] = max(steps.get(row["key"], -1), row["index"])
        return [{"key": key, "step": step} for key, step in steps.items()]

    experiment = server.experiments[cuid]
    return 200, {"scalar": last(experiment.scalars), "media": last(experiment.media), "log": []}


def _metrics(server: SwanlabServer, body: Any, *_: Any) -> tuple[int, Any]:
    if server.refuse:
        return server.refuse, {"code": "no", "message": "no rows today"}
    experiment = server.experiments[body["experimentId"]]
    {"scalar": experiment.scalars, "media": experiment.media, "log": []}[body["type"]].extend(body["metrics"])
    return 200, {}


def _series(server: SwanlabServer, body: Any, *_: Any) -> tuple[int, Any]:
    for each in body["series"]:
        server.series.setdefault(each["key"], each)
    return 200, {}


def _profile(server: SwanlabServer, body: Any, _: Any, cuid: str) -> tuple[int, Any]:
    server.experiments[cuid].config = body.get("config", {})
    return 200, {}


def _state(server: SwanlabServer, body: Any, _: Any, cuid: str) -> tuple[int, Any]:
    server.experiments[cuid].state = body["state"]
    return 200, {}


def _run(server: SwanlabServer, _: Any, __: Any, cuid: str) -> tuple[int, Any]:
    return (200, {"cuid": cuid}) if cuid in server.experiments else (404, {})


def _urls(server: SwanlabServer, body: Any, *_: Any) -> tuple[int, Any]:
    return 200, {"urls": [f"{server.url}/files/{path}" for path in body["paths"]]}


def _ok(*_: Any) -> tuple[int, Any]:
    return 200, {}


ROUTES: dict[str, Any] = {
    "POST /api/login/api_key": _login,
    "GET /api/project/([^/]+)/([^/]+)": _project,
    "POST /api/projects/[^/]+": _new_project,
    "POST /api/project/[^/]+/[^/]+/experiment": _open,
    "GET /api/project/[^/]+/[^/]+/runs/([^/]+)": _run,
    "GET /api/house/metrics/summaries/[^/]+/([^/]+)": _summary,
    "POST /api/house/metrics": _metrics,
    "POST /api/house/experiments/[^/]+/heartbeat": _ok,
    "POST /api/projects/[^/]+/[^/]+/series": _series,
    "PUT /api/project/[^/]+/[^/]+/runs/([^/]+)/profile": _profile,
    "PUT /api/project/[^/]+/[^/]+/runs/([^/]+)/state": _state,
    "POST /api/resources/presigned/put": _urls,
}


@contextmanager
def swanlab_server() -> Iterator[SwanlabServer]:
    """A server on a free port of this machine."""
    held, lock = SwanlabServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content: Any = {}
            data, path = self.rfile.read(int(self.headers.get("content-length") or 0)), self.path.partition("?")[0]
            with lock:
                if path.startswith("/files/"):
                    held.files[path.removeprefix("/files/")] = data
                    status = 200
                else:
                    body = json.loads(data) if data.startswith((b"{", b"[")) else None
                    status, content = held.answer(self.command, path, body, self.headers.get("authorization"))
            text = json.dumps(content).encode()
            self.send_response(status, "Not Found" if status == 404 else None)
            self.send_header("content-length", str(len(text)))
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of the standard library

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
