"""A run that is looked at while it is written: each key has its axis, whoever joins, and however roles are started.

`pytest -s` shows how long keys waited for their axis, and the holes that joins made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wandb_core import carried_writers, logged_rows
from wandb_emulator import Policy, StoredRun, WandbServer
from wandb_job import DEBOUNCE, Poll, check_bound, check_rows, check_summary, report
from wandb_role import run_config_of

from rolecall import MonitorConfig, Row, launch

MakeConfig = Callable[..., MonitorConfig]
Role = subprocess.Popen[str]
Start = Callable[..., Role]
Wait = Callable[..., None]

CHILDREN = Path(__file__).parent / "support" / "wandb_children.py"
RUN = "live-run-1"
JOB = {"algorithm": "grpo", "seed": 42, "model": {"path": "models/one"}}
NAMED = {"name": "grpo-1", "group": "ablation", "tags": ["baseline", "gsm8k"]}
PACE = 0.3 if DEBOUNCE < 30 else 0.6
LONG = ("--steps", "200", "--metrics", "50", "--grow", "7", "--every", str(PACE))
SHORT = ("--steps", "60", "--metrics", "10", "--grow", "5", "--every", "0.25")
BRIEF = ("--steps", "40", "--metrics", "10", "--grow", "5", "--every", "0.2")
BOTH = pytest.mark.parametrize("policy", list(Policy))


@dataclass
class Live:
    """A job on a server that is polled, and the roles that were started."""

    server: WandbServer
    config: MonitorConfig
    start: Start
    wait: Wait
    roles: list[Role] = field(default_factory=list)

    @property
    def run(self) -> StoredRun:
        """The run; there is no other."""
        (run,) = self.server.runs.values()
        return run

    @property
    def rows(self) -> list[Row]:
        """What the journals hold."""
        return logged_rows(self.config.monitor_dir)

    def poll(self) -> Poll:
        """Look each second."""
        return Poll(self.server, RUN)

    def begin(self, config: MonitorConfig, writer: str, *options: str) -> Role:
        """Start a role."""
        self.roles.append(self.start(config, writer, *options))
        return self.roles[-1]

    def wait_for(self, writer: str, count: int) -> None:
        """Wait until the server holds as many rows of the writer."""
        self.wait(lambda: RUN in self.server.runs and len(self.run.rows(f"{writer}/step")) >= count)

    def end(self, *roles: Role) -> None:
        """Wait for roles to end by themselves; for all of them if none is given."""
        assert [role.wait() for role in roles or self.roles] == [0] * len(roles or self.roles)

    def see_the_end(self, poll: Poll) -> None:
        """Wait for the end, and for three polls behind it."""
        self.wait(lambda: self.run.state == "finished" and not carried_writers(self.config.monitor_dir), timeout=150.0)
        seen = len(poll.looks)
        self.wait(lambda: len(poll.looks) >= seen + 3)

    def check(self, poll: Poll, job: Mapping[str, Any]) -> None:
        """All that is promised of a finished run of a job with this config."""
        run, rows = self.run, self.rows
        report(run, rows, poll.looks)
        check_rows(run, rows)
        check_bound(run, rows, poll.looks, forgets=self.server.state.policy is Policy.REPLACE)
        check_summary(run, rows)
        assert run.state == "finished"
        assert {key: run.named.get(key) for key in NAMED} == NAMED
        roles = {writer: run_config_of(writer) for writer in {row.writer for row in rows}}
        own = {key: stored["value"] for key, stored in run.config.items() if key != "_wandb"}
        assert own == {**job, **roles}


@pytest.fixture
def live(server: WandbServer, make_config: MakeConfig, start_role: Start, wait_until: Wait) -> Live:
    config = make_config(run_id=RUN, group=NAMED["group"], monitor_args={"tags": NAMED["tags"]})
    return Live(server, config, start_role, wait_until)


def steps_of(rows: list[Row], writer: str) -> list[int]:
    return [row.step for row in rows if row.writer == writer]


@BOTH
@pytest.mark.servers
@pytest.mark.timeout(400)
def test_long_job_always_has_every_axis(live: Live) -> None:
    with live.poll() as poll, launch(live.config, run_config=JOB) as job:
        live.begin(job.config, "explorer/0", *LONG)
        live.wait_for("explorer/0", 15)
        live.begin(job.config, "explorer/1", *LONG)
        live.wait_for("explorer/0", 50)
        live.begin(job.config, "trainer", *LONG)
        live.end()
        job.close()
        live.see_the_end(poll)
    live.check(poll, JOB)
    for writer in ("explorer/0", "explorer/1", "trainer"):
        assert steps_of(live.rows, writer) == list(range(1, 201))


@BOTH
@pytest.mark.servers
def test_short_job_always_has_every_axis(live: Live) -> None:
    with live.poll() as poll, launch(live.config, run_config=JOB) as job:
        live.begin(job.config, "explorer/0", *SHORT)
        live.wait_for("explorer/0", 5)
        live.begin(job.config, "trainer", *SHORT)
        live.end()
        job.close()
        live.see_the_end(poll)
    live.check(poll, JOB)
    for writer in ("explorer/0", "trainer"):
        assert steps_of(live.rows, writer) == list(range(1, 61))


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.parametrize(
    ("method", "courier", "options"),
    [
        ("spawn", "process", []),
        ("fork", "process", ["--threads"]),
        ("spawn", "thread", ["--threads"]),
        ("fork", "thread", []),
    ],
)
def test_roles_of_launcher_that_uses_wandb(live: Live, method: str, courier: str, options: list[str]) -> None:
    config = live.config.model_copy(update={"courier": courier})
    with live.poll() as poll:
        launcher = subprocess.run(
            [sys.executable, str(CHILDREN), method, "explorer/0", "explorer/1", "trainer", *options],
            env={**os.environ, **config.to_env()},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        live.see_the_end(poll)
    live.check(poll, run_config_of("job"))
    services = dict(line.split(" has ") for line in launcher.stdout.splitlines() if " has " in line)
    assert services.pop("launcher") == services.pop("launcher at first")
    assert set(services) == {"explorer/0", "explorer/1", "trainer"}
    assert "None" not in services.values()
    for writer in services:
        assert steps_of(live.rows, writer) == list(range(1, 41))


@pytest.mark.servers
@pytest.mark.processes
def test_roles_before_and_with_the_primary(live: Live) -> None:
    with live.poll() as poll:
        early = live.begin(live.config, "explorer/0", *BRIEF)
        assert early.stdout is not None
        assert early.stdout.readline() == "start\n"  # and so looks for the job from here on
        primary = live.begin(live.config, "trainer", *BRIEF, "--primary")
        live.begin(live.config, "explorer/1", *BRIEF)
        live.end(primary)
        live.see_the_end(poll)
    live.end()
    live.check(poll, {})
    for writer in ("explorer/0", "explorer/1", "trainer"):
        assert steps_of(live.rows, writer) == list(range(1, 41))


@pytest.mark.servers
def test_role_after_another_was_killed(live: Live) -> None:
    with live.poll() as poll, launch(live.config, run_config=JOB) as job:
        killed = live.begin(job.config, "explorer/0", "--steps", "100000", "--every", "0.1", "--grow", "3")
        live.wait_for("explorer/0", 10)
        killed.kill()
        assert killed.wait() < 0
        late = live.begin(job.config, "trainer", *BRIEF)
        live.end(late)
        job.close()
        live.see_the_end(poll)
    live.check(poll, JOB)
    assert steps_of(live.rows, "trainer") == list(range(1, 41))
    assert len(steps_of(live.rows, "explorer/0")) >= 10
