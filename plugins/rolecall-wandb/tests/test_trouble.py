"""A server that is away, slow, or refuses: nothing is lost or doubled, and nobody waits for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import wandb
from wandb_core import shorten_drain
from wandb_emulator import Fault, Policy, StoredRun
from wandb_scene import LogTimes, Scene

import rolecall_wandb.sdk
import rolecall_wandb.service
import rolecall_wandb.shared
import rolecall_wandb.watch
from rolecall import launch, open_monitor

BRIEF = ("--steps", "40", "--every", "0.1", "--grow", "10")
LONGEST_LOG = 0.25
BOTH = pytest.mark.parametrize("policy", list(Policy))


@contextmanager
def trainer_of(scene: Scene, **settings: Any) -> Iterator[LogTimes]:
    """A job with one role, both in this process."""
    config = scene.config.model_copy(update=settings)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        times = LogTimes(monitor)
        yield times
        print(f"{len(times.calls)} rows, longest log {max(times.calls, default=0.0) * 1000:.1f} ms")


def outages(caplog: pytest.LogCaptureFixture, writer: str) -> list[str]:
    """`not` for each report that the server is away, `again` for each that it is back; the launcher has no name."""
    news = [record.getMessage() for record in caplog.records if record.name == "rolecall"]
    prefix = f"{writer}: wandb: " if writer else "wandb: "
    own = [line.removeprefix(prefix) for line in news if line.startswith(prefix)]
    return [line.split()[0 if line.startswith("not") else 1] for line in own if "available" in line[:16]]


@BOTH
@pytest.mark.servers
@pytest.mark.timeout(300)
def test_server_away_for_twenty_seconds(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rolecall")
    with trainer_of(scene) as trainer:
        other = scene.start(scene.config, "explorer/0", "--steps", "500", "--every", "0.1", "--grow", "20")
        trainer.log_until(lambda: min(scene.held("trainer"), scene.held("explorer/0")) >= 20)
        scene.server.stop()
        trainer.log(during=1.0)
        trainer.log_for(20.0)
        scene.server.restart()
        trainer.log(after=1.0)
        trainer.log_until(lambda: "again" in outages(caplog, "trainer"), 90.0)
        assert other.wait() == 0
    scene.wait_for_end()
    scene.check()
    assert outages(caplog, "trainer") == ["not", "again"]
    assert outages(caplog, "") == ["not", "again"]
    assert max(trainer.calls) < LONGEST_LOG


def refuse_stream(scene: Scene, client: str | None, answer: int = 403) -> Fault:
    """The SDK's stream of this client is dead for good once it has been refused with 403; after 503 it tries on."""
    return scene.server.faults.add(Fault("stream", answer=answer, client=client))


@pytest.mark.servers
@pytest.mark.processes
def test_refused_rows_are_resent_at_end(scene: Scene) -> None:
    with trainer_of(scene) as trainer:
        trainer.log_until(lambda: scene.held("trainer") > 0)
        refused = refuse_stream(scene, scene.run.history[0].client)
        trainer.log_until(lambda: refused.hits)
        trainer.log_for(1.0)
        held = scene.held("trainer")
        assert held < len(trainer.calls)
    scene.wait_for_end()
    scene.check()


@pytest.mark.servers
@pytest.mark.parametrize("answer", [403, 503])
def test_refused_rows_are_resent_while_running(scene: Scene, monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    """The SDK's service ends with the first, and has to be killed with the other."""
    monkeypatch.setattr(rolecall_wandb.sdk, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.service, "END_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.watch, "STALL", 8.0)
    monkeypatch.setattr(rolecall_wandb.watch, "LOOK_EVERY", 1.0)
    with trainer_of(scene, courier="thread") as trainer:
        trainer.log_until(lambda: scene.held("trainer") > 0)
        refused = refuse_stream(scene, scene.run.history[0].client, answer)
        trainer.log_until(lambda: refused.hits)
        logged = len(trainer.calls)
        trainer.log_until(lambda: scene.held("trainer") > logged)
    scene.wait_for_end()
    scene.check()


@pytest.mark.servers
@pytest.mark.timeout(200)
def test_stream_ends_despite_a_slow_server(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """33 MB, of which a run that ends sends 10 to 20: lost rows go in pieces that it can send."""
    monkeypatch.setattr(rolecall_wandb.sdk, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.sdk, "GRACE", 1.0)
    monkeypatch.setattr(rolecall_wandb.service, "END_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.watch, "SETTLE", 2.0)
    monkeypatch.setattr(rolecall_wandb.shared, "SETTLE", 2.0)
    # as long as a run may take to end
    slow = scene.server.faults.add(Fault("stream", delay=1.0))
    wide = {f"m{at}/{'key' * 70}": 0.5 for at in range(100)}
    caplog.set_level(logging.INFO, "rolecall")
    with trainer_of(scene, courier="thread") as trainer:
        for _ in range(1500):
            trainer.log(**wide)
    scene.wait_for_end()
    assert len(slow.hits) > 5
    scene.check(may_double=True)
    assert outages(caplog, "trainer") == ["not", "again"]


@pytest.mark.servers
def test_run_ends_though_stream_was_refused(scene: Scene) -> None:
    with trainer_of(scene) as trainer:
        refused = refuse_stream(scene, scene.run.upserts[0].client)
        trainer.log_until(lambda: refused.hits)
        trainer.log_until(lambda: scene.held("trainer") > 0)
    scene.wait_for_end()
    scene.check()


@pytest.mark.servers
def test_deliver_sends_rows_refused_until_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_drain(monkeypatch, 5.0)
    with trainer_of(scene, courier="thread") as trainer:
        trainer.log_until(lambda: scene.held("trainer") > 0)
        refused = refuse_stream(scene, None)
        trainer.log_until(lambda: refused.hits)
        trainer.log_for(1.0)
    scene.wait_for_end()
    assert scene.tallies()["trainer"].lost
    scene.server.faults.clear()
    scene.deliver()
    scene.check()


MISBEHAVIOURS: dict[str, Callable[[], list[Fault]]] = {
    "500": lambda: [Fault("upsert", answer=500, times=3), Fault("stream", answer=500, times=3)],
    "409": lambda: [Fault("upsert", answer=409, times=6)],
    "lost-stream": lambda: [Fault("stream", loses=True, times=4)],
    "lost-upsert": lambda: [Fault("upsert", loses=True, times=4)],
    "slow": lambda: [Fault("any", delay=3.0, times=25)],
}


@BOTH
@pytest.mark.parametrize("kind", MISBEHAVIOURS)
@pytest.mark.servers
@pytest.mark.timeout(300)
def test_several_roles_join_a_misbehaving_server(scene: Scene, kind: str) -> None:
    with launch(scene.config) as job:
        faults = [scene.server.faults.add(fault) for fault in MISBEHAVIOURS[kind]()]
        roles = [scene.start(job.config, name, *BRIEF) for name in ("explorer/0", "explorer/1", "trainer")]
        assert [role.wait() for role in roles] == [0, 0, 0]
    scene.wait_for_end(200.0)
    assert [len(fault.hits) for fault in faults] == [fault.times for fault in faults]
    scene.check()
    assert {entry.logged for entry in scene.tallies().values()} == {40}


TABLE = [{"prompt": "1+1", "score": 0.5}, {"prompt": "2+2", "score": 1.0}]


def check_table(run: StoredRun, step: int) -> None:
    (line,) = run.rows("trainer/samples")
    table = line["trainer/samples"]
    assert (line["trainer/step"], table["_type"]) == (step, "table-file")
    assert table["path"].startswith("media/table/")
    content = json.loads(run.files[table["path"]])
    assert (content["columns"], content["data"]) == (["prompt", "score"], [["1+1", 0.5], ["2+2", 1.0]])


@pytest.mark.servers
@pytest.mark.processes
def test_table_is_file_and_its_line(scene: Scene) -> None:
    with trainer_of(scene) as trainer:
        trainer.log()
        trainer.monitor.log_table("samples", TABLE, 1000)
        trainer.log()
    scene.wait_for_end()
    scene.check()
    check_table(scene.run, 1000)


@pytest.mark.servers
@pytest.mark.processes
def test_refused_table_costs_its_row_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK meets it when its line ends, with rows that came before and after it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no room for tables")

    monkeypatch.setattr(wandb.Table, "bind_to_run", refuse)
    config = scene.config.model_copy(update={"courier": "thread"})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5}, 1)
        monitor.log_table("samples", TABLE, 1)
        monitor.log({"lr": 0.1}, 1)
        monitor.log({"loss": 0.25}, 2)
        monitor.close(timeout=120.0)
    lines = [{key: value for key, value in entry.line.items() if key[0] != "_"} for entry in scene.run.history]
    assert lines == [
        {"trainer/loss": 0.5, "trainer/step": 1},
        {"trainer/lr": 0.1, "trainer/step": 1},
        {"trainer/loss": 0.25, "trainer/step": 2},
    ]
    assert "wandb did not accept a table in 3 tries" in caplog.text
    assert "no room for tables" in caplog.text


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_table_logged_while_server_is_away(scene: Scene) -> None:
    with trainer_of(scene) as trainer:
        trainer.log_until(lambda: scene.held("trainer") > 0)
        scene.server.stop()
        trainer.monitor.log_table("samples", TABLE, 1000)
        trainer.log_for(10.0)
        scene.server.restart()
        scene.wait_for_all(120.0)
    scene.wait_for_end()
    scene.check()
    check_table(scene.run, 1000)
