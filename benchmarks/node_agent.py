"""What the agent of a node takes of it: CPU and memory, beside roles that log a row a second.

    python benchmarks/node_agent.py [--roles 1 8] [--seconds 60] [--json FILE]

Three agents for each number of roles: one that measures the node, for the `local` backend, which has no courier; one
that measures it for TensorBoard, whose courier is in the agent; and one that measures nothing, and copies what the
roles spool. CPU is that of the agent once it has started, which is a column of its own, as a share of one core. Memory
is in proportion to what it shares with other processes (PSS, Linux).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from report import show_and_keep
from usage import TICKS
from weight import memory_of

from rolecall import Job, MonitorConfig, launch
from rolecall.store.layout import Layout

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from live_agents import find_agent

AGENTS: Mapping[str, Mapping[str, Any]] = {
    "measures": {"monitor_type": "local", "system_metrics": True},
    "measures, delivers to TensorBoard": {"monitor_type": "tensorboard", "system_metrics": True},
    "copies spools": {"monitor_type": "local", "shared_run": "relay", "spool_dir": "spool"},
}
ROLE = """
import os, sys, time
from rolecall import MonitorConfig, open_monitor
with open_monitor(MonitorConfig.from_env(), "role", int(sys.argv[1])) as monitor:
    while os.getppid() == int(sys.argv[2]):
        monitor.log({f"metric{number}": time.time() for number in range(10)})
        time.sleep(1.0)
"""


def main() -> None:
    """Measure each agent beside each number of roles, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roles", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    show_and_keep([_measure(name, roles, args.seconds) for roles in args.roles for name in AGENTS], args.json)


def _measure(name: str, roles: int, seconds: float) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder, _job(name, folder) as job, ExitStack() as stack:
        for rank in range(roles):
            stack.enter_context(_role(job, rank))
        pid = _agent(job)
        time.sleep(10.0)  # it has started, taken its first sample, and seen all roles
        started, began = _cpu(pid), time.monotonic()
        time.sleep(seconds)
        share = (_cpu(pid) - started) / (time.monotonic() - began)
        memory = memory_of(pid)
        return {
            "agent": name,
            "roles": roles,
            "start, s of CPU": round(started, 2),
            "CPU, % of a core": round(100 * share, 2),
            "memory, MB": round(memory / 1e6, 1),
        }


@contextmanager
def _job(name: str, folder: str) -> Iterator[Job]:
    settings = {**AGENTS[name]}
    if "spool_dir" in settings:
        settings["spool_dir"] = Path(folder, "spool")
    with launch(MonitorConfig(project="benchmarks", name="agent", monitor_dir=Path(folder, "job"), **settings)) as job:
        yield job
        job.close(wait=30.0)


@contextmanager
def _role(job: Job, rank: int) -> Iterator[None]:
    command = [sys.executable, "-c", ROLE, str(rank), str(os.getpid())]
    role = subprocess.Popen(command, env={**os.environ, **job.config.to_env()})
    try:
        yield
    finally:
        role.kill()
        role.wait()


def _agent(job: Job) -> int:
    while True:
        session = find_agent(Layout(job.config.monitor_dir))
        if session is not None and (owner := session.owner()) is not None:
            return owner.pid
        time.sleep(0.1)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
