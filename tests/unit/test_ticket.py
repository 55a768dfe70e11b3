"""The times of a ticket: when the job was launched, and when the writers of a run ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from rolecall import Job, MonitorConfig, RunTicket, launch, open_monitor
from rolecall.delivery.group import make_ticket
from rolecall.store.layout import LAUNCH

MakeConfig = Callable[..., MonitorConfig]
ABANDON = """
import os
from rolecall import MonitorConfig, open_monitor
monitor = open_monitor(MonitorConfig.from_env(), "trainer")
monitor.log({"loss": 1.0})
os._exit(9)
"""


@pytest.fixture
def config(make_config: MakeConfig) -> MonitorConfig:
    return make_config(monitor_type="local", monitor_args={})


def ticket(job: Job, writer: str = LAUNCH, *, shared: bool = True) -> RunTicket:
    return make_ticket(job.config.spec(), writer, "lines", shared=shared)


def line(job: Job, writer: str, number: int, session: int = 1) -> dict[str, Any]:
    path = job.config.monitor_dir / "journal" / writer / f"{session}.jsonl"
    found: dict[str, Any] = json.loads(path.read_text().splitlines()[number])
    return found


def test_running_job_has_no_end(config: MonitorConfig) -> None:
    with launch(config) as job:
        open_monitor(job.config, "explorer").close()
        assert ticket(job).ended is None
        assert ticket(job, "explorer").ended is None
        assert ticket(job, "explorer", shared=False).ended == line(job, "explorer", -1)["time"]
        monitor = open_monitor(job.config, "trainer")
    assert ticket(job).ended is None, "a role still runs"
    assert ticket(job, "trainer", shared=False).ended is None
    monitor.close()
    assert ticket(job).ended == line(job, "trainer", -1)["time"]


@pytest.mark.parametrize("copied", [False, True])
def test_end_is_the_jobs_own(config: MonitorConfig, copied: bool) -> None:
    """Not the time of a file, which a copy of the directory changes."""
    with launch(config) as job:
        open_monitor(job.config, "trainer").close()
    if copied:
        for path in list(config.monitor_dir.rglob("*.jsonl")):
            os.utime(path, (time.time() + 1000,) * 2)
    assert line(job, "@launch", -1)["end"] == "finished"
    assert ticket(job).ended == line(job, "@launch", -1)["time"]
    assert ticket(job, "trainer").ended == line(job, "@launch", -1)["time"]
    assert ticket(job, "trainer", shared=False).ended == line(job, "trainer", -1)["time"]


def test_dead_role_ended_with_its_last_row(config: MonitorConfig) -> None:
    with launch(config) as job:
        subprocess.run([sys.executable, "-c", ABANDON], env=job.config.to_env(), check=False)
    row = line(job, "trainer", -1)
    assert row["data"] == {"loss": 1.0}
    assert ticket(job, "trainer", shared=False).ended == row["time"]


def test_job_that_goes_on_began_first(make_config: MakeConfig) -> None:
    config = make_config(monitor_type="local", monitor_args={}, resume="allow")
    launch(config).close()
    with launch(config) as job:
        open_monitor(job.config, "trainer").close()
    assert line(job, "@launch", 0, session=2)["opened"] > line(job, "@launch", 0)["opened"]
    assert ticket(job).created == line(job, "@launch", 0)["opened"]
    assert ticket(job).ended == line(job, "@launch", -1, session=2)["time"]


def test_missing_journals_give_no_times(config: MonitorConfig) -> None:
    with launch(config) as job:
        open_monitor(job.config, "trainer").close()
    shutil.rmtree(config.monitor_dir / "journal")
    assert (ticket(job).created, ticket(job).ended) == (0.0, None)
