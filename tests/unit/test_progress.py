"""What is told of each backend: how much it holds, what waits and why."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

import rolecall.delivery.group
from rolecall import MonitorConfig, launch, open_monitor
from rolecall.cli.show import show_json
from rolecall.cli.view.screen import show
from rolecall.job.progress import Progress, read_progress
from rolecall.store.layout import Layout
from rolecall.store.manifest import read_record

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]


def progress(root: Path) -> Progress:
    layout = Layout(root)
    record = read_record(layout)
    assert record is not None
    (found,) = read_progress(layout, record.plan)
    return found


def test_rows_that_wait_and_why(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rolecall.crew, "DRAIN", 1.0)
    config = make_config()
    with launch(config) as job:
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0}, 1)
            wait_until(lambda: progress(config.monitor_dir).delivered == 1)
            assert progress(config.monitor_dir).courier == "at work"
            server.fail("down")
            monitor.log({"loss": 0.5}, 2)
            monitor.log({"loss": 0.25}, 3)
            wait_until(lambda: progress(config.monitor_dir).why)
        left = progress(config.monitor_dir)
        assert (left.delivered, left.waiting, left.rejected, left.courier) == (1, 2, 0, "left rows")
        assert left.why == "the server is down"
    show(config.monitor_dir)
    assert "left rows" in capsys.readouterr().out


def test_rows_that_came_through_wait_for_nothing(
    make_config: MakeConfig, server: LinesServer, wait_until: Wait
) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        server.fail("down")
        monitor.log({"loss": 1.0}, 1)
        wait_until(lambda: progress(config.monitor_dir).why)
        server.mend("down")
    done = progress(config.monitor_dir)
    assert (done.delivered, done.waiting, done.courier, done.why) == (1, 0, "ended", None)
    assert done.run is not None


def test_the_json_tells_it_too(make_config: MakeConfig) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    out = io.StringIO()
    show_json(config.monitor_dir, out)
    (told,) = json.loads(out.getvalue())["backends"]
    expected: dict[str, Any] = {
        "backend": "lines",
        "writer": "trainer",
        "delivered": 1,
        "waiting": 0,
        "rejected": 0,
    }
    assert {key: told[key] for key in expected} == expected
    assert told["courier"] == "ended"


def test_a_local_job_has_no_backends(make_config: MakeConfig) -> None:
    config = make_config(monitor_type="local", monitor_args={})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    record = read_record(Layout(config.monitor_dir))
    assert record is not None
    assert read_progress(Layout(config.monitor_dir), record.plan) == []
