"""The HTTP side: takes requests, lets faults happen, and hands the rest to what is stored."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from local_servers import VanishingServer

from wandb_emulator.faults import Fault, Faults, Operation
from wandb_emulator.graphql import answer, is_upsert
from wandb_emulator.stored import ARTIFACTS, Policy, State, StoredRun

__all__ = ["KEY", "WandbServer", "environment"]

KEY = "local0000000000000000000000000000000000a"
"""A key of 40 characters, which is what 0.19.10 wants."""


class _Listener(VanishingServer):
    def __init__(self, port: int, state: State, faults: Faults, lock: threading.Lock) -> None:
        self.state, self.faults, self.lock = state, faults, lock
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener  # type: ignore[mutable-override]  # it is what makes the handlers

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Stay quiet."""

    def do_GET(self) -> None:
        if self.path == "/_state":
            with self.server.lock:
                self._send(200, _summary(self.server.state))
        elif self.path.startswith("/_runs/"):
            with self.server.lock:
                self._send(200, _whole(self.server.state.run(self.path.removeprefix("/_runs/"))))
        elif self.path.startswith("/upload/"):
            self._download()
        else:
            self._send(404, {})

    def _download(self) -> None:
        _, _, run, name = unquote(self.path).split("/", 3)
        with self.server.lock:
            body = self.server.state.run(run).files.get(name)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def do_PUT(self) -> None:
        body = self._body()
        _, _, run, name = unquote(self.path).split("/", 3)
        if not self._refuses(self.server.faults.take("upload", None, name)):
            with self.server.lock:
                self.server.state.run(run).files[name] = body
            self._send(200, {})

    def do_POST(self) -> None:
        body = self._body()
        if not self._knows_key():
            self._send(401, {"errors": [{"message": "user is not logged in"}]})
        elif self.path == "/graphql":
            self._graphql(json.loads(body))
        elif self.path.endswith("/file_stream"):
            self._stream(json.loads(body or b"{}"))
        elif self.path == "/_faults":
            self._add_faults(json.loads(body))
        else:
            self._send(200, {})

    def _graphql(self, asked: Mapping[str, Any]) -> None:
        query, variables = str(asked["query"]), asked.get("variables") or {}
        client = self.headers.get("X-Wandb-Client-Id")
        operation: Operation = "upsert" if is_upsert(query) else "query"
        fault = self.server.faults.take(operation, client)
        if self._refuses(fault):
            return
        with self.server.lock:
            state = State() if fault is not None and fault.drops else self.server.state
            data = answer(state, query, variables, client, f"http://{self.headers['Host']}")
        self._send_or_lose(fault, {"data": data})

    def _stream(self, body: Mapping[str, Any]) -> None:
        client = self.headers.get("X-Wandb-Async-Client-Id")
        fault = self.server.faults.take("stream", client)
        if self._refuses(fault):
            return
        _, _, entity, project, run, _ = map(unquote, self.path.split("/"))
        if fault is None or not fault.drops:
            with self.server.lock:
                self.server.state.run(run, project, entity).stream(client, body)
        self._send_or_lose(fault, {"exitcode": None, "limits": {}})

    def _add_faults(self, request: Mapping[str, Any]) -> None:
        if request.get("clear"):
            self.server.faults.clear()
        else:
            self.server.faults.add(Fault(**request))
        self._send(200, {})

    def _refuses(self, fault: Fault | None) -> bool:
        if fault is None:
            return False
        time.sleep(fault.delay)
        if fault.body is not None:
            kind = "text/html" if fault.body.startswith("<") else "application/json"
            self._send_text(fault.answer or 200, fault.body, kind)
        elif fault.answer is not None:
            self._send(fault.answer, {"errors": [{"message": "as the test wants it"}]})
        return fault.answer is not None or fault.body is not None

    def _send_or_lose(self, fault: Fault | None, value: Mapping[str, Any]) -> None:
        if fault is not None and fault.loses:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._send(200, value)

    def _send(self, status: int, value: Mapping[str, Any]) -> None:
        self._send_text(status, json.dumps(value), "application/json")

    def _send_text(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _knows_key(self) -> bool:
        keys = self.server.state.keys
        credentials = self.headers.get("Authorization", "").removeprefix("Basic ")
        return keys is None or base64.b64decode(credentials).decode().partition(":")[2] in keys


class WandbServer:
    """The server, in threads of this process; a context manager."""

    def __init__(self, policy: Policy = Policy.REPLACE, port: int = 0) -> None:
        self.faults = Faults()
        self.state = State(policy=policy)
        self._lock = threading.Lock()
        self._start(port)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def runs(self) -> Mapping[str, StoredRun]:
        """The runs by their ids."""
        return {name: run for name, run in self.state.runs.items() if name != ARTIFACTS}

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """The files of all artifacts, by their names."""
        return self.state.run(ARTIFACTS).files

    def run(self, name: str) -> StoredRun:
        """One run."""
        return self.state.runs[name]

    def bindings(self, name: str) -> dict[str, str]:
        """What a poll of the run finds bound, now."""
        with self._lock:
            return self.state.runs[name].bindings() if name in self.state.runs else {}

    def stop(self) -> None:
        """Be gone: connections are cut, new ones refused."""
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.drop_connections()

    def restart(self) -> None:
        """Be back at the same address, with all that was there."""
        self._start(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, port: int) -> None:
        self._listener = _Listener(port, self.state, self.faults, self._lock)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()


def environment(server: WandbServer, directory: Path) -> dict[str, str]:
    """What a process' environment needs for the SDK to talk to this server and to nothing else."""
    return {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": KEY,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONFIG_DIR": str(directory / "config"),
        "WANDB_CACHE_DIR": str(directory / "cache"),
        "WANDB_DATA_DIR": str(directory / "data"),
    }


def _summary(state: State) -> dict[str, Any]:
    return {
        name: {
            "state": run.state,
            "bindings": len(run.bindings()),
            "patterns": run.patterns(),
            "lines": len(run.history),
            "upserts": [[entry.time, entry.client, entry.size, len(entry.bindings())] for entry in run.upserts],
            "summary": run.summary,
        }
        for name, run in state.runs.items()
    }


def _whole(run: StoredRun) -> dict[str, Any]:
    """All that a reader in another process may want of a run."""
    return {
        "state": run.state,
        "config": run.config,
        "bindings": run.bindings(),
        "summary": run.summary,
        "named": run.named,
        "history": [{"step": entry.step, "line": entry.line} for entry in run.history],
    }
