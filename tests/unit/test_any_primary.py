"""Processes that are started separately share a job: the first one launches it, the last one to leave ends its runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from lines_role import explore_as_any
from lines_server import LinesServer

from rolecall import ConfigError, DirectoryError, Monitor, MonitorConfig, open_monitor
from rolecall.job import launch
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest

MakeConfig = Callable[..., MonitorConfig]
WaitUntil = Callable[..., None]


def open_any(config: MonitorConfig, role: str) -> Monitor:
    return open_monitor(config, role, primary="auto", run_config={"role": role})


def ends_of(server: LinesServer) -> list[str]:
    """How the launchers' couriers closed the run."""
    return [line["closed"] for line in server.lines() if "closed" in line and line["by"] is None]


@pytest.mark.parametrize("first_to_leave", ["explorer", "trainer"])
def test_last_to_leave_ends_the_run(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, first_to_leave: str
) -> None:
    monitors = [open_any(make_config(), "explorer"), open_any(make_config(), "trainer")]
    if first_to_leave == "trainer":
        monitors.reverse()
    for step, monitor in enumerate(monitors, 1):
        monitor.log({"a": step}, step)
    monitors[0].close()
    monitors[1].log({"a": 3}, 3)
    assert ends_of(server) == []
    monitors[1].close()
    wait_until(lambda: ends_of(server) == ["finished"])
    assert len(server.runs()) == 1
    assert {monitor.run_id for monitor in monitors} == set(server.runs())


@pytest.mark.parametrize("failing", [0, 1])
def test_run_ends_with_the_worst_status(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, failing: int
) -> None:
    for at, monitor in enumerate([open_any(make_config(), "explorer"), open_any(make_config(), "trainer")]):
        monitor.log({"a": 1})
        monitor.close("failed" if at == failing else "finished")
    wait_until(lambda: ends_of(server) == ["failed"])


def test_who_comes_later_goes_on_in_the_same_run(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil
) -> None:
    for times, role in enumerate(("explorer", "trainer", "explorer"), 1):
        with open_any(make_config(), role) as monitor:
            monitor.log({"a": 1})
        wait_until(lambda times=times: len(ends_of(server)) == times)
    assert len(server.runs()) == 1
    assert server.points(server.runs()[0], "explorer", "explorer/a") == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"project": "other"}, "project: .* has 'gsm8k', not 'other'"),
        ({"name": "other"}, "name: .* has '.*', not 'other'"),
        ({"monitor_type": "local", "monitor_args": {}}, r"monitor_type: .* has \['lines'\], not \['local'\]"),
    ],
)
def test_another_job_is_not_joined(make_config: MakeConfig, other: dict[str, object], message: str) -> None:
    with open_any(make_config(), "explorer"), pytest.raises(ConfigError, match=message):
        open_any(make_config(**other), "trainer")


def test_job_of_another_name_is_a_new_one(make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil) -> None:
    for times, name in enumerate(("one", "two"), 1):
        with open_any(make_config(name=name), "explorer") as monitor:
            monitor.log({"a": 1})
        wait_until(lambda times=times: len(ends_of(server)) == times)
    assert len(server.runs()) == 2


def test_who_comes_while_the_run_is_opened_waits(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that is merely starting is no warning."""
    server.fail("hang", "open")
    with ThreadPoolExecutor() as pool:
        opened = [pool.submit(open_any, make_config(), role) for role in ("explorer", "trainer")]
        # The one that launches has no journal before the run is open.
        wait_until(lambda: list(make_config().monitor_dir.glob("journal/[a-z]*")))
        server.fix("hang")
        monitors = [each.result() for each in opened]
    for monitor in monitors:
        monitor.log({"a": 1})
        monitor.close()
    assert "not available" not in caplog.text
    wait_until(lambda: ends_of(server) == ["finished"])


@pytest.mark.parametrize("slow", [False, True])
def test_launcher_that_leaves_while_another_joins(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """Its courier ends the run, as it saw no other role: the other process opens the run again, and ends it.

    So it does if the first courier takes until the other process has left.
    """
    first = open_any(make_config(), "explorer")
    first.log({"a": 1}, 1)
    join = launch._join

    def leave_and_join(*args: Any) -> Monitor:
        server.fail("hang", "end")
        first.close(timeout=0.1)
        wait_until((server.path / "hung").exists)
        return join(*args)

    monkeypatch.setattr(launch, "_join", leave_and_join)
    second = open_any(make_config(), "trainer")
    if not slow:
        server.fix("hang")
    second.log({"a": 2}, 2)
    second.close("failed", timeout=0.1)
    if slow:
        server.fix("hang")
    wait_until(lambda: ends_of(server) == ["finished", "failed"])
    (run,) = server.runs()
    assert server.points(run, "trainer", "trainer/a") == [(2, 2)]
    assert server.lines()[-1]["closed"] == "failed"
    assert server.lines()[-1]["primary"]


def test_launchers_courier_is_killed_after_it_left(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil
) -> None:
    """Nobody starts it again: the last one to leave opens the run once more, and ends it."""
    config = make_config(courier="process")
    first, last = open_any(config, "explorer"), open_any(config, "trainer")
    first.log({"a": 1}, 1)
    last.log({"a": 1}, 1)
    first.close("failed")
    session = newest(Layout(config.monitor_dir).delivery("lines", LAUNCH))
    owner = session.owner() if session else None
    assert owner is not None
    assert owner.is_running()
    os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: not owner.is_running())
    for step in range(2, 101):
        last.log({"a": step}, step)
    assert ends_of(server) == []
    last.close()
    wait_until(lambda: ends_of(server) == ["failed"])
    (run,) = server.runs()
    assert server.points(run, "explorer", "explorer/a") == [(1, 1)]
    assert server.points(run, "trainer", "trainer/a") == [(step, step) for step in range(1, 101)]


@pytest.fixture
def later_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one that torchrun started on its second node."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("GROUP_RANK", "1")


@pytest.mark.usefixtures("later_node")
def test_later_node_launches_no_job(make_config: MakeConfig) -> None:
    """It would be a second one, of the same name, in a directory that only this node has."""
    with pytest.raises(DirectoryError, match=r"but node 1 saw none here.* on a filesystem that all nodes share"):
        open_monitor(make_config(), "trainer", 2, primary="auto", open_timeout=0.2)
    open_any(make_config(), "evaluator").close()


@pytest.mark.processes
def test_processes_that_start_at_once(make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil) -> None:
    spawn = multiprocessing.get_context("spawn")
    config = make_config(courier="process")
    roles = [spawn.Process(target=explore_as_any, args=(config, rank)) for rank in range(3)]
    for role in roles:
        role.start()
    for role in roles:
        role.join()
    assert [role.exitcode for role in roles] == [0, 0, 0]
    wait_until(lambda: ends_of(server)[-1:] == ["finished"], 60.0)
    (run,) = server.runs()
    for rank in range(3):
        points = server.points(run, f"explorer/{rank}", f"explorer/{rank}/a")
        assert points == [(step, step) for step in range(1, 21)]
