"""A run of a role's own: what reaches the server through rolecall, beside what plain calls of the SDK send there."""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from wandb_beside import SAME, differences, make_repository, own_runs, run_plain, run_through_rolecall, view
from wandb_core import carried_writers, delivered_rows, logged_rows
from wandb_emulator import Fault, StoredRun, WandbServer, environment
from wandb_same import CONFIG, NAME, ROLE, SAID, TABLE

import rolecall_wandb.resumed
import rolecall_wandb.sdk
import rolecall_wandb.separate
import rolecall_wandb.service
from rolecall import MonitorConfig, launch, open_monitor

Make = Callable[..., MonitorConfig]
Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.processes


@dataclass(frozen=True, slots=True)
class Stated:
    """Places where a run through rolecall may differ from a plain one, and why."""

    places: str
    why: str
    couriers: tuple[str, ...] = ("process", "thread")
    fails: tuple[bool, ...] = (False, True)
    is_sure: bool = True


ENVIRONMENT = r"(config|files\|config\.yaml)\|_wandb\|value\|e\|0\||files\|wandb-metadata\.json\|"
"""Where the SDK describes the process: in newer versions in the config too."""

STATED = [
    Stated(r"upserts\|name", "the run's id is rolecall's, so that a restarted role finds it again"),
    Stated(
        r"(history\|\d+|summary|files\|wandb-summary\.json)\|_(timestamp|runtime)"
        r"|(summary|files\|wandb-summary\.json)\|_wandb\|runtime",
        "the clock",
    ),
    Stated(rf"({ENVIRONMENT})(startedAt|writerId|disk\|/\|used)", "the clock, the SDK's chance, the disk"),
    Stated(rf"({ENVIRONMENT})root", "the SDK's own files are below monitor_dir, in a directory for each writer"),
    Stated(
        r"(config|files\|config\.yaml)\|_wandb\|value\|t\|.*",
        "telemetry: the SDK counts that resume= and reinit= are used",
    ),
    Stated(
        rf"(history\|\d+|summary|files\|wandb-summary\.json)\|{re.escape(TABLE)}\|.*artifact_path",
        "the SDK's chance, in newer versions",
        is_sure=False,
    ),
    Stated(
        r"console(\|\d+)?|files\|output\.log(\|\d+)?|uploaded\|\d+",
        "no process can read what another one prints",
        couriers=("process",),
    ),
    Stated(
        r"console\|\d+|files\|output\.log\|\d+",
        "Python prints the traceback when the monitor, and with it the run, is closed",
        couriers=("thread",),
        fails=(True,),
    ),
]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """What the SDK leaves open is found here, where it is no error (0.19.10: its socket)."""
    yield
    gc.collect()


@pytest.fixture
def repository(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The role's working directory; the commit that it is at."""
    commit = make_repository(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return commit


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


def stored(server: WandbServer) -> StoredRun:
    (run,) = own_runs(server)
    return run


def point_at(server: WandbServer, directory: Path) -> None:
    os.environ.update(environment(server, directory))


@pytest.mark.parametrize(
    ("courier", "fails"),
    [
        pytest.param("process", False, marks=pytest.mark.servers),
        pytest.param("process", True, marks=pytest.mark.servers),
        pytest.param("thread", False, marks=pytest.mark.servers),
        ("thread", True),
    ],
)
def test_server_gets_what_plain_calls_send(  # noqa: PLR0913, PLR0917
    server: WandbServer,
    other_server: WandbServer,
    make_config: Make,
    repository: str,
    tmp_path: Path,
    courier: str,
    fails: bool,
) -> None:
    command = (*SAME, "--comment", "two words", *(["--fail"] if fails else []))
    point_at(other_server, tmp_path)
    plain = run_plain(*command)
    point_at(server, tmp_path)
    ours = run_through_rolecall(make_config(shared_run=False, courier=courier), *command)
    assert (ours.returncode, plain.returncode) == (fails, fails), ours.stderr + plain.stderr
    assert not server.state.unknown
    found = differences(view(stored(server)), view(stored(other_server)))
    stated = [entry for entry in STATED if courier in entry.couriers and fails in entry.fails]
    assert unexplained(found, stated) == {}
    sure = [entry for entry in stated if entry.is_sure]
    assert [entry.why for entry in sure if not any(re.fullmatch(entry.places, place) for place in found)] == []


def unexplained(found: dict[str, tuple[str, str]], stated: list[Stated]) -> dict[str, tuple[str, str]]:
    return {
        place: pair for place, pair in found.items() if not any(re.fullmatch(entry.places, place) for entry in stated)
    }


@pytest.mark.servers
def test_run_is_what_role_said(server: WandbServer, make_config: Make, repository: str, tmp_path: Path) -> None:
    """The plain calls could be wrong too: the same once more, against what was said."""
    config = make_config(shared_run=False)
    run_through_rolecall(config, *SAME, "--comment", "two words")
    run = stored(server)
    assert {key: run.config[key]["value"] for key in CONFIG} == CONFIG
    named = {key: run.named[key] for key in ("name", "group", "tags", "commit", "repo", "program")}
    assert named == {
        "name": f"{NAME}_{ROLE}",
        "group": NAME,
        "tags": [ROLE],
        "commit": repository,
        "repo": "https://git.example.org/team/trainer.git",
        "program": SAME[0],
    }
    assert json.loads(run.files["wandb-metadata.json"])["args"] == ["--comment", "two words"]
    assert steps(run) == sorted({said.step for said in SAID})
    last = {row.step: row.time for row in logged_rows(config.monitor_dir)}
    assert {entry.step: entry.line["_timestamp"] for entry in run.history} == last


def steps(run: StoredRun) -> list[int]:
    return [entry.step for entry in run.history]


@pytest.mark.servers
def test_tables_use_server_and_key_too(server: WandbServer, make_config: Make, repository: str) -> None:
    server.state.keys = {key := os.environ.pop("WANDB_API_KEY")}
    url = os.environ.pop("WANDB_BASE_URL")
    config = make_config(shared_run=False, monitor_args={"base_url": url, "api_key": key})
    finished = run_through_rolecall(config, *SAME)
    assert "not" not in finished.stderr
    assert steps(stored(server)) == sorted({said.step for said in SAID})
    assert len([name for name in stored(server).files if name.startswith("media/table/")]) == 2


@pytest.mark.servers
def test_restarted_role_continues_its_run(
    server: WandbServer, make_config: Make, start_role: Start, tmp_path: Path
) -> None:
    with launch(make_config(shared_run=False)) as job:
        for first in (1, 4):
            role = start_role(job.config, "explorer", "--first", str(first), "--steps", "5")
            role.communicate(timeout=60)
            assert role.returncode == 0
    run = stored(server)
    assert steps(run) == list(range(1, 9))
    assert [entry.line["group0/m0"] for entry in run.history] == [step / 1000 for step in range(1, 9)]
    assert run.state == "finished"
    assert len(run.exits) == 2
    assert rejected(tmp_path / "monitor/delivery/wandb/explorer/2.jsonl") == [4, 5]
    assert [row.step for row in logged_rows(tmp_path / "monitor")] == [*range(1, 6), *range(4, 9)]


def rejected(path: Path) -> list[int]:
    entries = [json.loads(line) for line in re.findall(r"\{.*\}", path.read_text())]
    return [entry["rejected"]["step"] for entry in entries if "rejected" in entry]


def test_rows_that_wandb_refuses_are_reported(
    server: WandbServer, make_config: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = make_config(shared_run=False, courier="thread")
    with launch(config) as job, open_monitor(job.config, "explorer") as monitor:
        for step in (5, 3, 6):
            monitor.log({"loss": float(step)}, step=step)
    assert steps(stored(server)) == [5, 6]
    messages = [text for text in caplog.messages if "no step below" in text]
    assert len(messages) == 1
    assert "wandb accepts no step below the last one" in messages[0]
    assert "explorer step 3" in messages[0]


@pytest.mark.servers
@pytest.mark.timeout(200)
def test_table_overtakes_no_dropped_rows(
    server: WandbServer, make_config: Make, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolecall_wandb.separate, "SETTLE", 8.0)
    monkeypatch.setattr(rolecall_wandb.resumed, "SETTLE", 2.0)
    # Without system metrics, each request of the stream has rows.
    config = make_config(shared_run=False, courier="thread", monitor_args={"settings": {"x_disable_stats": True}})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5}, step=1, commit=True)
        wait_until(lambda: any(run.history for run in own_runs(server)))
        dropped = server.faults.add(Fault("stream", drops=True, times=1))
        for step in range(2, 21):
            monitor.log({"loss": 0.5}, step=step, commit=True)
        wait_until(lambda: dropped.hits)
        monitor.log({"lr": 0.1}, step=21)
        monitor.log_table("samples", [{"prompt": "1+1"}], step=21)
        monitor.close(timeout=120.0)
    run = stored(server)
    assert steps(run) == [*range(1, 22)]
    assert {"lr", "samples"} <= run.history[-1].line.keys()


@pytest.mark.servers
def test_refused_end_is_sent_again(
    server: WandbServer,
    make_config: Make,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(rolecall_wandb.sdk, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.service, "END_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.separate, "SETTLE", 3.0)
    directory = tmp_path / "monitor"
    with launch(make_config(shared_run=False, courier="thread")) as job:
        with open_monitor(job.config, "explorer") as monitor:
            monitor.log({"loss": 0.5}, step=1, commit=True)
            wait_until(lambda: delivered_rows(directory, "explorer") == 1)
            refusal = server.faults.add(Fault("stream", answer=503, times=2))
        wait_until(lambda: "explorer" not in carried_writers(directory))
    assert len(refusal.hits) == 2
    assert steps(stored(server)) == [1]
    assert stored(server).state == "finished"


@pytest.mark.servers
@pytest.mark.parametrize(("group", "expected"), [(None, NAME), ("sweep", "sweep")])
def test_each_role_has_run_in_group(
    server: WandbServer, make_config: Make, start_role: Start, group: str | None, expected: str
) -> None:
    with launch(make_config(shared_run=False, group=group)) as job:
        started = [start_role(job.config, writer) for writer in ("explorer/0", "explorer/1", "trainer")]
        for role in started:
            role.communicate(timeout=60)
    found = {run.named["name"]: (run.named["group"], run.named["tags"]) for run in own_runs(server)}
    assert found == {
        "grpo-1_explorer_0": (expected, ["explorer"]),
        "grpo-1_explorer_1": (expected, ["explorer"]),
        "grpo-1_trainer": (expected, ["trainer"]),
    }
    assert {run.state for run in own_runs(server)} == {"finished"}
    assert {tuple(steps(run)) for run in own_runs(server)} == {tuple(range(1, 21))}


HEAVY = """
import sys
from rolecall import MonitorConfig, open_monitor
ballast = bytearray(b"1") * (400 << 20)
with open_monitor(MonitorConfig.from_env(), "trainer") as monitor:
    monitor.log({"loss": 0.5}, step=1)
    sys.stdin.readline()
"""


@pytest.mark.servers
def test_system_metrics_are_the_roles(server: WandbServer, make_config: Make, wait_until: Callable[..., None]) -> None:
    def resident() -> list[float]:
        return [
            event["system.proc.memory.rssMB"]
            for run in own_runs(server)
            for event in run.events
            if "system.proc.memory.rssMB" in event
        ]

    often = {"settings": {"x_stats_sampling_interval": 1.0}}
    with launch(make_config(shared_run=False, monitor_args=often)) as job:
        environ = {**os.environ, **job.config.to_env()}
        with subprocess.Popen([sys.executable, "-c", HEAVY], env=environ, stdin=subprocess.PIPE) as role:
            wait_until(resident)
            role.communicate(b"\n", timeout=60)
    assert min(resident()[:1]) > 400
