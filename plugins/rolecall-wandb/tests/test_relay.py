"""One process writes the one run of all roles: a plain run, online and offline, through deaths and outages."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from wandb_core import courier_of
from wandb_emulator import Policy, WandbServer
from wandb_offline import offline_runs, sync
from wandb_scene import RUN, Role, Scene

from rolecall import Image, MonitorConfig, Table, launch, open_monitor
from rolecall.__main__ import main

pytestmark = pytest.mark.processes

Make = Callable[..., MonitorConfig]
Start = Callable[..., Role]
WRITERS = ("explorer/0", "explorer/1", "explorer/2", "trainer")
LAUNCHER = "@launch"
STEPS = list(range(1, 21))


@pytest.fixture
def relayed(scene: Scene, make_config: Make) -> Scene:
    scene.config = make_config(run_id=RUN, shared_run="relay")
    return scene


def start_all(scene: Scene, config: MonitorConfig, *options: str) -> list[Role]:
    return [scene.start(config, writer, *options) for writer in WRITERS]


def require_ended(roles: list[Role]) -> None:
    for role in roles:
        role.communicate(timeout=120)
        assert role.returncode == 0


def kill_relay(scene: Scene, killed: int | None = None) -> int:
    """Kill the relay once there is another one than the last that was killed."""
    found: list[int] = []

    def is_there() -> bool:
        pid = courier_of(scene.config.monitor_dir, LAUNCHER)
        found[:] = [pid] if pid not in {None, killed} else []
        return bool(found)

    scene.wait(is_there)
    os.kill(found[0], signal.SIGKILL)
    return found[0]


@pytest.mark.parametrize("policy", [Policy.REPLACE, pytest.param(Policy.MERGE, marks=pytest.mark.servers)])
def test_one_run_of_a_launcher_and_four_roles(relayed: Scene, server: WandbServer) -> None:
    with launch(relayed.config, {"seed": 1}) as job:
        require_ended(start_all(relayed, job.config))
    relayed.wait_for_end()
    relayed.check()
    assert list(server.runs) == [RUN]
    assert not relayed.run.is_shared
    for writer in WRITERS:
        assert [line[f"{writer}/step"] for line in relayed.run.rows(f"{writer}/step")] == STEPS
    # The lines have numbers of their own, which grow by one.
    assert [entry.step for entry in relayed.run.history] == list(range(len(relayed.run.history)))
    config = {key: entry["value"] for key, entry in relayed.run.config.items() if key != "_wandb"}
    assert config == {"seed": 1, **{writer: {"lr": len(writer)} for writer in WRITERS}}


@pytest.mark.servers
def test_rows_come_once_though_the_relay_dies(relayed: Scene) -> None:
    with launch(relayed.config) as job:
        roles = start_all(relayed, job.config, "--steps", "120", "--every", "0.1")
        relayed.wait_for("trainer", 5)
        killed = kill_relay(relayed)
        relayed.wait_for("trainer", 40)
        kill_relay(relayed, killed)
        require_ended(roles)
        job.close(timeout=120.0)
    relayed.wait_for_end()
    assert {(each.lost, each.doubled) for each in relayed.tallies().values()} == {(0, 0)}
    relayed.check_bindings()
    assert relayed.run.state == "finished"


def test_tables_and_images_of_a_relayed_role(relayed: Scene) -> None:
    with launch(relayed.config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"samples": Table([{"prompt": "2+2"}]), "shot": Image([[[0, 0, 0]]]), "loss": 1.0}, step=1)
        monitor.summary["best"] = 0.5
    relayed.wait_for_end()
    keys = {key for entry in relayed.run.history for key in entry.line}
    assert {"trainer/samples", "trainer/shot", "trainer/loss"} <= keys
    assert relayed.run.summary["trainer/best"] == 0.5


@pytest.mark.servers
def test_delivered_later_verified_and_repaired(relayed: Scene) -> None:
    """No relay was there; later, lines of each role are deleted on the server."""
    config, directory = relayed.config, str(relayed.config.monitor_dir)
    with launch(config.model_copy(update={"courier": "none"})) as job:
        require_ended(start_all(relayed, job.config))
    assert main(["verify", directory]) == 1
    assert main(["deliver", directory]) == 0
    relayed.wait_for_end()
    relayed.check()
    assert main(["verify", directory]) == 0
    relayed.run.forget(range(10, 50))
    assert main(["verify", directory]) == 1
    assert main(["verify", directory, "--repair"]) == 0
    assert main(["verify", directory]) == 0
    assert {(each.lost, each.doubled) for each in relayed.tallies().values()} == {(0, 0)}
    assert relayed.run.state == "finished"


@pytest.mark.servers
def test_offline_run_of_all_roles(server: WandbServer, make_config: Make, start_role: Start) -> None:
    config = make_config(run_id=RUN, shared_run="relay", monitor_args={"mode": "offline"})
    with launch(config) as job:
        assert job.plan.downgrades == ()
        require_ended([start_role(job.config, writer) for writer in WRITERS])
    (found,) = offline_runs(config.monitor_dir / "backends/wandb")
    assert not server.runs
    sync(Path(found))
    run = server.run(RUN)
    for writer in WRITERS:
        lines = [entry.line for entry in run.history if f"{writer}/step" in entry.line]
        assert [line[f"{writer}/step"] for line in lines] == STEPS
        assert [line[f"{writer}/group1/m1"] for line in lines] == [1 + step / 1000 for step in STEPS]
        assert not {other for other in WRITERS if other != writer for line in lines if f"{other}/step" in line}
    bound = server.bindings(RUN)
    assert {bound[f"{writer}/group1/m1"] for writer in WRITERS} == {f"{writer}/step" for writer in WRITERS}
