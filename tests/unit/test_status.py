"""The status of each role and each backend: how it ended, how much it holds, what waits and why."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall import MonitorConfig, WriterState, launch, open_monitor
from rolecall.__main__ import main
from rolecall.config.commands import command
from rolecall.job.beside import CourierProcess
from rolecall.job.status import DeliveryStatus, read_deliveries, read_writers, unended, wait_for_writers
from rolecall.states import State, Status
from rolecall.store.layout import Layout, read_record
from rolecall.store.lease import newest

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]


def delivery(root: Path) -> DeliveryStatus:
    layout = Layout(root)
    record = read_record(layout)
    assert record is not None
    (found,) = read_deliveries(layout, record.plan)
    return found


def test_rows_that_wait_and_why(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 1.0)
    config = make_config()
    with launch(config) as job:
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0}, 1)
            wait_until(lambda: delivery(config.monitor_dir).delivered == 1)
            assert delivery(config.monitor_dir).courier is State.RUNNING
            server.fail("down")
            monitor.log({"loss": 0.5}, 2)
            monitor.log({"loss": 0.25}, 3)
            wait_until(lambda: delivery(config.monitor_dir).why)
        left = delivery(config.monitor_dir)
        assert (left.delivered, left.waiting, left.rejected, left.courier) == (1, 2, 0, State.UNFINISHED)
        assert left.why == "the server is down"
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", str(config.monitor_dir)]) == 0
    assert "the server is down" in capsys.readouterr().out


def test_delivered_rows_wait_for_nothing(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        server.fail("down")
        monitor.log({"loss": 1.0}, 1)
        wait_until(lambda: delivery(config.monitor_dir).why)
        server.fix("down")
    done = delivery(config.monitor_dir)
    assert (done.delivered, done.waiting, done.courier, done.why) == (1, 0, State.FINISHED, None)
    assert done.run is not None


def test_rejected_rows_are_counted_apart(make_config: MakeConfig, server: LinesServer) -> None:
    server.fail("picky", "[2]")
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2, 3):
            monitor.log({"loss": 1.0}, step)
    done = delivery(config.monitor_dir)
    assert (done.delivered, done.waiting, done.rejected) == (2, 0, 1)


def test_missing_rows_are_counted_apart(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    """Those that the journal has lost before the backend had them."""
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        wait_until(lambda: delivery(config.monitor_dir).delivered == 1)
        server.fail("down")
        monitor.log({"loss": 0.5}, 2)
        wait_until(lambda: delivery(config.monitor_dir).why)
        path = config.monitor_dir / "journal" / "trainer" / "1.jsonl"
        os.truncate(path, len(b"".join(path.read_bytes().splitlines(keepends=True)[:2])))
        server.fix("down")
        monitor.log({"loss": 0.25}, 3)
    done = delivery(config.monitor_dir)
    assert (done.delivered, done.waiting, done.missing) == (2, 0, 1)
    assert done.missing == 1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("status", ["failed", "killed"])
def test_courier_of_role_that_did_not_finish(make_config: MakeConfig, shared: bool, status: Status) -> None:
    """It has sent all rows, so it has finished, and so has the run."""
    config = make_config(shared_run=shared)
    with launch(config) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 1.0})
        monitor.close(status)
    assert read_writers(Layout(config.monitor_dir))[0].state == status
    assert (delivery(config.monitor_dir).delivered, delivery(config.monitor_dir).courier) == (1, State.FINISHED)
    assert unended_in(config.monitor_dir) == []


def unended_in(root: Path) -> list[str]:
    layout = Layout(root)
    record = read_record(layout)
    assert record is not None
    return unended(layout, record.plan)


@pytest.mark.parametrize("shared", [True, False])
def test_killed_couriers_run_has_not_ended(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared: bool,
) -> None:
    """With all rows delivered; `show` says so, until `deliver` ends it."""
    config = make_config(shared_run=shared, courier="process")
    job = launch(config)
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0})
        wait_until(lambda: delivery(config.monitor_dir).delivered == 1)
        assert unended_in(config.monitor_dir) == []
        monkeypatch.setattr(CourierProcess, "_start", refuse)
        kill_courier(config, "@launch" if shared else "trainer")
        monitor.close("finished", 0.1)
    job.close(timeout=0.1)
    wait_until(lambda: delivery(config.monitor_dir).courier is (State.FINISHED if shared else State.KILLED))
    says = f"lines: the run has not ended; to end it: {command('deliver', config.monitor_dir)}"
    assert main(["show", str(config.monitor_dir)]) == 0
    assert says in capsys.readouterr().out.splitlines()
    assert main(["deliver", str(config.monitor_dir)]) == 0
    capsys.readouterr()
    assert main(["show", str(config.monitor_dir)]) == 0
    assert "the run has not ended" not in capsys.readouterr().out
    assert [line["closed"] for line in server.lines() if line.get("primary") and "closed" in line] == ["finished"]


def refuse(process: CourierProcess) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def kill_courier(config: MonitorConfig, writer: str) -> None:
    session = newest(Layout(config.monitor_dir).delivery("lines", writer))
    owner = session.owner() if session else None
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)


def test_json_tells_it_too(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    capsys.readouterr()
    assert main(["show", str(config.monitor_dir), "--json"]) == 0
    (backend,) = json.loads(capsys.readouterr().out)["backends"]
    expected: dict[str, Any] = {
        "backend": "lines",
        "writer": "trainer",
        "delivered": 1,
        "waiting": 0,
        "rejected": 0,
        "missing": 0,
        "courier": "finished",
    }
    assert {key: backend[key] for key in expected} == expected


def test_local_job_has_no_backends(make_config: MakeConfig) -> None:
    config = make_config(monitor_type="local", monitor_args={})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    record = read_record(Layout(config.monitor_dir))
    assert record is not None
    assert read_deliveries(Layout(config.monitor_dir), record.plan) == []


def test_writers_state_in_words() -> None:
    """A running role is shown with how long it has been silent."""
    running = WriterState("trainer", State.RUNNING, 61.0, "process 7 on node3")
    assert str(running) == "trainer running (process 7 on node3, silent for 61 s)"
    killed = WriterState("trainer", State.KILLED, 61.0, "process 7 on node3")
    assert str(killed) == "trainer killed (process 7 on node3)"


def test_directory_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a network filesystem whose server is frozen."""
    gate = threading.Event()

    def look(_: Layout) -> list[WriterState]:
        gate.wait()
        return []

    monkeypatch.setattr("rolecall.timings.DIRECTORY_TIMEOUT", 0.05)
    monkeypatch.setattr("rolecall.job.status.read_writers", look)
    assert wait_for_writers(Layout(tmp_path), 0.0) == []
    gate.set()


def test_directory_that_answers_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is asked again."""
    found = [WriterState("trainer", State.KILLED, 61.0, "process 7 on node3")]
    looks = []

    def look(layout: Layout) -> list[WriterState]:
        looks.append(layout)
        if len(looks) == 1:
            raise OSError
        return found

    monkeypatch.setattr("rolecall.job.status.read_writers", look)
    assert wait_for_writers(Layout(tmp_path), 30.0) == found
