"""The server of the backend `service`: runs in memory, points that count once, and a key that clients must know."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

API_KEY = "key-of-the-service"


class Server:
    """A server on loopback, for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self._lock = Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.answer))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any] | None) -> Any:
        """What a request gets; `None` if there is no such run."""
        _, _, name, *what = path.split("/")
        with self._lock:
            if not name:
                return {"id": self._make(body or {})}
            run = self.runs.get(name)
            if run is None or body is None:
                return run
            return self._change(run, what[0], body)

    def _make(self, body: dict[str, Any]) -> str:
        name = f"run-{len(self.runs) + 1}"
        self.runs[name] = {"rows": {}, "config": {}, "summary": {}, "axes": {}, "status": "running", **body}
        return name

    def _change(self, run: dict[str, Any], what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "rows":
            # a row that comes again counts once
            run["rows"].update((json.dumps(row["id"]), row) for row in body["rows"])
        elif what == "status":
            run.update(body)
        else:
            run[what].update(body)
        return {}


def _handler(answer: Callable[[str, dict[str, Any] | None], Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any] | None) -> None:
            known = self.headers["Authorization"] == f"Bearer {API_KEY}"
            said = answer(self.path, body) if known else None
            data = json.dumps(said).encode()
            self.send_response(401 if not known else 404 if said is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
