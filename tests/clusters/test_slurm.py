"""Jobs of a real Slurm, whose two nodes are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lines_server import LinesServer
from slurm_cluster import Slurm

from rolecall.job.history import read_history
from rolecall.rows import Row
from rolecall.store.layout import Layout
from rolecall.store.reader import read_rows

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(900)]

WRITERS = ("explorer/0", "explorer/1")
CONFIG = """\
monitor:
  project: p
  name: requeued
  monitor_type: lines
  monitor_args: {{path: {path}}}
  shared_run: true
  monitor_dir: runs/nodes
"""
ROLE = """
import os, pathlib, time
from rolecall import MonitorConfig, open_monitor

rank = os.environ["SLURM_PROCID"]
life = os.environ.get("SLURM_RESTART_COUNT", "0")
count = open(f"logged-{rank}-{life}", "ab", 0)  # a byte for each row: a kill leaves no half of a number
with open_monitor(MonitorConfig.from_env(), role="explorer", rank=int(rank)) as monitor:
    while not pathlib.Path("stop").exists():
        monitor.log({"reward/mean": 0.5})
        count.write(b".")
        time.sleep(0.02)
"""


def test_the_example_of_the_docs(
    slurm: Slurm, tmp_path: Path, write_blocks: Callable[..., None], environment: dict[str, str]
) -> None:
    write_blocks(tmp_path, "config.yaml", "slurm_role.py", "slurm_launcher.py", "job.sh")
    job = slurm.submit("job.sh", tmp_path, environment)
    slurm.wait_ended(job)
    assert slurm.state(job) == "COMPLETED", (tmp_path / f"slurm-{job}.out").read_text()
    found = read_history(tmp_path / "runs" / "nodes")
    assert {each.writer: each.rows for each in found.writers} == dict.fromkeys(WRITERS, 10)
    assert str(found.state) == "finished"


def test_a_requeued_job_goes_on(
    slurm: Slurm, tmp_path: Path, write_blocks: Callable[..., None], environment: dict[str, str], server: LinesServer
) -> None:
    """As after a preemption: no row that was logged is lost, and none is doubled."""
    write_blocks(tmp_path, "slurm_launcher.py", "job.sh")
    (tmp_path / "slurm_role.py").write_text(ROLE)
    (tmp_path / "config.yaml").write_text(CONFIG.format(path=server.path))
    directory = tmp_path / "runs" / "nodes"
    job = slurm.submit("job.sh", tmp_path, environment)
    slurm.wait(lambda: min(_logged(tmp_path, 0)) >= 50)
    slurm.run("scontrol", "requeue", job)
    slurm.wait(lambda: min(_logged(tmp_path, 1)) >= 50)
    (tmp_path / "stop").touch()
    slurm.wait_ended(job)
    assert slurm.state(job) == "COMPLETED", (tmp_path / f"slurm-{job}.out").read_text()
    for rank, writer in enumerate(WRITERS):
        rows = [row for row in read_rows(Layout(directory), writer) if isinstance(row, Row)]
        assert [row.step for row in rows] == list(range(1, len(rows) + 1))
        # a row that was logged right before the kill may not have been counted
        assert _logged(tmp_path, 0)[rank] <= sum(row.session == 1 for row in rows) <= _logged(tmp_path, 0)[rank] + 1
        assert _logged(tmp_path, 1)[rank] == sum(row.session == 2 for row in rows)
        assert sorted(server.seqs(writer)) == sorted((row.session, row.seq) for row in rows)
    assert len(server.runs()) == 1
    assert str(read_history(directory).state) == "finished"


def _logged(folder: Path, life: int) -> list[int]:
    """How many rows each role had logged, by its own count, before or after the job was requeued."""
    files = [folder / f"logged-{rank}-{life}" for rank in range(2)]
    return [file.stat().st_size if file.exists() else 0 for file in files]
