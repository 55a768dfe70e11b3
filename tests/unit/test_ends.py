"""How a job ends: what its launcher reports of the roles, and what `close` reports of undelivered rows."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall import BackendRefused, Job, Monitor, MonitorConfig, RolecallError, Undelivered, launch, open_monitor
from rolecall.job.beside import CourierProcess
from rolecall.job.history import read_history
from rolecall.store import acks
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Session, is_held, newest

MakeConfig = Callable[..., MonitorConfig]
LOCAL = {"monitor_type": "local", "monitor_args": {}}

ABANDON = """
import os, sys
from rolecall import MonitorConfig, open_monitor
monitor = open_monitor(MonitorConfig.from_env(), "trainer")
monitor.log({"loss": 1.0}, step=1)
os._exit(9)
"""


def states(job: Job) -> dict[str, str]:
    return {each.writer: str(each.state) for each in job.writers}


def test_launcher_knows_each_roles_end(make_config: MakeConfig) -> None:
    with launch(make_config(**LOCAL)) as job:
        open_monitor(job.config, "explorer", 0).close()
        open_monitor(job.config, "explorer", 1).close("failed")
        with open_monitor(job.config, "evaluator"):
            subprocess.run([sys.executable, "-c", ABANDON], env=job.config.to_env(), check=False)
            assert states(job) == {
                "explorer/0": "finished",
                "explorer/1": "failed",
                "evaluator": "running",
                "trainer": "killed",
            }


def test_roles_that_did_not_close(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """One was killed and one still runs: both are reported."""
    job = launch(make_config(**LOCAL))
    open_monitor(job.config, "explorer").close()
    subprocess.run([sys.executable, "-c", ABANDON], env=job.config.to_env(), check=False)
    with open_monitor(job.config, "evaluator"):
        job.close()
    (warning,) = [message for message in caplog.messages if "roles that did not close" in message]
    assert "trainer killed (process " in warning
    assert "evaluator running (process " in warning
    assert "explorer" not in warning


def test_close_waits_for_running_roles(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    job = launch(make_config(**LOCAL))
    monitor = open_monitor(job.config, "trainer")
    ending = threading.Thread(target=job.close, kwargs={"wait": 60.0})
    ending.start()
    assert ending.is_alive()
    monitor.log({"loss": 1.0}, step=1)
    monitor.close()
    ending.join(30.0)
    assert not ending.is_alive()
    assert states(job) == {"trainer": "finished"}
    assert not caplog.messages


def test_close_gives_up_waiting_in_time(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    job = launch(make_config(**LOCAL))
    with open_monitor(job.config, "trainer"):
        job.close(wait=0.3)
    assert "trainer running" in caplog.text


def test_undelivered_rows_of_several_backends(two: tuple[MakeConfig, list[LinesServer]]) -> None:
    """They are raised together."""
    make, servers = two
    job = launch(make(on_backend_error="raise"))
    monitor = open_monitor(job.config, "trainer")
    for server in servers:
        server.fail("down")
    monitor.log({"loss": 1.0}, step=1)
    with pytest.RaisesGroup(
        pytest.RaisesExc(Undelivered, match="1 rows not yet in lines"),
        pytest.RaisesExc(Undelivered, match="1 rows not yet in lines-again"),
    ):
        monitor.close(timeout=0.5)
    assert states(job) == {"trainer": "finished"}
    for server in servers:
        server.fix("down")
    job.close()
    assert [len(server.seqs("trainer")) for server in servers] == [1, 1]


def test_primarys_undelivered_rows_are_raised(two: tuple[MakeConfig, list[LinesServer]]) -> None:
    """After its job was closed too."""
    make, servers = two
    monitor: Monitor = open_monitor(make(on_backend_error="raise"), "trainer", primary=True)
    servers[1].fail("down")
    monitor.log({"loss": 1.0}, step=1)
    with pytest.raises(Undelivered, match="lines-again"):
        monitor.close(timeout=0.5)


def test_role_that_ends_meanwhile(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is looked at: it was not killed."""
    with launch(make_config(**LOCAL)) as job:
        monitor = open_monitor(job.config, "trainer")
        look = Session.status

        def end_behind_the_first_look(session: Session) -> str | None:
            found = look(session)
            monitor.close()
            return found

        monkeypatch.setattr(Session, "status", end_behind_the_first_look)
        assert states(job) == {"trainer": "finished"}
        assert [writer.state for writer in read_history(job.config.monitor_dir).writers] == ["finished"]


@pytest.mark.parametrize("shared", [True, False])
def test_run_is_told_when_it_ended(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], shared: bool
) -> None:
    """However late its courier ends it."""
    job = launch(make_config(shared_run=shared))
    monitor = open_monitor(job.config, "trainer")
    monitor.log({"loss": 1.0})
    server.fail("down")
    monitor.close(timeout=0.1)
    job.close(timeout=0.1)
    ended = {writer: time_of_end(job, writer) for writer in ("trainer", LAUNCH)}
    server.fix("down")
    owner = None if shared else "trainer"
    wait_until(lambda: [line for line in server.lines() if "closed" in line and line["by"] == owner])
    (told,) = [line["ended"] for line in server.lines() if "ended" in line and line["by"] == owner]
    assert told == ended[LAUNCH if shared else "trainer"]


def time_of_end(job: Job, writer: str) -> float | None:
    session = newest(Layout(job.config.monitor_dir).journal(writer))
    return session.last_time() if session else None


# ------------------------------------------------------------------ what waits, by the couriers' events alone


def forbid_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, this thread's looks at the acknowledgements fail, as they would hang on a frozen directory."""
    here = threading.current_thread()

    def guard(look: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **settings: object) -> object:
            assert threading.current_thread() is not here, "close looked at a file"
            return look(*args, **settings)

        return guarded

    for name in ("sessions", "newest", "last_line", "lines_from_end", "end_of_lines"):
        monkeypatch.setattr(f"rolecall.store.acks.{name}", guard(getattr(acks, name)))


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_close_tells_what_waits(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """Also with a hanging courier; rows that it had acknowledged do not wait."""
    caplog.set_level(logging.INFO, "rolecall")
    with launch(make_config()) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 1.0})
        wait_until(lambda: monitor._events.waiting("lines", 1) == 0)
        server.fail(fault, "log" if fault == "hang" else "")
        for _ in range(3):
            monitor.log({"loss": 0.5})
        with monkeypatch.context() as patch:
            forbid_looks(patch)
            monitor.close(timeout=0.3)
        assert "trainer: 3 rows not yet in lines. They are in the journal. To send them, run: " in caplog.text
        server.fix(fault)


def test_close_with_a_dead_courier(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its process was killed and cannot be started again: what it said last counts."""
    caplog.set_level(logging.INFO, "rolecall")
    with launch(make_config(courier="process")) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 1.0})
        wait_until(lambda: monitor._events.waiting("lines", 1) == 0)
        session = newest(Layout(job.config.monitor_dir).delivery("lines", "trainer"))
        assert session is not None
        owner = session.owner()
        assert owner is not None
        os.kill(owner.pid, signal.SIGKILL)
        monkeypatch.setattr(CourierProcess, "_start", refuse)
        for _ in range(3):
            monitor.log({"loss": 0.5})
        monitor.close(timeout=3)
        assert "trainer: 3 rows not yet in lines" in caplog.text
        assert "the courier's process ended with status -9 and is started again" in caplog.text
        assert "goes on trying" not in caplog.text


def refuse(process: CourierProcess) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_close_with_a_courier_that_was_killed_often(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """It comes back each time, says so once, and all rows are there."""
    with launch(make_config(courier="process")) as job, open_monitor(job.config, "trainer") as monitor:
        delivery = Layout(job.config.monitor_dir).delivery("lines", "trainer")
        killed: set[int] = set()
        for step in range(1, 6):
            monitor.log({"loss": 1.0}, step)
            wait_until(lambda: is_held(delivery) and owner_of(delivery) not in killed)
            killed.add(owner_of(delivery))
            os.kill(owner_of(delivery), signal.SIGKILL)
        monitor.log({"loss": 1.0}, 6)
    assert {seq for _, seq in server.seqs("trainer")} == set(range(1, 7))
    assert len(killed) == 5
    assert caplog.text.count("trainer: lines: the courier's process ended with status -9 and is started again") == 1
    assert "not yet in" not in caplog.text


def test_launchers_courier_that_was_killed_ends_the_run(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None]
) -> None:
    with launch(make_config(courier="process")) as job:
        delivery = Layout(job.config.monitor_dir).delivery("lines", LAUNCH)
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0}, 1)
            wait_until(lambda: is_held(delivery))
            killed = owner_of(delivery)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: is_held(delivery) and owner_of(delivery) != killed)
            monitor.log({"loss": 1.0}, 2)
    assert [line["closed"] for line in server.lines() if line.get("primary") and "closed" in line] == ["finished"]
    assert server.runs() == [job.run_id]
    assert {seq for _, seq in server.seqs("trainer")} == {1, 2}


def owner_of(delivery: Path) -> int:
    session = newest(delivery)
    owner = session.owner() if session else None
    assert owner is not None
    return owner.pid


def test_courier_that_dies_at_once_stops_no_job(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where memory runs out while an SDK is imported."""
    start = CourierProcess._start
    started: list[int] = []

    def kill_the_first(process: CourierProcess) -> Any:
        made = start(process)
        started.append(made.pid)
        if len(started) == 1:
            made.kill()
        return made

    monkeypatch.setattr(CourierProcess, "_start", kill_the_first)
    with launch(make_config(courier="process")) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    assert server.seqs("trainer") == [(1, 1)]
    assert "the courier's process ended with status -9 and is started again" in caplog.text


@pytest.mark.parametrize(
    ("executable", "words"),
    [
        (None, "cannot be started with None, logging to "),
        ("", "cannot be started with '', logging to "),
        ("/no/such/python", "cannot be started with '/no/such/python', logging to "),
        ("/bin/false", "the courier's process ended with status 1: it said nothing (see "),
    ],
)
def test_courier_that_cannot_start_is_an_error(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, executable: str | None, words: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(RolecallError, match=re.escape(words)):
        launch(make_config(courier="process"))


def test_courier_logs_to_no_link(make_config: MakeConfig, tmp_path: Path) -> None:
    """Somebody else may have put it there, to have a file of this user's written."""
    config = make_config(courier="process")
    (config.monitor_dir / "courier").mkdir(parents=True)
    (config.monitor_dir / "courier" / "@launch.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RolecallError, match=r"logging to .*@launch\.log: .*symbolic links"):
        launch(config)
    assert not (tmp_path / "elsewhere").exists()


def test_courier_without_our_packages_says_so(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are only where `sys.path` of the role leads."""
    venv.create(tmp_path / "venv")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(BackendRefused, match=r"ended with status 1: .*No module named 'rolecall'"):
        launch(make_config(courier="process"))


def test_close_with_a_silent_courier(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It never said anything: nobody knows whether rows wait, and the report says so."""
    caplog.set_level(logging.INFO, "rolecall")
    monkeypatch.setattr("rolecall.delivery.group.CourierGroup.run", lambda _: True)
    with launch(make_config(open_timeout=0.1)) as job:
        with open_monitor(job.config, "evaluator"):
            pass
        assert "not yet in" not in caplog.text, "nothing was logged"
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0})
        assert "trainer: some rows not yet in lines. They are in the journal. To send them, run: " in caplog.text


def test_close_counts_earlier_sessions(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 0.3)
    caplog.set_level(logging.INFO, "rolecall")
    with launch(make_config(open_timeout=5.0)) as job:
        server.fail("down")
        for rows in (2, 3):
            with open_monitor(job.config, "trainer") as monitor:
                for _ in range(rows):
                    monitor.log({"loss": 0.5})
        server.fix("down")
    messages = [message for message in caplog.messages if "not yet in lines" in message]
    assert [message.split(". ")[0] for message in messages] == [
        "trainer: 2 rows not yet in lines",
        "trainer: 5 rows not yet in lines",
    ]


def test_earlier_courier_holds_up_no_role(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    """A role that is started again trains at once; its rows follow those that the courier of the killed one sends."""
    with launch(make_config(open_timeout=3600.0)) as job:  # pytest's own limit is less
        layout = Layout(job.config.monitor_dir)
        earlier = acks.Acknowledgements(layout, "lines", "trainer")
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0})
            assert acks.undelivered(layout, "lines", "trainer") == 1
            earlier.release(None)
    assert acks.undelivered(layout, "lines", "trainer") == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
