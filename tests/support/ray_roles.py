"""Roles of a job over Ray, and a cluster of two nodes on this machine."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rolecall import Job, Monitor, MonitorConfig, open_monitor
from rolecall.delivery.relay.ray import NAMESPACE
from rolecall.rows import Row
from rolecall.store.codec import put_whole
from rolecall.store.layout import Layout
from rolecall.store.reader import read_rows

_TRIES = 4
_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def on(node: str, **options: Any) -> dict[str, Any]:
    """Options of a task or an actor that runs on a node."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), **options}


def start(job: Job, node: str, role: str, rank: int | None = None, **options: Any) -> Any:
    """An actor that opens a role of a job on a node."""
    made = ray.remote(Role).options(**on(node, num_cpus=0.1, **options))
    return made.remote(job.config, role, rank)


def rows_of(config: MonitorConfig, writer: str) -> list[Row]:
    """The rows of a role that are on the launcher's node."""
    return [row for row in read_rows(Layout(config.monitor_dir), writer) if isinstance(row, Row)]


def actors() -> list[str]:
    """The names of the actors that carry rows."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in found if actor["namespace"] == NAMESPACE]


def find(name: str) -> Any:
    """One of these actors."""
    return ray.get_actor(name, namespace=NAMESPACE)


def process_of(actor: Any) -> int:
    """The number of an actor's process, also while Ray starts it again."""
    deadline = time.monotonic() + 600
    while True:
        try:
            return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))
        except ray.exceptions.ActorUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


class Role:
    """A role as an actor."""

    def __init__(self, config: MonitorConfig | None = None, role: str = "", rank: int | None = None) -> None:
        self._opened: list[str] = []
        if config is not None:
            self.open(config, role, rank)

    def open(self, config: MonitorConfig, role: str, rank: int | None) -> None:
        """Begin a session."""
        _watch(config.monitor_dir, self._opened)
        self._monitor = open_monitor(config, role, rank)

    def log(self, rows: int, pause: float = 0.0) -> int:
        """Log some rows, with a pause after every 100; how many there are."""
        for row in range(rows):
            self._monitor.log({"reward/mean": 0.5, "loss": 0.25})
            if pause and row % 100 == 0:
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
    cluster = _tried(_cluster)
    try:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Cluster) -> Any:
    """One more node."""
    return _tried(lambda: _add_node(cluster))


def _cluster() -> Cluster:
    cluster = Cluster()
    try:
        for _ in range(2):
            _add_node(cluster)
    except BaseException:
        cluster.shutdown()
        raise
    return cluster


def _add_node(cluster: Cluster) -> Any:
    node, ports, is_up = uuid.uuid4().hex + uuid.uuid4().hex[:24], _ports(), threading.Event()
    announcer = threading.Thread(target=_announce, args=(node, ports, is_up), daemon=True)
    announcer.start()
    os.environ["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = node
    try:
        return cluster.add_node(num_cpus=16, object_store_memory=80 << 20, include_dashboard=False, **ports)
    finally:
        del os.environ["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
        is_up.set()
        announcer.join()


def _announce(node: str, ports: Mapping[str, int], is_up: threading.Event) -> None:
    """Say where the agents of a node will listen.

    A node gives up if its agents have not said so within 15 s (Ray 2.60), which is how long they take to start on a
    busy machine. They get their ports from here, so what they will say is known.
    """
    while not is_up.wait(0.1):
        for session in Path("/tmp/ray").glob(f"session_*_{os.getpid()}"):
            for name, port in ports.items():
                path = session / f"{name}_{node}"
                if not path.exists():
                    with suppress(OSError):
                        put_whole(path, str(port).encode())


def _tried(make: Callable[[], Any]) -> Any:
    """What is made, at one of several tries: Ray gives a node 30 s to start."""
    for _ in range(_TRIES):
        try:
            return make()
        except Exception as error:  # noqa: BLE001 - Ray raises no other
            print("no node:", error, flush=True)
    return make()


def _ports() -> dict[str, int]:
    """Free ones. Where it is not told them, Ray waits 15 s for its agents to choose, and then gives up the node."""
    sockets = [socket.socket() for _ in _PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = {name: each.getsockname()[1] for name, each in zip(_PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found
