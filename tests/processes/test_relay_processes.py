"""A relay and the roles that it serves, in processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from lines_server import LinesServer

from rolecall import MonitorConfig, launch
from rolecall.store.acks import undelivered
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest

pytestmark = pytest.mark.processes

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]
STEPS = 100

ROLE = """
import os, signal, sys, time
from rolecall import MonitorConfig, open_monitor
role, steps, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
monitor = open_monitor(MonitorConfig.from_env(), role)
for step in range(1, steps + 1):
    monitor.log({"reward": step / 2}, step=step)
print("logged", flush=True)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "wait":
    sys.stdin.readline()
    monitor.log({"reward": 0.0}, step=steps + 1)
monitor.close()
"""
LAUNCHER = """
import sys
from rolecall import MonitorConfig, launch
job = launch(MonitorConfig.from_env())
print(job.config.to_env()["ROLECALL_CONFIG"], flush=True)
sys.stdin.readline()
job.close()
"""
MEMORY = """
import gc, sys
from rolecall import MonitorConfig, open_monitor
def held():
    gc.collect()
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
before = held()
if sys.argv[1] == "role":
    with open_monitor(MonitorConfig.from_env(), "trainer") as monitor:
        for step in range(1000):
            monitor.log({f"m{number}": float(step) for number in range(10)}, step=step)
        print(held() - before)
"""


@pytest.fixture
def make(make_config: MakeConfig, server: LinesServer) -> MakeConfig:
    args = {"path": server.path, "alone": True}
    return partial(make_config, shared_run="relay", courier="process", monitor_args=args)


class Processes:
    """Processes that no test leaves behind."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, config: MonitorConfig, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **config.to_env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def role(self, config: MonitorConfig, role: str, end: str = "close", steps: int = STEPS) -> subprocess.Popen[str]:
        """A role that has logged all of its rows."""
        process = self.start(config, "-c", ROLE, role, str(steps), end)
        assert self.line(process) == "logged"
        return process

    def launcher(self, config: MonitorConfig) -> tuple[subprocess.Popen[str], MonitorConfig]:
        """A launcher, and the config that it hands on."""
        process = self.start(config, "-c", LAUNCHER)
        return process, MonitorConfig.from_env({"ROLECALL_CONFIG": self.line(process)})

    @staticmethod
    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


@pytest.fixture
def processes() -> object:
    made = Processes()
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def end(process: subprocess.Popen[str]) -> int:
    """Let it end that waits for a line."""
    process.communicate("\n", timeout=120)
    return process.returncode


def relay_pid(config: MonitorConfig) -> int | None:
    session = newest(Layout(config.monitor_dir).delivery("lines", LAUNCH))
    owner = session.owner() if session is not None and session.is_live() else None
    return owner.pid if owner is not None else None


def steps(server: LinesServer, writer: str) -> list[int]:
    """The steps of a writer, each once: this backend cannot tell which rows it has."""
    return sorted({line["step"] for line in server.lines() if line.get("writer") == writer})


def all_steps(more: int = 0) -> list[int]:
    return list(range(1, STEPS + 1 + more))


def test_killed_role_loses_no_row(make: MakeConfig, server: LinesServer, processes: Processes) -> None:
    with launch(make()) as job:
        processes.role(job.config, "trainer", "kill").wait(60)
        assert processes.role(job.config, "explorer").wait(60) == 0
    assert steps(server, "trainer") == steps(server, "explorer") == all_steps()
    assert [line["closed"] for line in server.lines() if "closed" in line] == ["killed"]


def test_roles_go_on_without_their_launcher(
    make: MakeConfig, server: LinesServer, processes: Processes, wait_until: Wait
) -> None:
    """The relay outlives it, and makes way for that of the next launcher."""
    launcher, config = processes.launcher(make())
    trainer = processes.role(config, "trainer", "wait")
    first = relay_pid(config)
    kill(launcher)
    assert processes.role(config, "late").wait(60) == 0
    wait_until(lambda: steps(server, "late") == all_steps())
    again, _ = processes.launcher(make())
    wait_until(lambda: relay_pid(config) not in {None, first})
    assert end(trainer) == 0
    assert end(again) == 0
    assert steps(server, "trainer") == all_steps(1)
    assert server.runs() == [config.run_id]
    assert [line["closed"] for line in server.lines() if "closed" in line] == ["finished"]


def test_roles_go_on_without_a_relay(make: MakeConfig, server: LinesServer, processes: Processes) -> None:
    launcher, config = processes.launcher(make())
    trainer = processes.role(config, "trainer", "wait")
    relay = relay_pid(config)
    assert relay is not None
    kill(launcher)
    os.kill(relay, signal.SIGKILL)
    assert processes.role(config, "late").wait(60) == 0
    again, _ = processes.launcher(make())
    assert end(trainer) == 0
    assert end(again) == 0
    assert (steps(server, "late"), steps(server, "trainer")) == (all_steps(), all_steps(1))


def test_relay_command_that_is_killed(
    make: MakeConfig, server: LinesServer, processes: Processes, wait_until: Wait
) -> None:
    launcher, config = processes.launcher(make(courier="none"))
    command = ("-m", "rolecall", "relay", str(config.monitor_dir))
    trainer = processes.role(config, "trainer", "wait")
    first = processes.start(config, *command)
    wait_until(lambda: steps(server, "trainer") == all_steps())
    refused = processes.start(config, *command)
    assert refused.wait(60) == 2
    kill(first)
    second = processes.start(config, *command)
    wait_until(lambda: relay_pid(config) == second.pid)
    assert end(trainer) == 0
    assert end(launcher) == 0
    assert second.communicate(timeout=120)[0] == "all rows are delivered\n"
    assert second.returncode == 0
    assert steps(server, "trainer") == all_steps(1)
    assert [line["closed"] for line in server.lines() if "closed" in line] == ["finished"]


@pytest.mark.parametrize("end_of_role", ["close", "kill"])
def test_spooled_rows_are_relayed(
    make: MakeConfig, server: LinesServer, processes: Processes, tmp_path: Path, end_of_role: str
) -> None:
    with launch(make(spool_dir=tmp_path / "spool")) as job:
        processes.role(job.config, "trainer", end_of_role).wait(60)
    assert steps(server, "trainer") == all_steps()
    assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0


def test_role_takes_little_memory(make: MakeConfig, processes: Processes) -> None:
    """It has no courier and no SDK: less than 10 MB beside what it imports."""
    with launch(make()) as job:
        role = processes.start(job.config, "-c", MEMORY, "role")
        assert int(processes.line(role)) < 10_000
        assert role.wait(60) == 0
