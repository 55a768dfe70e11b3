"""A job whose roles are on nodes of a Ray cluster that share no disk with the launcher."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed; `nox -s ray` has it")

import ray
import ray_roles
from ray.cluster_utils import Cluster

from rolecall import Job, MonitorConfig, launch
from rolecall.job.history import read_history
from rolecall.rows import Row
from rolecall.store.layout import Layout
from rolecall.store.reader import read_rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

Config = Callable[..., MonitorConfig]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_roles.two_nodes() as made:
        yield made


@pytest.fixture
def other(cluster: Cluster) -> str:
    """The node that is not the launcher's."""
    here = ray.get_runtime_context().get_node_id()
    return next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    def make(**settings: Any) -> MonitorConfig:
        given = {"transport": "ray", "monitor_dir": tmp_path / "monitor", "spool_dir": tmp_path / "spool"}
        return MonitorConfig.load({"project": "p", "name": "n", **given, **settings})

    return make


def rows_of(config: MonitorConfig, writer: str) -> list[Row]:
    return [row for row in read_rows(Layout(config.monitor_dir), writer) if isinstance(row, Row)]


def start(job: Job, node: str, role: str, rank: int | None = None, **options: Any) -> Any:
    return (
        ray.remote(ray_roles.Role).options(**ray_roles.on(node, num_cpus=0.1, **options)).remote(job.config, role, rank)
    )


def test_rows_of_another_node_arrive(config: Config, other: str) -> None:
    job = launch(config())
    role = start(job, other, "explorer", 0)
    assert ray.get(role.log.remote(1000)) == 1000
    assert ray.get(role.opened.remote()) == [], "the launcher's directory is on another disk"
    ray.get(role.close.remote())
    job.close()
    assert [row.step for row in rows_of(job.config, "explorer/0")] == list(range(1, 1001))
    assert str(read_history(job.config.monitor_dir).state) == "finished"


def test_tasks_async_and_threaded_actors(config: Config, other: str) -> None:
    job = launch(config())
    task = ray.remote(ray_roles.run_role).options(**ray_roles.on(other, num_cpus=0.1))
    tasks = [task.remote(job.config, "explorer", rank, 50) for rank in range(3)]
    asynchronous = ray.remote(ray_roles.AsyncRole).options(**ray_roles.on(other, num_cpus=0.1)).remote()
    threaded = ray.remote(ray_roles.ThreadedRole).options(**ray_roles.on(other, num_cpus=0.1, max_concurrency=4))
    role = threaded.remote(job.config)
    ray.get([*tasks, asynchronous.run.remote(job.config, 50), *[role.log.remote(50) for _ in range(4)]])
    ray.get(role.close.remote())
    job.close()
    found = {writer: len(rows_of(job.config, writer)) for writer in Layout(job.config.monitor_dir).writers()}
    assert found == {"async": 50, "explorer/0": 50, "explorer/1": 50, "explorer/2": 50, "threaded": 200}


def test_files_arrive_with_their_rows(config: Config, other: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(5 << 20))
    job = launch(config())
    role = start(job, other, "trainer")
    ray.get(role.log_file.remote(str(path)))
    ray.get(role.close.remote())
    job.close()
    (row,) = rows_of(job.config, "trainer")
    assert row.media[0].path is not None
    assert row.media[0].path.read_bytes() == path.read_bytes()


def test_a_killed_role_keeps_no_job_waiting(config: Config, other: str) -> None:
    job = launch(config())
    role = start(job, other, "explorer")
    ray.get(role.log.remote(100))
    ray.kill(role)
    began = time.monotonic()
    job.close()
    assert time.monotonic() - began < 15
    assert len(rows_of(job.config, "explorer")) == 100
    assert [str(each.state) for each in job.writers] == ["killed"]
