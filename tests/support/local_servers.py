"""Starts web servers on this machine, and waits until they answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

START_TIMEOUT = 300.0
"""A busy machine imports MLflow for minutes."""


class VanishingServer(ThreadingHTTPServer):
    """Knows its connections, so that it can be gone all at once."""

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def drop_connections(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*command: str, folder: Path, port: int | None = None) -> Iterator[str]:
    """Run `python -m COMMAND --port PORT`; the URL once it answers. `folder` gets its log."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    command = (sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port))
    with log.open("ab") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(url):
            text = log.read_text(errors="replace")[-3000:]
            assert server.poll() is None, f"{command} ended:\n{text}"
            assert time.monotonic() < deadline, f"{command} does not answer:\n{text}"
            time.sleep(0.1)
        yield url
    finally:
        # SIGKILL, as it would wait for clients that were cut off; the group, as MLflow starts workers
        with suppress(ProcessLookupError):  # it may have ended by itself, and the reason is raised
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


@contextmanager
def serving_mlflow(folder: Path, port: int | None = None, database: str | None = None) -> Iterator[str]:
    """A real `mlflow server` on a database, by default the file `server.db`, whose tables it makes; its URL."""
    database = database or f"sqlite:///{folder}/server.db"
    store = ("--backend-store-uri", database, "--artifacts-destination", f"{folder}/artifacts")
    with serving("mlflow", "server", "--workers", "1", *store, folder=folder, port=port) as url:
        yield url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
