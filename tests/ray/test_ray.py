"""A job whose roles are on nodes of a Ray cluster that share no disk with the launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import ray_roles
from lines_server import LinesServer
from page_blocks import ROOT, blocks
from ray.cluster_utils import Cluster
from ray_roles import find, process_of, rows_of, start

from rolecall import ConfigError, Job, MonitorConfig
from rolecall.job.history import read_history
from rolecall.store.layout import Layout

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

Config = Callable[..., MonitorConfig]
Launched = Callable[..., Job]


def test_rows_of_another_node_arrive(launched: Launched, other: str) -> None:
    job = launched()
    role = start(job, other, "explorer", 0)
    assert ray.get(role.log.remote(1000)) == 1000
    assert ray.get(role.opened.remote()) == [], "the launcher's directory is on another disk"
    ray.get(role.close.remote())
    job.close()
    assert [row.step for row in rows_of(job.config, "explorer/0")] == list(range(1, 1001))
    assert str(read_history(job.config.monitor_dir).state) == "finished"


def test_the_example_of_the_docs(cluster: Cluster, tmp_path: Path) -> None:
    (example,) = [block for block in blocks(ROOT / "docs" / "multi-node.md") if block.title == "ray_job.py"]
    (tmp_path / "ray_job.py").write_text(example.text)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "ray_job.py"], cwd=tmp_path, env=environment, check=True)
    found = read_history(tmp_path / "runs" / "ray")
    assert {each.writer: each.rows for each in found.writers} == {"evaluator": 1, "explorer/0": 10, "explorer/1": 10}


def test_tasks_async_and_threaded_actors(launched: Launched, other: str) -> None:
    job = launched()
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


def test_files_arrive_with_their_rows(launched: Launched, other: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(os.urandom(5 << 20))
    job = launched()
    role = start(job, other, "trainer")
    ray.get(role.log_file.remote(str(path)))
    ray.get(role.close.remote())
    job.close()
    (row,) = rows_of(job.config, "trainer")
    stored = row.media[0].path
    assert stored is not None
    assert stored.read_bytes() == path.read_bytes()


def test_a_killed_role_keeps_no_job_waiting(launched: Launched, other: str) -> None:
    job = launched()
    role = start(job, other, "explorer")
    ray.get(role.log.remote(100))
    ray.kill(role)
    began = time.monotonic()
    job.close()
    assert time.monotonic() - began < 60
    assert len(rows_of(job.config, "explorer")) == 100
    assert [str(each.state) for each in job.writers] == ["killed"]


def test_two_jobs_have_roles_of_one_name(launched: Launched, other: str, tmp_path: Path) -> None:
    jobs = [launched(monitor_dir=tmp_path / name, run_id=name) for name in ("a", "b")]
    roles = [start(job, other, "explorer") for job in jobs]
    ray.get([role.log.remote(10 + at) for at, role in enumerate(roles)])
    with pytest.raises(ConfigError, match="another job of this Ray cluster has it"):
        launched(monitor_dir=tmp_path / "c", run_id="a")
    ray.get([role.close.remote() for role in roles])
    for at, job in enumerate(jobs):
        job.close()
        assert len(rows_of(job.config, "explorer")) == 10 + at


def test_a_name_is_held_on_any_node(launched: Launched, here: str, other: str) -> None:
    job = launched()
    first = start(job, other, "explorer")
    ray.get(first.log.remote(1))
    second = start(job, here, "explorer")
    with pytest.raises(ray.exceptions.RayActorError, match="WriterConflict"):
        ray.get(second.log.remote(1))
    ray.get(first.close.remote())
    job.close()


def test_hub_and_forwarders_end_with_the_job(launched: Launched, other: str) -> None:
    job = launched()
    role = start(job, other, "explorer")
    ray.get(role.log.remote(1))
    ray.get(role.close.remote())
    job.close()
    deadline = time.monotonic() + 60
    while names := [name for name in ray_roles.actors() if name.startswith(str(job.run_id))]:
        assert time.monotonic() < deadline, names
        time.sleep(0.5)
    assert not [path for path in (job.config.spool_dir or Path()).rglob("*") if path.is_file()]


def test_memory_does_not_grow_with_rows(launched: Launched, other: str, tmp_path: Path) -> None:
    """What carries them holds a batch, however many there are."""
    job = launched()
    role = start(job, other, "explorer", 0)
    ray.get(role.log.remote(1))
    forwarder = find(f"{job.run_id}/{other}")
    carriers = [process_of(forwarder), process_of(find(f"{job.run_id}/hub"))]
    held, carried = [], []
    for rows in (300_000, 300_000):  # the first ones fill buffers
        ray.get(role.log.remote(rows))
        ray.get(forwarder.settle.remote())
        held.append(sum(anonymous_memory(process) for process in carriers))
        carried.append(sum(path.stat().st_size for path in (tmp_path / "monitor").rglob("1.jsonl")))
    ray.get(role.close.remote())
    job.close(timeout=120.0)
    assert held[1] - held[0] < (carried[1] - carried[0]) / 4


def anonymous_memory(process: int) -> int:
    """Bytes that a process has in memory of its own."""
    status = Path(f"/proc/{process}/status").read_text("ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def test_auto_takes_files_where_it_sees_them(launched: Launched, other: str) -> None:
    """And the launcher says to each role how its rows reach the backends."""
    job = launched(transport="auto", spool_dir=None)
    role = start(job, other, "explorer")
    ray.get(role.log.remote(10))
    assert "open" in " ".join(ray.get(role.opened.remote()))
    ray.get(role.close.remote())
    job.close()
    assert len(rows_of(job.config, "explorer")) == 10


@pytest.mark.parametrize("shared_run", [False, True])
def test_the_launchers_node_delivers(launched: Launched, other: str, server: LinesServer, shared_run: bool) -> None:
    """To a run of each role's own, or to one run, which is then a relay."""
    job = launched(monitor_type="lines", monitor_args={"path": str(server.path)}, shared_run=shared_run)
    assert [each.setting for each in job.plan.downgrades] == (["shared_run"] if shared_run else [])
    roles = [start(job, other, "explorer", rank) for rank in range(2)]
    ray.get([role.log.remote(100) for role in roles])
    ray.get([role.close.remote() for role in roles])
    job.close()
    assert [len(set(server.seqs(f"explorer/{rank}"))) for rank in range(2)] == [100, 100]
    assert len(server.runs()) == (1 if shared_run else 2)
