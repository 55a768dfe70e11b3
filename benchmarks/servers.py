"""Servers on this machine for backends and peers: a real `mlflow server`, and the emulator of wandb's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["mlflow_server", "wandb_server"]

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
# What tests and benchmarks share. pytest finds it by its setting `pythonpath`, which these scripts do not have.
sys.path.append(str(SUPPORT))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Its address; it keeps what it is given in a file of sqlite."""
    from local_servers import serving_mlflow

    folder.mkdir(parents=True, exist_ok=True)
    with serving_mlflow(folder) as url:
        yield url


@contextmanager
def wandb_server() -> Iterator[Mapping[str, str]]:
    """The environment in which wandb's SDK finds it; it runs in a process of its own."""
    command = [sys.executable, "-m", "wandb_emulator"]
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as server:
        if server.stdout is None or server.stdin is None:
            raise AssertionError("started with pipes")
        url = server.stdout.readline().strip()
        yield {"WANDB_BASE_URL": url, "WANDB_API_KEY": "local" + "0" * 34 + "a", "WANDB_ERROR_REPORTING": "false"}
        server.stdin.close()
