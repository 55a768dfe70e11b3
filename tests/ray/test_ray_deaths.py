"""Eight roles log 100,000 rows over Ray while something dies: every row that was logged is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
import ray_roles
from ray.cluster_utils import Cluster
from ray_roles import find, process_of, rows_of, start
from stopped import stop

from rolecall import Job, MonitorConfig
from rolecall.store.codec import last_line
from rolecall.store.layout import Layout
from rolecall.store.lease import newest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

Config = Callable[..., MonitorConfig]
Launched = Callable[..., Job]
ROWS = 12_500
PAUSE = 0.05
"""Seconds after every 100 rows, so that logging takes several seconds."""


def kill_forwarder(job: Job, other: str) -> None:
    os.kill(process_of(find(f"{job.run_id}/{other}")), signal.SIGKILL)


def kill_hub(job: Job, other: str) -> None:
    os.kill(process_of(find(f"{job.run_id}/hub")), signal.SIGKILL)


def remove_forwarder(job: Job, other: str) -> None:
    """For good: Ray does not start it again, somebody else must."""
    ray.kill(find(f"{job.run_id}/{other}"))


def remove_hub(job: Job, other: str) -> None:
    ray.kill(find(f"{job.run_id}/hub"))


def kill_all(job: Job, other: str) -> None:
    for name in [name for name in ray_roles.actors() if name.startswith(f"{job.run_id}/")]:
        with suppress(ray.exceptions.RayError, ProcessLookupError):
            os.kill(process_of(find(name)), signal.SIGKILL)


@pytest.fixture(scope="module")
def hosts(cluster: Cluster) -> list[Any]:
    """Eight actors on two nodes, which open roles: their processes take most of the time of a test."""
    here = ray.get_runtime_context().get_node_id()
    nodes = sorted((node["NodeID"] for node in ray.nodes() if node["Alive"]), key=lambda node: node != here)
    made = ray.remote(ray_roles.Role)
    return [made.options(**ray_roles.on(nodes[rank > 1], num_cpus=0.1)).remote() for rank in range(8)]


@pytest.mark.parametrize("kill", [kill_forwarder, kill_hub, remove_forwarder, remove_hub, kill_all])
def test_every_row_arrives(launched: Launched, hosts: list[Any], other: str, kill: Callable[[Job, str], None]) -> None:
    job, roles = launched(), hosts
    ray.get([role.open.remote(job.config, "explorer", rank) for rank, role in enumerate(roles)])
    ray.get([role.log.remote(1) for role in roles])
    logging = [role.log.remote(ROWS - 1, PAUSE) for role in roles]
    for _ in range(3):
        ray.wait(logging, num_returns=len(logging), timeout=1.0)
        with suppress(ValueError):  # it was removed a moment ago, and nobody has missed it yet
            kill(job, other)
    ray.get(logging)
    ray.get([role.close.remote() for role in roles])
    job.close(timeout=120.0)
    for rank in range(8):
        assert [row.step for row in rows_of(job.config, f"explorer/{rank}")] == list(range(1, ROWS + 1))
    assert {str(each.state) for each in job.writers} == {"finished"}


def test_killed_roles_come_back(launched: Launched, other: str) -> None:
    """Ray starts them again, with `max_restarts`: each goes on with its next step, and no row is lost."""
    job = launched()
    roles = [start(job, other, "explorer", rank, max_restarts=1, max_task_retries=0) for rank in range(8)]
    logged = [ray.get([role.log.remote(ROWS // 2) for role in roles])]
    processes = [process_of(role) for role in roles]
    for process in processes:
        os.kill(process, signal.SIGKILL)
    assert [_again(role, ROWS // 2) for role in roles] == logged[0]
    ray.get([role.close.remote() for role in roles])
    job.close(timeout=120.0)
    for rank in range(8):
        found = rows_of(job.config, f"explorer/{rank}")
        assert {row.session for row in found} == {1, 2}
        assert [row.step for row in found] == list(range(1, ROWS + 1))


def test_roles_that_are_gone(launched: Launched, other: str) -> None:
    """Half of them run out of memory, and the others are killed: all rows are there, and nobody is waited for."""
    job = launched()
    roles = [start(job, other, "explorer", rank) for rank in range(8)]
    ray.get([role.log.remote(ROWS) for role in roles])
    for role in roles[:4]:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(role.exhaust.remote())
    for role in roles[4:]:
        ray.kill(role)
    began = time.monotonic()
    job.close(timeout=120.0)
    assert time.monotonic() - began < 100
    found = [len(rows_of(job.config, f"explorer/{rank}")) for rank in range(8)]
    assert found == [ROWS + 1] * 4 + [ROWS] * 4
    assert {str(each.state) for each in job.writers} == {"killed"}


def test_a_lost_node(launched: Launched, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """What had been forwarded is there, and it is said for how many seconds that may not be so."""
    job = launched()
    node = ray_roles.add_node(cluster)
    roles = [start(job, node.node_id, "explorer", rank) for rank in range(8)]
    ray.get([role.log.remote(ROWS) for role in roles])
    forwarder = find(f"{job.run_id}/{node.node_id}")
    ray.get(forwarder.settle.remote())
    # A node is lost at once. Here its processes die one by one, of which the forwarder would tell as long as it can.
    stopped = process_of(forwarder)
    stop(stopped)
    cluster.remove_node(node, allow_graceful=False)
    os.kill(stopped, signal.SIGKILL)
    began = time.monotonic()
    job.close(timeout=120.0)
    assert time.monotonic() - began < 100
    for rank in range(8):
        assert len(rows_of(job.config, f"explorer/{rank}")) == ROWS
        session = newest(Layout(job.config.monitor_dir).journal(f"explorer/{rank}"))
        assert session is not None
        last = last_line(session.path, session.seed) or {}
        assert (last["end"], last["by"]) == ("killed", "hub")
        assert 0 <= last["unseen"] < 120
    assert "its node was lost, and with it rows of up to" in caplog.text


DRIVER = """
import sys, time
import ray, ray_roles
from rolecall import MonitorConfig, launch
address, other, rows, ends = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "ends"
ray.init(address=address, log_to_driver=False, configure_logging=False)
job = launch(MonitorConfig.from_env())
roles = [ray_roles.start(job, other, "explorer", rank) for rank in range(8)]
ray.get([role.log.remote(rows) for role in roles])
print("logged", job.run_id, flush=True)
if not ends:
    time.sleep(600)
ray.get([role.close.remote() for role in roles])
job.close(timeout=120.0)
"""


def test_a_killed_driver_is_followed(config: Config, cluster: Cluster, other: str) -> None:
    """A driver that is started again in the same directory goes on with the job, and has the rows of the first."""
    settings = config()
    with drive(settings, cluster, other, "waits") as first:
        assert first.stdout is not None
        run_id = first.stdout.readline().split()[1]
        first.kill()
    with drive(settings, cluster, other, "ends") as again:
        assert again.communicate(timeout=900)[0].split()[1] == run_id
    assert again.returncode == 0
    for rank in range(8):
        assert [row.step for row in rows_of(settings, f"explorer/{rank}")] == list(range(1, ROWS + 1))


def drive(settings: MonitorConfig, cluster: Cluster, other: str, ends: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", DRIVER, cluster.address, other, str(ROWS // 2), ends]
    return subprocess.Popen(
        arguments, env={**os.environ, **settings.to_env()}, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )


def _again(role: Any, rows: int) -> int:
    """Log with an actor that Ray is starting again."""
    deadline = time.monotonic() + 600
    while True:
        try:
            return int(ray.get(role.log.remote(rows)))
        except ray.exceptions.ActorUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
