"""A real torchrun of 2 nodes with 2 ranks each, whose nodes are network namespaces of this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import two_namespaces
from two_namespaces import Node

from rolecall.job.history import read_history
from rolecall.rows import Row
from rolecall.store.layout import Layout
from rolecall.store.reader import read_rows

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(900)]

TRAIN = """
import os, torch
import torch.distributed as dist
from rolecall import MonitorConfig, open_monitor

dist.init_process_group("gloo")
rank = dist.get_rank()
with open_monitor(MonitorConfig.load("config.yaml"), role="trainer", rank=rank, primary="auto") as monitor:
    for step in range(1, 51):
        total = torch.tensor(float(rank))
        dist.all_reduce(total)
        monitor.log({"total": float(total)}, step=step)
dist.destroy_process_group()
"""


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no torch: `nox -s torchrun` installs it")
    if lack := two_namespaces.missing():
        pytest.skip(lack)
    with two_namespaces.two_nodes() as made:
        yield made


@pytest.fixture
def torchrun(nodes: list[Node], environment: dict[str, str]) -> Callable[..., list[subprocess.CompletedProcess[str]]]:
    """Run a script as the docs say, on each node; with `own`, a directory that is another one on each."""

    def run(folder: Path, script: str, own: Path | None = None) -> list[subprocess.CompletedProcess[str]]:
        env = {**os.environ, **environment, "GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"}
        module = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={nodes[0].address}:29500"]
        started = [node.start([*module, *meeting, script], folder, env, own) for node in nodes]
        try:
            outputs = [each.communicate(timeout=600)[0] for each in started]
        finally:
            for each in started:
                each.kill()
        ended = zip(started, outputs, strict=True)
        return [subprocess.CompletedProcess(each.args, each.returncode, output) for each, output in ended]

    return run


def test_the_example_of_the_docs(
    torchrun: Callable[..., list[subprocess.CompletedProcess[str]]], tmp_path: Path, write_blocks: Callable[..., None]
) -> None:
    write_blocks(tmp_path, "config.yaml", "train.py")
    for done in torchrun(tmp_path, "train.py"):
        assert done.returncode == 0, done.stdout
    found = read_history(tmp_path / "runs" / "nodes")
    assert {each.writer: each.rows for each in found.writers} == {f"trainer/{rank}": 10 for rank in range(4)}
    assert str(found.state) == "finished"


def test_ranks_that_reduce_with_gloo(
    torchrun: Callable[..., list[subprocess.CompletedProcess[str]]], tmp_path: Path, write_blocks: Callable[..., None]
) -> None:
    write_blocks(tmp_path, "config.yaml")
    (tmp_path / "train.py").write_text(TRAIN)
    for done in torchrun(tmp_path, "train.py"):
        assert done.returncode == 0, done.stdout
    layout = Layout(tmp_path / "runs" / "nodes")
    for rank in range(4):
        rows = [row for row in read_rows(layout, f"trainer/{rank}") if isinstance(row, Row)]
        assert [(row.step, dict(row.metrics)) for row in rows] == [(step, {"total": 6.0}) for step in range(1, 51)]
    assert str(read_history(layout.root).state) == "finished"


def test_nodes_without_a_shared_directory(
    torchrun: Callable[..., list[subprocess.CompletedProcess[str]]], tmp_path: Path, write_blocks: Callable[..., None]
) -> None:
    """No second job is launched on the second node: its ranks say what to do."""
    write_blocks(tmp_path, "config.yaml")
    (tmp_path / "train.py").write_text(TRAIN)
    own = tmp_path / "runs"
    own.mkdir()
    done = torchrun(tmp_path, "train.py", own)
    assert all(each.returncode for each in done)
    said = "".join(each.stdout for each in done)
    assert "saw none here" in said, said
    assert "Put monitor_dir on a filesystem that all nodes share" in said
