"""What is asked of the disk, when, and in which order."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall import MonitorConfig, Status, launch, open_monitor
from rolecall.delivery.group import CourierGroup
from rolecall.store.codec import end_of_lines
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout

MakeConfig = Callable[..., MonitorConfig]
Synced = list[tuple[str, int]]
LARGE = (["text"], [["x" * 5_000_000]])


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Name of each file or folder for which this process called `fsync`, and the length of its lines."""
    found: Synced = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append((path.name, end_of_lines(path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return found


def test_rows_are_synced_in_time(make_config: MakeConfig, synced: Synced, wait_until: Callable[..., None]) -> None:
    """While the role runs, and at its end."""
    with launch(make_config(courier="thread", sync_every=0.1)) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 1.0}, 1)
        path = Layout(job.config.monitor_dir).journal("trainer") / "1.jsonl"
        wait_until(lambda: ("1.jsonl", end_of_lines(path)) in synced)
        monitor.log({"loss": 0.5}, 2)
        monitor.close()
    assert synced[-1] == ("1.jsonl", path.stat().st_size)
    assert {"trainer", "journal", "monitor"} <= {name for name, _ in synced}
    sizes = [size for name, size in synced if name == "1.jsonl"]
    assert sizes == sorted(set(sizes)), "what was synced once is left alone until something comes"


def test_attachments_are_synced_first(make_config: MakeConfig, synced: Synced, wait_until: Callable[..., None]) -> None:
    with launch(make_config(courier="thread", sync_every=0.1)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log_table("samples", LARGE, 1)
        wait_until(lambda: "1.json" in dict(synced))
        wait_until(lambda: synced[-1][0] == "1.jsonl")
    names = [name for name, _ in synced]
    assert names.count("1.json") == 1
    assert names.index("1.json") < len(names) - 1 - names[::-1].index("1.jsonl")


def test_spooled_rows_are_synced_there(make_config: MakeConfig, synced: Synced, tmp_path: Path) -> None:
    config = make_config(courier="thread", sync_every=0.1, spool_dir=tmp_path / "node")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    assert job.config.spec().nonce in dict(synced)
    assert "monitor" not in dict(synced)


def test_session_that_goes_on_is_synced(
    make_config: MakeConfig, synced: Synced, wait_until: Callable[..., None]
) -> None:
    """Its file was removed, so rows are in the next one."""
    with launch(make_config(courier="thread", sync_every=0.1)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        (Layout(job.config.monitor_dir).journal("trainer") / "1.jsonl").unlink()
        assert monitor._journal is not None
        monitor._journal._look_at = 0.0
        monitor.log({"loss": 0.5}, 2)
        wait_until(lambda: "2.jsonl" in dict(synced))


def test_nothing_is_synced_by_default(make_config: MakeConfig, synced: Synced) -> None:
    with launch(make_config(courier="thread")) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    assert "1.jsonl" not in dict(synced)


def test_role_that_ended_is_synced(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, synced: Synced) -> None:
    """Its couriers may start when it has ended: on a busy machine, a process starts in seconds."""
    ended = threading.Event()
    end, run = JournalWriter.end, CourierGroup.run

    def end_and_say(journal: JournalWriter, status: Status) -> None:
        end(journal, status)
        ended.set()

    def run_afterwards(group: CourierGroup) -> bool:
        assert ended.wait(30.0)
        return run(group)

    monkeypatch.setattr(JournalWriter, "end", end_and_say)
    monkeypatch.setattr(CourierGroup, "run", run_afterwards)
    config = make_config(monitor_type="local", monitor_args={}, sync_every=60.0)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
    path = Layout(job.config.monitor_dir).journal("trainer") / "1.jsonl"
    assert ("1.jsonl", path.stat().st_size) in synced


def test_failing_disk_is_reported(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    caplog.set_level(logging.WARNING)
    with launch(make_config(monitor_type="local", monitor_args={}, sync_every=0.1)) as job:
        monkeypatch.setattr(os, "fsync", fail)
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0}, 1)
    assert "trainer: journal: " in caplog.text
    assert "1.jsonl could not be synced: Input/output error" in caplog.text


@pytest.mark.parametrize("value", [0, -1, 0.01, "often", float("inf"), float("nan")])
def test_interval_is_checked(make_config: MakeConfig, value: object) -> None:
    with pytest.raises(ValueError, match="sync_every: "):
        make_config(sync_every=value)
