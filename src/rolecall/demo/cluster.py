"""The same job on a Ray cluster: roles are tasks on all nodes, and what they send each other goes through an actor."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, cycle
from types import TracebackType
from typing import Any, Final, Self

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rolecall import ConfigError
from rolecall.demo.processes import RoleFailed

__all__ = ["RayTeam", "connected"]

TRIES: Final = 3
"""How often to start it. Ray gives a node 30 s (2.60), which is too short for a busy machine."""
NODES: Final = 2
"""Of the cluster that the demo starts if it is given none."""


@contextmanager
def connected() -> Iterator[int]:
    """Connect this process to the cluster of `RAY_ADDRESS`, or to one that is started here and stopped afterwards.

    Yields:
        The number of its nodes.
    """
    started = None if os.environ.get("RAY_ADDRESS") else _started()
    try:
        ray.init(address=started.address if started else None, log_to_driver=False, configure_logging=False)
        yield len(_nodes())
    finally:
        ray.shutdown()
        if started is not None:
            started.shutdown()


def _started() -> Cluster:
    reason: Exception | None = None
    for _ in range(TRIES):
        cluster = Cluster()
        try:
            for _ in range(NODES):
                cluster.add_node(num_cpus=2, include_dashboard=False)
        except Exception as error:  # noqa: BLE001 - Ray raises no other
            cluster.shutdown()
            reason = error
        else:
            return cluster
    advice = "start one on an idle machine, or yourself (`ray start --head`), and set RAY_ADDRESS"
    raise ConfigError(f"--ray: Ray did not start a cluster on this machine: {reason}; {advice}") from reason


class _Post:
    """An actor that holds what is on its way; an async one, so that many can wait for it at once."""

    def __init__(self) -> None:
        self._boxes: Mapping[int, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def put(self, box: int, item: Any) -> None:
        await self._boxes[box].put(item)

    async def take(self, box: int) -> Any:
        return await self._boxes[box].get()


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a connection, as those of `multiprocessing.Pipe`; it can be passed on to any node."""

    post: Any
    sends_to: int
    receives_from: int

    def send(self, item: object) -> None:
        ray.get(self.post.put.remote(self.sends_to, item))

    def recv(self) -> Any:
        return ray.get(self.post.take.remote(self.receives_from))


class RayTeam:
    """The tasks of a job, with the methods of `Team`; a context manager that leaves no task behind."""

    def __init__(self) -> None:
        # No CPUs of the cluster's: each role waits for others, so all must run at once, however small the cluster is.
        self._post = ray.remote(_Post).options(num_cpus=0).remote()
        self._numbers = count()
        self._inbox = next(self._numbers)
        self._nodes = cycle(_nodes())
        self._roles: dict[Any, str] = {}

    def pipe(self) -> tuple[_End, _End]:
        """Make a connection between two roles, and return both ends."""
        there, back = next(self._numbers), next(self._numbers)
        return _End(self._post, there, back), _End(self._post, back, there)

    def inbox(self) -> _End:
        """Make the end of a connection on which a role reports to the launcher; `watch` yields the reports."""
        return _End(self._post, self._inbox, next(self._numbers))

    def start(self, name: str, role: Callable[..., None], *args: object) -> None:
        """Start a role as a task, on the next node."""
        where = NodeAffinitySchedulingStrategy(next(self._nodes), soft=False)
        task = ray.remote(role).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        self._roles[task.remote(*args)] = name

    def watch(self) -> Iterator[Any]:
        """Yield what the roles report, until all have ended.

        Raises:
            RoleFailed: as soon as one has ended before its work was done.
        """
        at_work = list(self._roles)
        report = self._post.take.remote(self._inbox)
        while True:
            for ready in ray.wait([report, *at_work])[0]:
                if ready != report:
                    at_work.remove(ready)
                    self._check(ready)
                    if not at_work:  # behind all reports, as a role waits until each of its own is there
                        self._post.put.remote(self._inbox, None)
                elif (found := ray.get(report)) is None:
                    return
                else:
                    yield found
                    report = self._post.take.remote(self._inbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._roles:
            with suppress(ray.exceptions.RayError):
                ray.cancel(task, force=True)
        ray.kill(self._post)

    def _check(self, task: Any) -> None:
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            raise RoleFailed(f"{self._roles[task]} failed; the other roles have been stopped: {error}") from error


def _nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
