"""Which process is the agent of a node, which role starts it, and which task it gets."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer
from live_agents import find_agent
from made_site import MadeSite

from rolecall import MonitorConfig, Registry, launch, open_monitor, timings
from rolecall.config.spec import JobSpec
from rolecall.delivery.node.agent import Agent
from rolecall.delivery.node.local import LocalRoles, agent_names, take_agents_place
from rolecall.store.codec import encode
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import FORMAT, Session, claim, end, newest, this_process
from rolecall.store.spool import open_spool

MakeConfig = Callable[..., MonitorConfig]
NODE, SECOND = agent_names()


@pytest.fixture
def spec(make_config: MakeConfig) -> JobSpec:
    """A launched job without couriers."""
    with launch(make_config(monitor_type="local", monitor_args={}, shared_run=False)) as job:
        return job.config.spec()


@pytest.fixture
def layout(spec: JobSpec) -> Layout:
    return Layout(spec.monitor_dir)


def plant(layout: Layout, writer: str, *, opened: float = 1.0, **owner: Any) -> Session:
    """A session that its owner has not ended."""
    found = newest(layout.journal(writer))
    number = found.number + 1 if found else 1
    session = Session(layout.journal(writer) / f"{number}.jsonl", number)
    session.path.parent.mkdir(parents=True, exist_ok=True)
    header: Mapping[str, Any] = {
        "rolecall": FORMAT,
        "owner": asdict(replace(this_process(), **owner)),
        "session": number,
        "opened": opened,
    }
    session.path.write_bytes(encode(header, session.seed))
    return session


ELSEWHERE: Mapping[str, Any] = {"host": "other", "space": "another machine"}
DEAD: Mapping[str, Any] = {"start": "0"}


def test_host_has_two_names() -> None:
    assert NODE.startswith("node/")
    assert SECOND.startswith(f"{NODE}-")


@pytest.mark.parametrize("spool", ["spool", None], ids=["spool_dir", "default"])
def test_one_process_has_the_agents_place(
    spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool: str | None
) -> None:
    """Of each job; it is free again once the process that was started with it has ended, however it did."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spec = replace(spec, spool_dir=tmp_path / spool if spool else None)
    place = take_agents_place(spec)
    assert place is not None
    assert take_agents_place(spec) is None
    other = take_agents_place(replace(spec, run_id="another"))
    assert other is not None
    os.close(other)
    with subprocess.Popen(["sleep", "600"], pass_fds=[place]) as agent:
        os.close(place)
        assert take_agents_place(spec) is None
        agent.kill()
    again = take_agents_place(spec)
    assert again is not None
    os.close(again)


def test_agents_place_that_others_can_write(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"rolecall-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    config = make_config(monitor_type="local", monitor_args={}, system_metrics=True, shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    (warning,) = [each.message for each in caplog.records if "agent" in each.message]
    assert warning.startswith(f"trainer: this node has no agent: spool_dir {folder}: is not a directory that only")


def run(spec: JobSpec) -> threading.Thread:
    place = take_agents_place(spec)
    assert place is not None
    thread = threading.Thread(target=Agent(spec, (), place).run, daemon=True)
    thread.start()
    return thread


def test_agent_without_a_role_ends_at_once(spec: JobSpec, layout: Layout) -> None:
    plant(layout, "trainer", **DEAD)
    plant(layout, "explorer", **ELSEWHERE)
    run(spec).join(30)
    assert newest(layout.journal(NODE)) is None


def test_second_agent_ends_at_once(spec: JobSpec, layout: Layout) -> None:
    role = plant(layout, "trainer")
    agent = plant(layout, NODE)
    run(spec).join(30)
    assert newest(layout.journal(NODE)) == agent
    assert newest(layout.journal(SECOND)) is None
    end(role, "finished")


def test_machine_of_the_same_name(
    spec: JobSpec, layout: Layout, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one shows that it lives, by a heartbeat: this node's agent takes the second name."""
    role = plant(layout, "trainer")
    other = plant(layout, NODE, **ELSEWHERE)
    agent = run(spec)

    def found() -> Session | None:
        other.path.touch()
        return find_agent(layout)

    wait_until(found)
    session = find_agent(layout)
    assert session is not None
    assert session.path.parent == layout.journal(SECOND)
    end(role, "finished")
    agent.join(30)
    assert session.status() == "finished"


def test_what_dies_with_an_agent_is_copied_once_more(spec: JobSpec, layout: Layout, tmp_path: Path) -> None:
    """Rows of a role on another node, or with a courier of its own, are left to others."""
    spooled = replace(spec, spool_dir=tmp_path / "spool")
    for writer, header in (("left", {"agent": True}), ("carried", {})):
        session = claim(layout.journal(writer), {"writer": writer, "spool": spooled.nonce, **header}, "it")
        dead = plant_owner(session)
        spool = tmp_path / "spool" / spooled.nonce / writer / session.path.name
        spool.parent.mkdir(parents=True)
        spool.write_bytes(dead + encode({"seq": 1, "step": 1, "time": 1.0, "data": {"x": 1}}, session.seed))
    LocalRoles(spooled, lambda _: None).recover()
    found = {writer: newest(layout.journal(writer)) for writer in ("left", "carried")}
    lines = {writer: session.path.read_bytes().count(b"\n") for writer, session in found.items() if session}
    assert lines == {"left": 2, "carried": 1}


def test_role_is_tended_once_its_spool_is_there(spec: JobSpec, layout: Layout, tmp_path: Path) -> None:
    """A look may come between a role's session and its spool."""
    spooled = replace(spec, spool_dir=tmp_path / "spool")
    header = {"writer": "trainer", "spool": spooled.nonce, "agent": True, "opened": time.time()}
    session = claim(layout.journal("trainer"), header, "it")
    roles = LocalRoles(spooled, lambda _: None)
    assert not roles.tend()
    journal = JournalWriter(open_spool(spooled, "trainer", session))
    journal.append({"loss": 0.5})
    assert roles.tend()
    assert session.path.read_bytes().count(b"\n") == 2
    journal.end("finished")
    while roles.tend():
        pass
    assert session.status() == "finished"
    assert not list((tmp_path / "spool").rglob("*.jsonl"))


def plant_owner(session: Session) -> bytes:
    """Make the session one of a process that is no more; returns its header."""
    header = {**session.header(), "owner": asdict(replace(this_process(), **DEAD))}
    header.pop("sum", None)
    session.path.write_bytes(encode(header, session.seed))
    return session.path.read_bytes()


def test_agent_gets_no_backend_of_code(make_config: MakeConfig, site: MadeSite, server: LinesServer) -> None:
    """Another process could not load it, and would do without the agent altogether."""
    site.backend("acme")
    registry = Registry().register("mine", Registry().load("acme").manager.get_plugin("acme"))
    given = {"project": "p", "name": "n", "monitor_dir": server.path.parent / "m"}
    args = {"lines": {"path": server.path}, "mine": {}}
    config = MonitorConfig.load({**given, "monitor_type": ["lines", "mine"], "monitor_args": args}, registry=registry)
    with launch(config) as job:
        portable = job.config.portable()
        assert portable.monitor_type == ("lines",)
        assert [each.backend for each in portable.spec().plan.backends] == ["lines"]
        assert MonitorConfig.from_env(portable.to_env()).spec().plan == portable.spec().plan
    only = MonitorConfig.load({**given, "monitor_type": "mine", "name": "other"}, registry=registry)
    assert MonitorConfig.from_env(only.portable().to_env()).monitor_type == ("local",)


def test_config_that_has_none_is_as_it_was(make_config: MakeConfig) -> None:
    config = make_config()
    assert config.portable() is config


def test_role_says_that_rows_are_on_its_node_alone(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(monitor_type="local", monitor_args={}, courier="process", spool_dir=tmp_path / "spool")
    with launch(config) as job:
        monkeypatch.setattr("sys.executable", "/bin/false")  # the agent
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 0.5})
        monitor.close(timeout=0.2)
    assert f"trainer: some rows are on this node alone, in {tmp_path / 'spool'}" in caplog.text


def test_role_warns_once_of_an_agent_that_fails(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: Any
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    monkeypatch.setattr(timings, "HEARTBEAT", 0.02)
    monkeypatch.setattr(timings, "RESTART", replace(timings.RESTART, initial=0.01, maximum=0.01))
    config = make_config(monitor_type="local", monitor_args={}, system_metrics=True, shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
        wait_until(lambda: any("agent" in each.message for each in caplog.records))
        monitor.log({"loss": 0.25})
    (warning,) = [each.message for each in caplog.records if "agent" in each.message]
    log = Layout(config.monitor_dir).courier_log(NODE)
    what = "the agent of this node ended with status 1 and is started again: it said nothing"
    assert warning == f"trainer: {what}; see {log}"
    assert socket.gethostname() in str(log)
