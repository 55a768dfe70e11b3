"""Roles of a job over Ray, and a cluster of two nodes on this machine."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rolecall import Monitor, MonitorConfig, open_monitor

_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def on(node: str, **options: Any) -> dict[str, Any]:
    """Options of a task or an actor that runs on a node."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), **options}


class Role:
    """A role as an actor."""

    def __init__(self, config: MonitorConfig, role: str, rank: int | None = None) -> None:
        self._opened: list[str] = []
        _watch(config.monitor_dir, self._opened)
        self._monitor = open_monitor(config, role, rank)

    def log(self, rows: int, pause: float = 0.0) -> int:
        """Log some rows; how many there are."""
        for _ in range(rows):
            self._monitor.log({"reward/mean": 0.5, "loss": 0.25})
            if pause:
                time.sleep(pause)
        return rows

    def log_file(self, path: str) -> None:
        """Log a file."""
        from rolecall import File

        self._monitor.log({"weights": File(path)})

    def where(self) -> tuple[int, str]:
        """Its process, and its node."""
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def opened(self) -> list[str]:
        """What this process opened below the launcher's directory."""
        return self._opened

    def close(self) -> None:
        """End the session."""
        self._monitor.close()

    def exhaust(self) -> None:
        """Die as a process does that the kernel's OOM killer chose: it logs, and gets a SIGKILL in between."""
        self._monitor.log({"reward/mean": 1.0})
        os.kill(os.getpid(), 9)


class AsyncRole:
    """A role as an async actor."""

    async def run(self, config: MonitorConfig, rows: int) -> int:
        with open_monitor(config, "async") as monitor:
            for _ in range(rows):
                monitor.log({"x": 1.0})
        return rows


class ThreadedRole:
    """A role as an actor that serves several calls at once, in threads that share its monitor."""

    def __init__(self, config: MonitorConfig) -> None:
        self._monitor = open_monitor(config, "threaded")

    def log(self, rows: int) -> None:
        for _ in range(rows):
            self._monitor.log({"x": 1.0})

    def close(self) -> None:
        self._monitor.close()


def run_role(config: MonitorConfig, role: str, rank: int, rows: int) -> int:
    """A role as a task."""
    with open_monitor(config, role, rank) as monitor:
        _log(monitor, rows)
    return rows


def _log(monitor: Monitor, rows: int) -> None:
    for _ in range(rows):
        monitor.log({"x": 1.0})


def _watch(folder: Path, found: list[str]) -> None:
    """Note every file and directory that this process opens, lists, makes or changes below a folder."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" or event.startswith(("os.", "shutil.")):
            found.extend(
                f"{event} {path}" for path in args if isinstance(path, (str, Path)) and str(folder) in str(path)
            )

    sys.addaudithook(hook)


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A cluster of two nodes, of which this process is on the first."""
    os.environ.setdefault("RAY_health_check_timeout_ms", "60000")  # a busy machine answers late
    cluster = Cluster()
    try:
        for _ in range(2):
            add_node(cluster)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Cluster) -> Any:
    """One more node."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    del first
    return cluster.add_node(num_cpus=16, object_store_memory=80 << 20, include_dashboard=False, **_ports())


def _ports() -> dict[str, int]:
    """Free ones. Where it is not told them, Ray waits 15 s for its agents to choose, and then gives up the node."""
    sockets = [socket.socket() for _ in _PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = {name: each.getsockname()[1] for name, each in zip(_PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found
