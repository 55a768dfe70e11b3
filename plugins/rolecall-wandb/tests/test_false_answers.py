"""Servers and proxies whose answers are not true, or late.

What they drop is sent again, and is never reported as delivered; what they show late is not sent twice.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from wandb_core import carried_writers, courier_of, delivered_rows
from wandb_emulator import Fault
from wandb_scene import LogTimes, Scene

from rolecall import launch, open_monitor

HTML = "<html><body>We are back in a minute.</body></html>"
LONG = 12.0
LATE = 6.0

ANSWERS: dict[str, dict[str, Any]] = {
    "drops": {"drops": True},
    "page": {"body": HTML},
    "not found": {"answer": 404},
    "not found, page": {"answer": 404, "body": HTML},
    "too many": {"answer": 429},
    "null": {"body": "null"},
    "list": {"body": "[]"},
    "no data": {"body": '{"data": null}'},
    "list of data": {"body": '{"data": []}'},
    "list of projects": {"body": '{"data": {"project": []}}'},
    "list of runs": {"body": '{"data": {"project": {"run": [1]}, "viewer": []}}'},
    "lists in a run": {"body": '{"data": {"project": {"run": {"historyKeys": [], "historyLineCount": []}}}}'},
}
# What the SDK and what we ask for; a stream's answer is not read by the SDK.
CASES = [
    ("drops", "stream"),
    *((kind, operation) for kind in ANSWERS for operation in ("any", "query") if kind != "drops"),
    ("not found", "stream"),
    ("too many", "stream"),
    ("page", "upsert"),
    ("null", "upsert"),
]


class Check:
    """What rolecall says is delivered, against what the server holds, looked at again and again."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.worst = 0

    def look(self) -> bool:
        # First what is said, as the server may only get more meanwhile.
        said = delivered_rows(self.scene.config.monitor_dir, "trainer")
        self.worst = max(self.worst, said - self.scene.held("trainer"))
        return False


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "operation"), [pytest.param(*case, id="-".join(case)) for case in CASES])
def test_nothing_is_lost_and_nothing_claimed(scene: Scene, kind: str, operation: Any) -> None:
    check = Check(scene)
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_until(lambda: scene.held("trainer") > 0)
        fault = scene.server.faults.add(Fault(operation, **ANSWERS[kind]))
        began = time.monotonic()
        trainer.log(fresh=1.0)  # a new key is declared, so that there is an upsert: up to 30 s later (0.19.10, 0.24.2)
        trainer.log_until(lambda: check.look() or (fault.hits and time.monotonic() > began + LONG), 90.0)
        scene.server.faults.clear()
        cleared = time.monotonic()
        trainer.log_until(lambda: check.look() or time.monotonic() > cleared + 10.0)
    scene.wait(lambda: check.look() or not carried_writers(scene.config.monitor_dir), 200.0)
    assert check.worst == 0
    scene.check(in_order=False)
    assert scene.deliver().startswith("all rows are delivered")


@pytest.mark.servers
@pytest.mark.processes
def test_dropped_rows_are_sent_again_while_the_job_goes_on(scene: Scene) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_until(lambda: scene.held("trainer") > 0)
        dropped = scene.server.faults.add(Fault("stream", drops=True, times=2))
        trainer.log_until(lambda: len(dropped.hits) == 2)
        before = len(trainer.calls)
        scene.wait_for("trainer", before)
    scene.wait_for_end()
    scene.check(in_order=False)


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_lines_shown_late_are_not_doubled_by_a_new_courier(scene: Scene) -> None:
    scene.server.state.late = LATE
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_until(lambda: scene.held("trainer") > 0)
        courier = courier_of(scene.config.monitor_dir, "trainer")
        assert courier is not None
        os.kill(courier, signal.SIGKILL)
        trainer.log_for(2.0)
        monitor.close(timeout=120.0)
    scene.wait_for_end()
    scene.check(in_order=False)


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_lines_shown_late_are_not_doubled_after_a_drop(scene: Scene) -> None:
    scene.server.state.late = LATE
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_until(lambda: scene.held("trainer") > 0)
        dropped = scene.server.faults.add(Fault("stream", drops=True, times=1))
        trainer.log_until(lambda: dropped.hits)
        trainer.log_for(25.0)  # the SDK is ended meanwhile, which uploads the newest lines
        monitor.close(timeout=120.0)
    scene.wait_for_end(200.0)
    scene.check(in_order=False)
