"""How a job ends: what its launcher is told of the roles, and what is said when backends lack rows."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from lines_server import LinesServer

from rolecall import Job, Monitor, MonitorConfig, Undelivered, launch, open_monitor
from rolecall.job.history import read_history
from rolecall.store.lease import Session

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
    """One was killed and one still runs: both are told."""
    job = launch(make_config(**LOCAL))
    open_monitor(job.config, "explorer").close()
    subprocess.run([sys.executable, "-c", ABANDON], env=job.config.to_env(), check=False)
    with open_monitor(job.config, "evaluator"):
        job.close()
    (told,) = [message for message in caplog.messages if "roles that did not close" in message]
    assert "trainer killed (process " in told
    assert "evaluator running (process " in told
    assert "explorer" not in told


def test_close_waits_for_running_roles(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
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
        server.mend("down")
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
