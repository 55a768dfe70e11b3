"""The config, summary and tags of a run that is open, and runs whose id the user gave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stopped import children
from wandb_emulator import Policy, StoredRun, WandbServer
from wandb_offline import offline_runs, sync

import rolecall
from rolecall import BackendRefused, MonitorConfig, launch, open_monitor, resolve
from rolecall.__main__ import main
from rolecall.store.layout import Layout
from rolecall.store.lease import is_held, newest
from rolecall_wandb.args import WandbArgs

Make = Callable[..., MonitorConfig]
Wait = Callable[..., None]
Theirs = Callable[..., Callable[[int], None]]

THEIRS = Path(__file__).parent / "support/wandb_theirs.py"

pytestmark = pytest.mark.processes
POLICIES = pytest.mark.parametrize("policy", [Policy.REPLACE, pytest.param(Policy.MERGE, marks=pytest.mark.servers)])


def the_run(server: WandbServer) -> StoredRun:
    (run,) = server.runs.values()
    return run


def config_of(run: StoredRun) -> dict[str, Any]:
    return {key: value["value"] for key, value in run.config.items() if key != "_wandb"}


@pytest.fixture
def theirs(server: WandbServer) -> Iterator[Callable[..., Callable[[int], None]]]:
    """A run of another process; returns how to end it."""
    started: list[subprocess.Popen[str]] = []

    def make(run_id: str, mode: str = "online") -> Callable[[int], None]:
        command = [sys.executable, str(THEIRS), run_id, mode]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert any(line == "open\n" for line in process.stdout)

        def end(exit_code: int) -> None:
            process.communicate(f"{exit_code}\n", timeout=60)

        return end

    yield make
    for process in started:
        process.kill()
        process.communicate()


# ------------------------------------------------------------- an open run


@POLICIES
def test_separate_run_is_told(make_config: Make, server: WandbServer) -> None:
    config = make_config(shared_run=False, courier="thread", monitor_args={"tags": ["fixed"]})
    job = launch(config, run_config={"seed": 1})
    with job, open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.update_config({"lr": 0.05, "optim": {"name": "adam"}})
        monitor.summary.update(best=0.9, loss=0.25, note="ok", draft=1)
        del monitor.summary["draft"]
        monitor.tags.add("baseline")
        monitor.log({"loss": 2.0}, 2)
    run = the_run(server)
    assert config_of(run) == {"seed": 1, "lr": 0.05, "optim": {"name": "adam"}}
    assert (run.summary["best"], run.summary["note"]) == (0.9, "ok")
    assert run.summary["loss"] == 0.25, "what was set, and not the last row"
    assert run.named["tags"] == ["trainer", "fixed", "baseline"]
    assert len(run.history) == 2


@POLICIES
def test_shared_run_is_told(make_config: Make, server: WandbServer) -> None:
    """The configs of all writers, whose summaries do not meet; tags by the primary alone."""
    job = launch(make_config(courier="thread"), run_config={"seed": 1})
    with job, open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as trainer:
        with open_monitor(job.config, "explorer", 0) as explorer:
            explorer.update_config({"n": 8})
            trainer.update_config({"lr": 0.05})
            trainer.summary["best"] = 0.9
            explorer.summary["best"] = 0.5
            explorer.tags.add("b")
            trainer.log({"loss": 1.0}, 1)
        trainer.tags.add("a")
    run = the_run(server)
    assert config_of(run) == {"seed": 1, "trainer": {"lr": 0.05}, "explorer/0": {"n": 8}}
    assert (run.summary["trainer/best"], run.summary["explorer/0/best"]) == (0.9, 0.5)
    assert sorted(run.named["tags"]) == ["a", "b"]


@pytest.mark.servers
@pytest.mark.parametrize("shared", [False, True])
def test_killed_courier_tells_again(make_config: Make, server: WandbServer, wait_until: Wait, shared: bool) -> None:
    """With its SDK, which uploads nothing then, right after the changes were handed over."""
    with launch(make_config(shared_run=shared)) as job:
        monitor = open_monitor(job.config, "trainer")
        delivery = Layout(job.config.monitor_dir).delivery("wandb", "trainer")
        monitor.log({"loss": 1.0}, 1, commit=True)  # or wandb would keep the row, and all behind it, for its step
        wait_until(lambda: is_held(delivery) and monitor.urls)
        monitor.summary["best"] = 0.9
        monitor.update_config({"lr": 0.05})
        held = newest(delivery)
        assert held is not None
        owner = held.owner()
        assert owner is not None
        wait_until(lambda: monitor._events.waiting("wandb", 3) == 0)
        os.kill(owner.pid, signal.SIGKILL)
        monitor.close(timeout=60)
    run = the_run(server)
    config = config_of(run)
    assert run.summary["trainer/best" if shared else "best"] == 0.9
    assert (config["trainer"] if shared else config) == {"lr": 0.05}


def test_offline_run_is_told(make_config: Make, server: WandbServer, tmp_path: Path) -> None:
    config = make_config(shared_run=False, courier="thread", monitor_args={"mode": "offline"})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.update_config({"lr": 0.05})
        monitor.summary["best"] = 0.9
        monitor.tags.add("baseline")
    for directory in offline_runs(config.monitor_dir):
        sync(directory)
    run = the_run(server)
    assert config_of(run) == {"lr": 0.05}
    assert run.summary["best"] == 0.9
    assert run.named["tags"] == ["trainer", "baseline"]


# ------------------------------------------------------- an id of the user's


@pytest.mark.servers
def test_init_takes_an_id(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such run, so it is rolecall's: it names and ends it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "chosen-1")
    with rolecall.init("gsm8k", name="first", monitor_type="wandb", tags=["baseline"]) as monitor:
        monitor.log({"loss": 1.0})
    run = the_run(server)
    assert (run.id, run.named["name"], run.state) == ("chosen-1", "first", "finished")
    assert run.named["tags"] == ["main", "baseline"]


@POLICIES
@pytest.mark.parametrize(("ends", "state"), [(0, "finished"), pytest.param(1, "failed", marks=pytest.mark.servers)])
@pytest.mark.parametrize("shared", [pytest.param(False, marks=pytest.mark.servers), True])
def test_ended_run_stays_as_it_is(
    make_config: Make, server: WandbServer, theirs: Theirs, shared: bool, ends: int, state: str
) -> None:
    """Its name, notes, tags, config, and how it ended; rolecall only adds to it."""
    theirs("theirs-1")(ends)
    config = make_config(shared_run=shared, courier="thread", monitor_args={"run_id": "theirs-1"})
    if shared:
        with launch(config, run_config={"lr": 0.5, "new": 1}) as job, open_monitor(job.config, "main") as monitor:
            monitor.log({"loss": 1.0}, 7)
            monitor.tags.add("ours")
    else:
        with rolecall.init(
            "gsm8k", {"lr": 0.5, "new": 1}, monitor_type="wandb", monitor_args={"run_id": "theirs-1"}, tags=["ours"]
        ) as monitor:
            monitor.log({"loss": 1.0}, 7)
    run = the_run(server)
    assert (run.named["name"], run.named["notes"], run.state) == ("mine", "theirs", state)
    assert config_of(run).items() >= {"lr": 0.1, "owner": "me", "new": 1}.items()
    assert set(run.named["tags"]) == {"theirs", "ours"} | (set() if shared else {"main"})
    assert {key for line in run.history for key in line.line if not key.startswith("_")} >= {
        "old",
        "main/loss" if shared else "loss",
    }
    assert run.summary["old"] == 1.0


@pytest.mark.parametrize("shared", [False, True])
def test_live_run_is_refused(make_config: Make, server: WandbServer, theirs: Theirs, shared: bool) -> None:
    end = theirs("theirs-1")
    arguments = {"run_id": "theirs-1"}
    shared_config = make_config(courier="thread", monitor_args=arguments)

    def begin() -> object:
        if shared:
            return launch(shared_config)
        return rolecall.init("gsm8k", monitor_type="wandb", monitor_args=arguments)

    with pytest.raises(BackendRefused, match="the run theirs-1 is live, and another process writes it"):
        begin()
    end(0)
    assert the_run(server).state == "finished"


@POLICIES
def test_live_shared_run_is_joined(make_config: Make, server: WandbServer, theirs: Theirs) -> None:
    """Who made it ends it."""
    end = theirs("theirs-1", "shared")
    config = make_config(courier="thread", monitor_args={"run_id": "theirs-1"})
    with launch(config, run_config={"lr": 0.5}) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 7)
    run = the_run(server)
    assert run.state == "running"
    assert run.named["name"] == "mine"
    assert [line["trainer/loss"] for line in run.rows("trainer/loss")] == [1.0]
    end(0)
    assert config_of(the_run(server)).items() >= {"lr": 0.1, "owner": "me"}.items()


@pytest.mark.servers
def test_attached_run_is_verified(
    theirs: Theirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What others logged into it is no difference."""
    monkeypatch.chdir(tmp_path)
    theirs("theirs-1")(0)
    arguments = {"run_id": "theirs-1"}
    with rolecall.init("gsm8k", monitor_type="wandb", monitor_args=arguments, monitor_dir=tmp_path / "job") as monitor:
        monitor.log({"loss": 1.0}, 7)
    assert main(["verify", str(tmp_path / "job")]) == 0, capsys.readouterr().out


def test_separate_runs_do_not_attach(make_config: Make, server: WandbServer) -> None:
    plan = resolve(make_config(shared_run=False, monitor_args={"run_id": "theirs-1"}))
    assert [downgrade.setting for downgrade in plan.downgrades] == ["run_id"]


# ------------------------------------------------------------ the environment


def test_arguments_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    assert (WandbArgs().run_id, WandbArgs().tags) == ("abc", ("a", "b"))
    given = WandbArgs(run_id=None, tags=("c",))
    assert (given.run_id, given.tags) == (None, ("c",))


@pytest.mark.parametrize(("group", "expected"), [(None, "sweep-7"), ("mine", "mine")])
def test_group_of_the_environment(
    make_config: Make, server: WandbServer, monkeypatch: pytest.MonkeyPatch, group: str | None, expected: str
) -> None:
    """A group that the config names counts more."""
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep-7")
    monkeypatch.setenv("WANDB_NOTES", "a note")
    monkeypatch.setenv("WANDB_JOB_TYPE", "train")
    config = make_config(shared_run=False, courier="thread", group=group)
    with launch(config) as job, open_monitor(job.config, "explorer", 0) as monitor:
        monitor.log({"loss": 1.0}, 1)
    named = the_run(server).named
    assert (named["group"], named["notes"], named["job_type"]) == (expected, "a note", "train")


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("3", "3")])
def test_service_uses_one_core(
    make_config: Make, server: WandbServer, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    """Unless the user has said how many. The user's own process is as it was."""
    monkeypatch.delenv("GOMAXPROCS", raising=False)
    if given is not None:
        monkeypatch.setenv("GOMAXPROCS", given)
    with launch(make_config(courier="thread")):
        (service,) = [child for child in children() if b"wandb-core" in Path(f"/proc/{child}/cmdline").read_bytes()]
        assert f"GOMAXPROCS={expected}" in Path(f"/proc/{service}/environ").read_text().split("\0")
        assert os.environ.get("GOMAXPROCS") == given
