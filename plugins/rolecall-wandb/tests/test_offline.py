"""Jobs without a server: offline, to be uploaded later, and disabled; and what a job leaves as it was."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wandb_core import logged_rows
from wandb_emulator import WandbServer
from wandb_offline import offline_runs, sync

from rolecall import BackendRefused, Job, MonitorConfig, launch, open_monitor
from rolecall.store.acks import rejections, undelivered
from rolecall.store.layout import Layout

Make = Callable[..., MonitorConfig]
Start = Callable[..., "subprocess.Popen[str]"]
Say = Callable[[Path], dict[str, Any]]

STEPS = list(range(1, 21))
FOLDER = "backends/wandb"


def by_argument(place: Path) -> dict[str, Any]:
    return {"mode": "offline"}


def by_environment(place: Path) -> dict[str, Any]:
    os.environ["WANDB_MODE"] = "offline"
    return {}


def by_a_settings_file(place: Path) -> dict[str, Any]:
    (place / "wandb").mkdir()
    (place / "wandb/settings").write_text("[default]\nmode = offline\n")
    return {}


def run_roles(config: MonitorConfig, start_role: Start, *writers: str) -> Job:
    with launch(config) as job:
        started = [start_role(job.config, writer) for writer in writers]
        for role in started:
            role.communicate(timeout=90)
            assert role.returncode == 0
    return job


def steps(server: WandbServer) -> dict[str, list[int]]:
    return {run.named["name"]: [entry.step for entry in run.history] for run in server.runs.values()}


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.parametrize(
    "say",
    [by_argument, *(pytest.param(say, marks=pytest.mark.servers) for say in (by_environment, by_a_settings_file))],
)
def test_offline_runs_are_uploaded_whole(
    server: WandbServer, make_config: Make, start_role: Start, tmp_path: Path, say: Say
) -> None:
    config = make_config(monitor_args=say(Path.cwd()))
    job = run_roles(config, start_role, "explorer/0", "trainer")
    (downgrade,) = job.plan.downgrades
    assert "wandb is offline" in downgrade.reason
    assert not server.runs
    found = offline_runs(config.monitor_dir / FOLDER)
    written = [path.relative_to(config.monitor_dir / FOLDER).parts[0] for path in found]
    assert written == ["explorer@0", "trainer"]
    for path in found:
        sync(path)
    assert steps(server) == {"grpo-1_explorer_0": STEPS, "grpo-1_trainer": STEPS}
    assert {run.named["group"] for run in server.runs.values()} == {"grpo-1"}
    for run in server.runs.values():
        assert [entry.line["group1/m1"] for entry in run.history] == [1 + step / 1000 for step in STEPS]


@pytest.mark.processes
@pytest.mark.parametrize("by", ["argument", pytest.param("environment", marks=pytest.mark.servers)])
def test_disabled_job_is_in_journal_alone(server: WandbServer, make_config: Make, start_role: Start, by: str) -> None:
    if by == "environment":
        os.environ["WANDB_MODE"] = "disabled"
    config = make_config(monitor_args={"mode": "disabled"} if by == "argument" else {})
    job = run_roles(config, start_role, "trainer")
    assert "wandb is disabled" in job.plan.downgrades[0].reason
    assert not server.runs
    assert not (config.monitor_dir / FOLDER).exists()
    assert not (Path.cwd() / "wandb").exists()
    assert [row.step for row in logged_rows(config.monitor_dir)] == STEPS
    command = [sys.executable, "-m", "rolecall", "show", str(config.monitor_dir), "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (writer,) = json.loads(shown)["writers"]
    assert (writer["writer"], writer["rows"]) == ("trainer", 20)


@pytest.mark.processes
@pytest.mark.parametrize("shared", [True, False])
def test_without_key_job_does_not_start(server: WandbServer, make_config: Make, shared: bool) -> None:
    del os.environ["WANDB_API_KEY"]
    with pytest.raises(BackendRefused, match=r"WANDB_API_KEY.*wandb login"):
        launch(make_config(shared_run=shared))
    assert not server.runs


@pytest.mark.servers
@pytest.mark.parametrize("by", ["argument", pytest.param("environment", marks=pytest.mark.servers)])
def test_sdks_files_are_where_user_says(
    server: WandbServer, make_config: Make, start_role: Start, tmp_path: Path, by: str
) -> None:
    args: dict[str, Any] = {"mode": "offline"}
    if by == "argument":
        args["dir"] = tmp_path / "sdk"
    else:
        os.environ["WANDB_DIR"] = str(tmp_path / "sdk")
    config = make_config(monitor_args=args)
    run_roles(config, start_role, "explorer/0", "explorer/1")
    assert [path.parent.parent.name for path in offline_runs(tmp_path / "sdk")] == ["explorer@0", "explorer@1"]
    assert not (config.monitor_dir / FOLDER).exists()


BESIDE = """
import json, os, sys
import wandb
from rolecall import MonitorConfig, launch, open_monitor

own = wandb.init(project="own", name="own") if "own" in sys.argv else None
before = dict(os.environ)
with launch(MonitorConfig.from_env()) as job, open_monitor(job.config, "trainer") as monitor:
    for step in range(1, 6):
        monitor.log({"loss": 1 / step}, step=step)
        if own is not None:
            own.log({"mine": step})
    monitor.log_table("samples", (["a", "b"], [[1, "x"]]), 5)
    assert wandb.run is own, wandb.run
assert wandb.run is own, wandb.run
after = dict(os.environ)
if own is not None:
    own.log({"mine": 6, "table": wandb.Table(columns=["a"], data=[[1]])})
    own.finish()
print(json.dumps(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))))
"""

CHANGED: list[str] = []
"""What a job on threads changes in the environment of the user's process: nothing."""


def run_beside(config: MonitorConfig, *words: str) -> list[str]:
    """Run the user's program; the names of the variables that the job changed."""
    finished = subprocess.run(
        [sys.executable, "-c", BESIDE, *words],
        env={**os.environ, **config.to_env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    changed: list[str] = json.loads(finished.stdout.splitlines()[-1])
    return changed


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.servers)])
def test_job_on_threads_leaves_environment(server: WandbServer, make_config: Make, shared: bool) -> None:
    key = os.environ.pop("WANDB_API_KEY")
    server.state.keys = {key}
    os.environ["WANDB_RUN_ID"] = "somebodys"
    os.environ["WANDB_SERVICE"] = "3-1-tcp-localhost-1"
    # The SDK must not take the id from the environment either if the job does not.
    config = make_config(shared_run=shared, courier="thread", monitor_args={"api_key": key, "run_id": None})
    assert run_beside(config) == CHANGED
    assert "somebodys" not in server.runs


@pytest.mark.servers
@pytest.mark.parametrize("shared", [True, False])
def test_users_own_run_is_not_disturbed(server: WandbServer, make_config: Make, shared: bool) -> None:
    assert run_beside(make_config(shared_run=shared, courier="thread"), "own") == CHANGED
    (own,) = [run for run in server.runs.values() if run.project == "own"]
    assert [entry.line["mine"] for entry in own.history] == [1, 2, 3, 4, 5, 6]
    assert (own.state, own.is_shared) == ("finished", False)
    (ours,) = [run for run in server.runs.values() if run.project == "gsm8k"]
    assert ours.state == "finished"
    losses = "trainer/loss" if shared else "loss"
    assert [entry.line[losses] for entry in ours.history if losses in entry.line] == [1 / step for step in range(1, 6)]


LONG = "eval/a data set with a long name, " * 6


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.parametrize(
    ("mode", "shared"),
    [("offline", False), *(pytest.param("online", shared, marks=pytest.mark.servers) for shared in (False, True))],
)
def test_tables_with_long_names(server: WandbServer, make_config: Make, mode: str, shared: bool) -> None:
    """The SDK takes 128 characters: each goes under a name of its own, and holds up no row."""
    config = make_config(monitor_args={"mode": mode}, shared_run=shared)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step, name in enumerate((f"{LONG}1", f"{LONG}2", "short"), start=1):
            monitor.log_table(name, (["prompt"], [[name]]), step)
        monitor.log({"loss": 0.5}, 4)
    assert undelivered(Layout(config.monitor_dir), "wandb", "trainer") == 0
    assert rejections(Layout(config.monitor_dir), "wandb", "trainer") == set()
    for path in offline_runs(config.monitor_dir / FOLDER):
        sync(path)
    (run,) = [run for run in server.runs.values() if run.upserts]  # others have files of artifacts
    tables = [key for entry in run.history for key, value in entry.line.items() if isinstance(value, dict)]
    assert len(set(tables)) == 3
    assert [key for key in tables if key.endswith("short")]
    assert run.history[-1].line["trainer/loss" if shared else "loss"] == 0.5


@pytest.mark.processes
def test_table_without_a_home(server: WandbServer, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on batch nodes, whose home directories cannot be written: the SDK stages tables there."""
    for name, value in (("HOME", "/proc/no-home"), ("XDG_DATA_HOME", "/proc/no-home/data")):
        monkeypatch.setenv(name, value)
    config = make_config(monitor_args={"mode": "offline"}, shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log_table("samples", (["prompt"], [["1+1"]]), 1)
        monitor.log({"loss": 0.5}, 2)
    assert undelivered(Layout(config.monitor_dir), "wandb", "trainer") == 0
    assert rejections(Layout(config.monitor_dir), "wandb", "trainer") == set()
