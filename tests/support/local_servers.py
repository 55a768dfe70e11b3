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
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 300.0
"""A busy machine imports MLflow for minutes."""


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
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


@contextmanager
def serving_mlflow(folder: Path, port: int | None = None) -> Iterator[str]:
    """A real `mlflow server` on the file `server.db`, which it makes if it is missing; its URL."""
    store = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts")
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
