"""One cluster for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall import Job, MonitorConfig, launch

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

collect_ignore_glob: list[str] = []
try:
    import ray
except ModuleNotFoundError:  # `nox -s ray` has it
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    import ray_roles

    with ray_roles.two_nodes() as made:
        yield made


@pytest.fixture
def here(cluster: Cluster) -> str:
    """The launcher's node."""
    return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def other(cluster: Cluster, here: str) -> str:
    """The node that is not the launcher's."""
    return str(next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here))


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., MonitorConfig]:
    """Settings of a job over Ray; keyword arguments differ from them."""

    def make(**settings: Any) -> MonitorConfig:
        given: dict[str, Any] = {
            "transport": "ray",
            "monitor_dir": tmp_path / "monitor",
            "spool_dir": tmp_path / "spool",
        }
        given["open_timeout"] = 300.0  # eight processes start at once, and the machine may have other work
        return MonitorConfig.load({"project": "p", "name": "n", **given, **settings})

    return make


@pytest.fixture
def launched(config: Callable[..., MonitorConfig]) -> Iterator[Callable[..., Job]]:
    """Launches jobs over Ray, and closes those that a failed test leaves open."""
    jobs: list[Job] = []

    def make(**settings: Any) -> Job:
        jobs.append(launch(config(**settings)))
        return jobs[-1]

    yield make
    for job in jobs:
        job.close("failed", 0.0)
