"""A proxy on loopback, between a backend's client and its server, that misbehaves on request."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from local_servers import VanishingServer

__all__ = ["FAULTS", "Fault", "Gate"]

Fault = Literal["refused", "hanging", "slow", "500", "403", "lost answers"]
FAULTS: Final[tuple[Fault, ...]] = ("refused", "hanging", "slow", "500", "403", "lost answers")
SLOW: Final = 1.0
_HOP = frozenset(["connection", "transfer-encoding", "content-length", "keep-alive", "host"])


class Gate:
    """Passes requests on to a server, or does what a fault does; a context manager."""

    def __init__(self, server: str) -> None:
        self.fault: Fault | None = None
        self.server = server
        self._listener: _Listener | None = _Listener(self, 0)
        self.port: int = self._listener.server_address[1]

    @property
    def url(self) -> str:
        """Its address, for the client."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Misbehave for as long as the block lasts."""
        self.fault = fault
        if fault == "refused":
            self._stop()
        yield
        self.fault = None
        if self._listener is None:
            self._listener = _Listener(self, self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fault = None
        self._stop()

    def _stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown()
            listener.server_close()
            listener.drop_connections()


class _Listener(VanishingServer):
    def __init__(self, gate: Gate, port: int) -> None:
        self.gate = gate
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener  # type: ignore[mutable-override]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gate = self.server.gate
        match gate.fault:
            case "hanging":
                self._hang()
            case "500" | "403" as status:
                self._answer(int(status), b'{"error_code": "PERMISSION_DENIED", "message": "no"}', [])
            case "lost answers":
                self._forward(body)
                self.close_connection = True
            case fault:
                if fault == "slow":
                    time.sleep(SLOW)
                self._answer(*self._forward(body))

    def _hang(self) -> None:
        while self.server.gate.fault == "hanging":
            time.sleep(0.05)
        self.close_connection = True

    def _forward(self, body: bytes) -> tuple[int, bytes, list[tuple[str, str]]]:
        server = http.client.HTTPConnection(urlsplit(self.server.gate.server).netloc, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            return answer.status, answer.read(), answer.getheaders()
        finally:
            server.close()

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # as the base class looks them up
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass  # noqa: N815
