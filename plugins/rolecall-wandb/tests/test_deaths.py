"""Roles, couriers and launchers that are killed or that fail: what they logged is in the run, and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_emulator import Fault
from wandb_scene import ENDS_LATE, RUN, Role, Scene, kill_with_children, services_of

from rolecall import MonitorConfig, launch, open_monitor

LAUNCHER = Path(__file__).parent / "support" / "wandb_launcher.py"
ENDLESS = ("--steps", "100000", "--every", "0.05", "--grow", "10")
BRIEF = ("--steps", "30", "--every", "0.05", "--grow", "10")
LATER = ("--first", "200001", *BRIEF)
"""A later session of a writer whose first one was ENDLESS."""


def kill(role: Role) -> None:
    role.kill()
    role.wait()


def end(role: Role) -> None:
    """Let a role that waits for its input go, and see it end well."""
    role.communicate("\n")
    assert role.returncode == 0


@pytest.mark.servers
@pytest.mark.processes
def test_killed_roles_rows_arrive(scene: Scene) -> None:
    with launch(scene.config) as job:
        survivor = scene.start(job.config, "trainer", "--every", "0.05", "--steps", "100", "--then", "wait")
        killed = scene.start(job.config, "explorer/0", *ENDLESS)
        scene.wait_for("explorer/0", 20)
        kill(killed)
        scene.wait_for_all()
        first = scene.tallies()["explorer/0"].logged
        next_one = scene.start(job.config, "explorer/0", *LATER)
        assert next_one.wait() == 0
        end(survivor)
    scene.wait_for_end()
    scene.check()
    assert scene.tallies()["explorer/0"].logged == first + 30
    assert scene.tallies()["trainer"].logged == 100


@pytest.mark.servers
def test_next_session_delivers_dead_couriers_rows(scene: Scene) -> None:
    with launch(scene.config) as job:
        killed = scene.start(job.config, "explorer/0", *ENDLESS)
        scene.wait_for("explorer/0", 100)
        kill_with_children(killed)
        missing = scene.tallies()["explorer/0"].lost
        assert scene.start(job.config, "explorer/0", *LATER).wait() == 0
    scene.wait_for_end()
    print(f"missing after the death: {missing}")
    scene.check()


def left_by_a_dead_courier(scene: Scene) -> int:
    """A job that is over but for some rows; how many."""
    with launch(scene.config) as job:
        killed = scene.start(job.config, "explorer/0", *ENDLESS)
        scene.wait_for("explorer/0", 100)
        scene.wait(lambda: scene.tallies()["explorer/0"].lost > 30)
        kill_with_children(killed)
    scene.wait_for_end()
    return scene.tallies()["explorer/0"].lost


@pytest.mark.servers
def test_deliver_sends_a_dead_couriers_rows(scene: Scene) -> None:
    missing = left_by_a_dead_courier(scene)
    print(f"missing after the death: {missing}")
    assert missing > 30
    scene.deliver()
    scene.check()


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_deliver_ends_though_server_takes_nothing(scene: Scene) -> None:
    """The SDK by itself would have its process wait until it gives up, for hours; nor does it send a row later."""
    left_by_a_dead_courier(scene)
    refusal = scene.server.faults.add(Fault("stream", answer=503))
    command = [sys.executable, "-m", "rolecall", "deliver", str(scene.config.monitor_dir), "--timeout", "10"]
    with subprocess.Popen(command) as deliver:
        # 0.19 does part of `finish` in a pool of threads, for which the interpreter waits: until the service is killed
        assert deliver.wait(120.0 if ENDS_LATE else 60.0) == 1
    assert refusal.hits
    scene.wait(lambda: not list(services_of(deliver.pid)))
    scene.server.faults.clear()
    scene.deliver()
    scene.check()


@pytest.fixture
def first_launcher(scene: Scene) -> Iterator[Role]:
    launcher = subprocess.Popen(
        [sys.executable, str(LAUNCHER)],
        env={**os.environ, **scene.config.to_env()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield launcher
    launcher.kill()
    launcher.communicate()


@pytest.mark.servers
def test_killed_launchers_successor_continues_its_run(scene: Scene, first_launcher: Role) -> None:
    assert first_launcher.stdout is not None
    config = MonitorConfig.from_env(json.loads(first_launcher.stdout.readline()))
    survivor = scene.start(config, "explorer/0", "--every", "0.1", "--steps", "150", "--grow", "10")
    scene.wait_for("explorer/0", 10)
    kill_with_children(first_launcher)
    with launch(scene.config.model_copy(update={"run_id": None})) as job:
        assert job.run_id == RUN
        assert scene.start(job.config, "trainer", *BRIEF).wait() == 0
        assert survivor.wait() == 0
    scene.wait_for_end()
    scene.check()
    assert list(scene.server.runs) == [RUN]
    assert scene.tallies()["explorer/0"].logged == 150


def fail_as_a_launcher(scene: Scene) -> None:
    with launch(scene.config) as job:
        assert scene.start(job.config, "trainer", *BRIEF).wait() == 0
        raise RuntimeError("out of memory")


@pytest.mark.servers
@pytest.mark.processes
def test_failed_launcher_ends_run_as_failed(scene: Scene) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        fail_as_a_launcher(scene)
    scene.wait_for_end()
    scene.check(state="failed")
    assert [code for _, _, code in scene.run.exits] == [1]


def fail_as_a_role(config: MonitorConfig) -> None:
    with open_monitor(config, "explorer", 0) as monitor:
        monitor.log({"reward": 0.5}, 1)
        raise RuntimeError("out of memory")


@pytest.mark.servers
def test_failed_role_does_not_end_run(scene: Scene) -> None:
    with launch(scene.config) as job:
        with pytest.raises(RuntimeError, match="out of memory"):
            fail_as_a_role(job.config)
        assert scene.held("explorer/0") == 1
        assert (scene.run.state, scene.run.exits) == ("running", [])
        assert scene.start(job.config, "trainer", *BRIEF).wait() == 0
        assert (scene.run.state, scene.run.exits) == ("running", [])
    scene.wait_for_end()
    scene.check()
    assert [code for _, _, code in scene.run.exits] == [0]
    last_line = max(entry.time for entry in scene.run.history)
    assert scene.run.exits[0][0] >= last_line
