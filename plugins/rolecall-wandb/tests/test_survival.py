"""Roles, couriers and launchers that are killed, and a server that goes away: nothing is lost, all stays bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version
from wandb_emulator import Fault, Policy, StoredRun, WandbServer

from rolecall import Job, MonitorConfig, launch
from rolecall.deliver import deliver
from rolecall.delivery import undelivered
from rolecall.layout import Layout

pytestmark = pytest.mark.processes

Start = Callable[..., "subprocess.Popen[str]"]
WaitUntil = Callable[..., None]
IS_OLD = Version(version("wandb")) < Version("0.19.11")
"""It tells progress up to 30 s later than it sends rows: what a kill leaves unconfirmed comes twice."""

LAUNCHER = """
import sys, time
from rolecall import MonitorConfig, launch
config = MonitorConfig(project="gsm8k", name="grpo-1", monitor_type="wandb", shared_run=True, monitor_dir=sys.argv[1])
job = launch(config, run_config={"seed": 1})
for name, value in job.config.to_env().items():
    print(name, value, flush=True)
print("open", flush=True)
time.sleep(600)
"""


def couriers_of(pid: int) -> list[int]:
    """The processes that carry for this one."""
    told = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in told.split()]


def kill_all(process: subprocess.Popen[str]) -> None:
    """The process and its courier; the SDK's own process ends with that."""
    found = couriers_of(process.pid)
    for pid in (process.pid, *found):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_for(process: subprocess.Popen[str], line: str) -> list[str]:
    """What a process says up to this line."""
    said: list[str] = []
    assert process.stdout is not None
    for text in process.stdout:
        said.append(text.strip())
        if said[-1] == line:
            return said
    raise AssertionError(f"it ended before it said {line!r}: {said[-3:]}")


def steps(run: StoredRun, writer: str) -> Counter[int]:
    """How often the server holds each step of a writer."""
    return Counter(line[f"{writer}/step"] for line in run.rows(f"{writer}/step"))


def check(server: WandbServer, job: Job, rows: dict[str, int], doubled: Sequence[str] = ()) -> None:
    """One finished run that holds each row of each writer, once, with every key bound."""
    assert job.run_id is not None
    assert list(server.runs) == [job.run_id]
    run = server.run(job.run_id)
    for writer, count in rows.items():
        held = steps(run, writer)
        assert sorted(held) == list(range(1, count + 1))
        assert writer in doubled or set(held.values()) == {1}
    keys = {key for one in run.history for key in one.line if not key.startswith("_")}
    wanted = {key: axis for key in keys for axis in [axis_of(key, rows)] if key != axis}
    assert {key: axis for key, axis in run.bindings().items() if key in wanted} == wanted
    assert (run.state, len(run.exits)) == ("finished", 1)
    assert {*rows, "seed"} <= run.config.keys()


def axis_of(key: str, writers: dict[str, int]) -> str:
    return next(f"{writer}/step" for writer in writers if key.startswith(f"{writer}/"))


def test_a_killed_role(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start
) -> None:
    with launch(make_config(), run_config={"seed": 1}) as job:
        trainer = start_role(job.config, "trainer", "--every", "0.1", "--steps", "200", "--grow", "10")
        explorer = start_role(job.config, "explorer/0", "--every", "0.1", "--steps", "80", "--grow", "10")
        wait_for(trainer, "logged 30")
        trainer.kill()
        logged = (
            29
            + len([line for line in trainer.communicate()[0].splitlines() if line.startswith("logged")])
            + 1
        )
        again = start_role(job.config, "trainer", "--first", str(logged + 1), "--steps", "10", "--grow", "10")
        assert (again.wait(), explorer.wait()) == (0, 0)
    check(server, job, {"trainer": logged + 10, "explorer/0": 80})


def test_a_role_killed_with_its_courier(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start, wait_until: WaitUntil
) -> None:
    with launch(make_config(), run_config={"seed": 1}) as job:
        trainer = start_role(job.config, "trainer", "--every", "0.1", "--steps", "200", "--grow", "10")
        explorer = start_role(job.config, "explorer/0", "--every", "0.1", "--steps", "110", "--grow", "10")
        wait_for(trainer, "logged 60")
        os.kill(trainer.pid, signal.SIGSTOP)  # or it would go on between the last line and the kill
        kill_all(trainer)
        logged = undelivered_or_held(server, job, "trainer")
        assert logged >= 60
        again = start_role(job.config, "trainer", "--first", str(logged + 1), "--steps", "20", "--grow", "10")
        assert (again.wait(), explorer.wait()) == (0, 0)
    check(server, job, {"trainer": logged + 20, "explorer/0": 110}, ["trainer"] if IS_OLD else [])


def undelivered_or_held(server: WandbServer, job: Job, writer: str) -> int:
    """How many rows the journal holds."""
    journal = job.config.monitor_dir / "journal" / writer.replace("/", "@")
    return sum(text.count('"s":') for text in (path.read_text() for path in journal.glob("*.jsonl")))


def test_what_a_killed_courier_left_is_delivered_by_hand(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start
) -> None:
    with launch(make_config(), run_config={"seed": 1}) as job:
        trainer = start_role(job.config, "trainer", "--steps", "50", "--then", "wait")
        wait_for(trainer, "logged 50")
        kill_all(trainer)
    layout = Layout(job.config.monitor_dir)
    assert undelivered(layout, "wandb", "trainer") > 0
    assert deliver(job.config.monitor_dir, None, {}, lambda _writer, _news: None, timeout=90.0) == []
    assert job.run_id is not None
    assert sorted(steps(server.run(job.run_id), "trainer")) == list(range(1, 51))
    assert undelivered(layout, "wandb", "trainer") == 0


def test_a_killed_launcher_that_is_started_again(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start, tmp_path: Path
) -> None:
    config = make_config()
    command = [sys.executable, "-c", LAUNCHER, str(config.monitor_dir)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = dict(line.split(" ", 1) for line in wait_for(first, "open") if " " in line)
    explorer = start_role(
        MonitorConfig.from_env(said), "explorer/0", "--every", "0.1", "--steps", "150", "--grow", "10"
    )
    wait_for(explorer, "logged 20")
    kill_all(first)
    if first.stdout is not None:
        first.stdout.close()
    with launch(config, run_config={"seed": 1}) as job:
        trainer = start_role(job.config, "trainer", "--every", "0.1", "--steps", "40", "--grow", "10")
        assert (trainer.wait(), explorer.wait()) == (0, 0)
    check(server, job, {"trainer": 40, "explorer/0": 150})


@pytest.mark.timeout(240)
@pytest.mark.parametrize("policy", list(Policy))
def test_a_server_that_is_gone_for_20_s(
    server: WandbServer,
    make_config: Callable[..., MonitorConfig],
    start_role: Start,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with launch(make_config(), run_config={"seed": 1}) as job:
        writers = ("trainer", "explorer/0")
        roles = [
            start_role(job.config, one, "--every", "0.2", "--steps", "200", "--grow", "10") for one in writers
        ]
        wait_for(roles[0], "logged 30")
        server.stop()
        wait_for(roles[0], "logged 130")
        server.restart()
        assert [role.wait() for role in roles] == [0, 0]
        job.close(timeout=90.0)
    check(server, job, {"trainer": 200, "explorer/0": 200})
    told = [record.getMessage() for record in caplog.records if "not available" in record.getMessage()]
    assert len(told) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("stream", loses=True, times=2),
        Fault("upsert", loses=True, times=2),
        Fault("stream", answer=500, times=3),
        Fault("upsert", answer=409, times=3),
        Fault("upsert", answer=500, times=2),
        Fault("stream", delay=3.0, times=3),
    ],
    ids=lambda fault: f"{fault.operation}-{fault.answer or ('lost' if fault.loses else 'slow')}",
)
def test_a_server_that_stumbles(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start, fault: Fault
) -> None:
    with launch(make_config(), run_config={"seed": 1}) as job:
        writers = ("trainer", "explorer/0")
        server.faults.add(fault)
        roles = [
            start_role(job.config, one, "--every", "0.1", "--steps", "60", "--grow", "10") for one in writers
        ]
        assert [role.wait() for role in roles] == [0, 0]
        job.close(timeout=60.0)
    assert len(fault.hits) == fault.times
    check(server, job, {"trainer": 60, "explorer/0": 60})


def test_rows_that_the_server_refused_are_not_delivered(
    server: WandbServer, make_config: Callable[..., MonitorConfig], start_role: Start
) -> None:
    """The SDK's stream is dead after one 403, and its `finish()` reports success."""
    with launch(make_config(), run_config={"seed": 1}) as job:
        trainer = start_role(job.config, "trainer", "--steps", "20", "--then", "wait")
        wait_for(trainer, "logged 20")
        refusal = server.faults.add(Fault("stream", answer=403, times=2))
        trainer.communicate("\n")
        assert trainer.returncode == 0
        job.close(timeout=60.0)
    assert refusal.hits
    check(server, job, {"trainer": 20})
