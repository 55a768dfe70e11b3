"""The agent of a node, among real roles that are really killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_suite import mounted_sshfs
from lines_server import LinesServer
from live_agents import find_agent
from stopped import stop

from rolecall import Job, MonitorConfig, launch
from rolecall.delivery.node.local import agent_names, take_agents_place
from rolecall.rows import Row
from rolecall.store.layout import Layout, slug_of
from rolecall.store.lease import newest, sessions
from rolecall.store.reader import read_rows

pytestmark = pytest.mark.processes

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]
Role = subprocess.Popen[str]
Start = Callable[..., Role]

NODE = agent_names()[0]
NODE_KEYS = {"cpu/percent", "memory/percent", "disk/free_mb", "network/sent_mb_per_s"}

ROLE = """
import sys
from rolecall import MonitorConfig, open_monitor
monitor = open_monitor(MonitorConfig.from_env(), sys.argv[1])
print("opened", flush=True)
for line in sys.stdin:
    if line.strip() == "close":
        monitor.close(timeout=float(sys.argv[2]))
        print("closed", flush=True)
        break
    else:
        for _ in range(int(line)):
            monitor.log({"loss": 0.5})
        print("logged", flush=True)
"""
FAST = """
from rolecall import timings
timings.FIRST_SAMPLE = timings.SAMPLE_INTERVAL = 0.1
from rolecall.delivery.node.agent import main
main()
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a role that reads commands from its standard input; none outlives the test."""
    started: list[Role] = []

    def run(job: Job, writer: str, close_timeout: float = 30.0) -> Role:
        role = subprocess.Popen(
            [sys.executable, "-c", ROLE, writer, str(close_timeout)],
            env={**os.environ, **job.config.to_env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(role)
        assert answer(role) == "opened"
        return role

    yield run
    for role in started:
        role.kill()
        role.communicate()


def answer(role: Role) -> str:
    assert role.stdout is not None
    return role.stdout.readline().strip()


def tell(role: Role, what: str) -> str:
    """Have a role log so many rows, or close; returns what it answers."""
    assert role.stdin is not None
    role.stdin.write(f"{what}\n")
    role.stdin.flush()
    return answer(role)


def kill(role: Role) -> None:
    role.kill()
    role.wait()


def agent_of(job: Job) -> int | None:
    """The process of this node's agent."""
    session = find_agent(Layout(job.config.monitor_dir))
    owner = session.owner() if session is not None else None
    return owner.pid if owner is not None else None


def started_agent(job: Job, wait_until: Wait) -> int:
    wait_until(lambda: agent_of(job))
    return agent_of(job) or 0


def logged(job: Job, writer: str) -> list[Row]:
    return [row for row in read_rows(Layout(job.config.monitor_dir), writer) if isinstance(row, Row)]


def await_end(job: Job, wait_until: Wait) -> None:
    """Wait until the agent has ended by itself."""
    wait_until(lambda: agent_of(job) is None)
    session = newest(Layout(job.config.monitor_dir).journal(NODE))
    assert session is not None
    assert session.status() == "finished"


def local(make_config: MakeConfig, tmp_path: Path, **settings: Any) -> MonitorConfig:
    """A job of a relay, whose roles have no courier, and spool their journals."""
    given: dict[str, Any] = {"monitor_type": "local", "monitor_args": {}, "courier": "process"}
    return make_config(**given, shared_run="relay", **{"spool_dir": tmp_path / "spool", **settings})


# ------------------------------------------------------------- system metrics


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_samples_are_delivered(
    make_config: MakeConfig, server: LinesServer, start: Start, wait_until: Wait, *, shared: bool
) -> None:
    with launch(make_config(courier="process", system_metrics=True, shared_run=shared)) as job:
        roles = [start(job, writer) for writer in ("explorer", "trainer")]
        wait_until(lambda: any(line.get("writer") == NODE for line in server.lines()))
        assert [tell(role, "close") for role in roles] == ["closed", "closed"]
        await_end(job, wait_until)
    line = next(line for line in server.lines() if line.get("writer") == NODE)
    prefix = f"{NODE}/" if shared else ""
    wanted = {f"{prefix}{key}" for key in (*NODE_KEYS, "process/explorer/memory_mb")}
    assert wanted <= line["metrics"].keys()
    names = {found["name"] for found in server.lines() if "name" in found}
    assert names == (
        {"grpo-1"} if shared else {f"grpo-1_{name}" for name in ("explorer", "trainer", f"node_{NODE[5:]}")}
    )
    if shared:
        assert line["metrics"][f"{NODE}/step"] == 1


def test_run_ends_behind_the_agent(
    make_config: MakeConfig, server: LinesServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A shared run is open until the agent's courier has left it; the agent is no role that did not close."""
    with launch(make_config(courier="process", system_metrics=True)) as job:
        role = start(job, "trainer")
        assert tell(role, "3") == "logged"
        assert tell(role, "close") == "closed"
    assert [(each.writer, each.closed) for each in job.writers] == [("trainer", True)]
    *_, ended = [line["by"] for line in server.lines() if "closed" in line]
    assert ended is None  # the launcher's courier, behind the agent's
    assert "did not close" not in caplog.text


def test_backend_that_measures_gets_no_samples(
    two: tuple[Any, list[LinesServer]], start: Start, wait_until: Wait
) -> None:
    make, servers = two
    with launch(make(courier="process", system_metrics=True, shared_run=False)) as job:
        role = start(job, "trainer")
        wait_until(lambda: any(line.get("writer") == NODE for line in servers[0].lines()))
        assert tell(role, "2") == "logged"
        assert tell(role, "close") == "closed"
        await_end(job, wait_until)
    assert NODE not in {line.get("writer") for line in servers[1].lines()}
    assert len(servers[1].runs()) == 1


def test_roles_of_a_node_have_one_agent(make_config: MakeConfig, start: Start, wait_until: Wait) -> None:
    with launch(make_config(monitor_type="local", monitor_args={}, courier="process", system_metrics=True)) as job:
        roles = [start(job, f"explorer{number}") for number in range(4)]
        pid = started_agent(job, wait_until)
        wait_until(lambda: logged(job, NODE))
        assert agent_of(job) == pid
        everyone = {f"process/explorer{number}/threads" for number in range(4)}
        wait_until(lambda: everyone <= logged(job, NODE)[-1].metrics.keys(), timeout=60.0)
        for role in roles[:3]:
            assert tell(role, "close") == "closed"
        assert agent_of(job) == pid
        assert tell(roles[3], "close") == "closed"
        await_end(job, wait_until)
    assert len(sessions(Layout(job.config.monitor_dir).journal(NODE))) == 1


def test_killed_agent_is_started_again(make_config: MakeConfig, start: Start, wait_until: Wait) -> None:
    with launch(make_config(monitor_type="local", monitor_args={}, courier="process", system_metrics=True)) as job:
        role = start(job, "trainer")
        first = started_agent(job, wait_until)
        wait_until(lambda: logged(job, NODE))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: agent_of(job) not in (None, first))
        wait_until(lambda: len(logged(job, NODE)) > 1)
        assert tell(role, "close") == "closed"
        await_end(job, wait_until)
    assert [(row.session, row.step) for row in logged(job, NODE)][:2] == [(1, 1), (2, 2)]


def test_another_role_starts_it_again(make_config: MakeConfig, start: Start, wait_until: Wait) -> None:
    """Agent and the role that started it die together."""
    with launch(make_config(monitor_type="local", monitor_args={}, courier="process", system_metrics=True)) as job:
        first = start(job, "trainer")
        pid = started_agent(job, wait_until)
        other = start(job, "explorer")
        os.kill(pid, signal.SIGKILL)
        kill(first)
        wait_until(lambda: agent_of(job) not in (None, pid))
        assert tell(other, "close") == "closed"
        await_end(job, wait_until)


def test_agent_ends_with_killed_roles(make_config: MakeConfig, start: Start, wait_until: Wait) -> None:
    with launch(make_config(monitor_type="local", monitor_args={}, courier="process", system_metrics=True)) as job:
        role = start(job, "trainer")
        pid = started_agent(job, wait_until)
        kill(role)
        await_end(job, wait_until)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_agent_ends_with_a_deleted_job(
    make_config: MakeConfig, server: LinesServer, start: Start, wait_until: Wait
) -> None:
    with launch(make_config(courier="process", system_metrics=True, shared_run=False)) as job:
        role = start(job, "trainer")
        pid = started_agent(job, wait_until)
        wait_until(lambda: any(line.get("writer") == NODE for line in server.lines()))
        stop(pid)
        kill(role)
        shutil.rmtree(job.config.monitor_dir, ignore_errors=True)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout=60.0)


# ----------------------------------------------- roles that have no courier


def test_journal_is_mirrored_at_close(make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait) -> None:
    with launch(local(make_config, tmp_path)) as job:
        roles = [start(job, writer) for writer in ("explorer", "trainer")]
        for role in roles:
            assert tell(role, "100") == "logged"
        wait_until(lambda: len(logged(job, "explorer")) == len(logged(job, "trainer")) == 100)
        assert tell(roles[0], "7") == "logged"
        assert tell(roles[0], "close") == "closed"
        assert len(logged(job, "explorer")) == 107
        assert tell(roles[1], "close") == "closed"
        await_end(job, wait_until)
    assert logged(job, NODE) == []  # nothing is measured that nobody asked for
    wait_until(lambda: not list((tmp_path / "spool").rglob("explorer/*.jsonl")))
    logs = {path.stem for path in (tmp_path / "monitor" / "courier").glob("*.log")}
    assert logs == {"@launch", slug_of(NODE)}  # no process beside a role


def test_rows_of_a_killed_role_are_mirrored(
    make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait
) -> None:
    with launch(local(make_config, tmp_path)) as job:
        role = start(job, "trainer")
        started_agent(job, wait_until)
        assert tell(role, "500") == "logged"
        kill(role)
        wait_until(lambda: len(logged(job, "trainer")) == 500)
        await_end(job, wait_until)


def test_rows_beside_a_killed_agent(make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait) -> None:
    with launch(local(make_config, tmp_path)) as job:
        role = start(job, "trainer")
        pid = started_agent(job, wait_until)
        os.kill(pid, signal.SIGKILL)
        assert tell(role, "500") == "logged"
        assert tell(role, "close") == "closed"
        assert len(logged(job, "trainer")) == 500


def test_rows_left_by_a_killed_node(make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait) -> None:
    """Agent and role die together; the agent that comes with the next role copies what they left."""
    with launch(local(make_config, tmp_path)) as job:
        role = start(job, "trainer")
        pid = started_agent(job, wait_until)
        stop(pid)
        assert tell(role, "500") == "logged"
        os.kill(pid, signal.SIGKILL)
        kill(role)
        assert len(logged(job, "trainer")) < 500
        other = start(job, "explorer")
        wait_until(lambda: len(logged(job, "trainer")) == 500)
        assert tell(other, "close") == "closed"


def test_silent_role_shows_that_it_lives(
    make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait
) -> None:
    with launch(local(make_config, tmp_path)) as job:
        role = start(job, "trainer")
        session = newest(Layout(job.config.monitor_dir).journal("trainer"))
        assert session is not None
        os.utime(session.path, (1.0, 1.0))
        wait_until(lambda: session.silence() < 60)
        assert tell(role, "close") == "closed"


def test_directory_that_does_not_answer(
    make_config: MakeConfig, tmp_path: Path, start: Start, wait_until: Wait
) -> None:
    """What is measured, and what the role logs, waits on the node until the directory is there again."""
    with mounted_sshfs(tmp_path) as mounted:
        if mounted is None:
            pytest.skip("no sshfs can be mounted here")
        directory, server = mounted
        with launch(local(make_config, tmp_path, monitor_dir=directory, system_metrics=True)) as job:
            place = take_agents_place(job.config.spec())
            assert place is not None
            agent = subprocess.Popen([sys.executable, "-c", FAST], stdin=subprocess.PIPE, pass_fds=[place])
            os.close(place)
            try:
                role = start(job, "trainer", 1.0)
                assert agent.stdin is not None
                task = {"env": job.config.to_env(), "without": [], "log": str(tmp_path / "log"), "place": place}
                agent.stdin.write(json.dumps(task).encode() + b"\n")
                agent.stdin.close()
                wait_until(lambda: logged(job, NODE))
                server.send_signal(signal.SIGSTOP)
                try:
                    stopped = time.time()
                    assert tell(role, "200") == "logged"
                    spool = next((tmp_path / "spool").rglob(f"{slug_of(NODE)}/*.jsonl"))
                    before = spool.stat().st_size
                    wait_until(lambda: spool.stat().st_size > before + 2000)
                    assert tell(role, "close") == "closed"
                    assert role.wait(60) == 0  # no thread of it waits for the directory
                finally:
                    continued = time.time()
                    server.send_signal(signal.SIGCONT)
                assert agent.wait(60) == 0
            finally:
                agent.kill()
                agent.wait()
            assert len(logged(job, "trainer")) == 200
            assert [row for row in logged(job, NODE) if stopped < row.time < continued]


# ----------------------------------------------------------------- a relay


def test_relayed_roles_have_no_process(
    make_config: MakeConfig, server: LinesServer, tmp_path: Path, start: Start, wait_until: Wait
) -> None:
    """One agent copies what all roles of the node spooled, also of one that is killed, and the relay delivers it."""
    config = make_config(courier="process", shared_run="relay", spool_dir=tmp_path / "spool")
    with launch(config) as job:
        roles = [start(job, f"explorer{number}") for number in range(3)]
        for role in roles:
            assert tell(role, "50") == "logged"
        kill(roles[0])
        assert [tell(role, "close") for role in roles[1:]] == ["closed", "closed"]
    logs = {path.stem for path in (tmp_path / "monitor" / "courier").glob("*.log")}
    assert logs == {"@launch", slug_of(NODE)}
    (run,) = server.runs()
    for number in range(3):
        writer = f"explorer{number}"
        assert [step for step, _ in server.points(run, writer, f"{writer}/loss")] == list(range(1, 51))
    assert NODE not in {line.get("writer") for line in server.lines()}


def test_relay_delivers_what_is_measured(two: tuple[Any, list[LinesServer]], start: Start, wait_until: Wait) -> None:
    """To each backend: the only SDK of a run would measure the relay's node and process alone."""
    make, servers = two
    with launch(make(courier="process", shared_run="relay", system_metrics=True)) as job:
        role = start(job, "trainer")
        for server in servers:
            wait_until(lambda server=server: any(line.get("writer") == NODE for line in server.lines()))
        assert tell(role, "close") == "closed"
    for server in servers:
        (run,) = server.runs()
        assert server.points(run, NODE, f"{NODE}/process/trainer/threads")
        assert [line["closed"] for line in server.lines() if "closed" in line] == ["finished"]
    await_end(job, wait_until)
