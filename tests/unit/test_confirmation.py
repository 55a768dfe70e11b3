"""Rows that a backend takes at once and confirms later: they are acknowledged as it catches up, and none waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lines_backend
import pytest
from lines_server import LinesServer
from pydantic import BaseModel

from rolecall import (
    Monitor,
    MonitorConfig,
    Registry,
    Row,
    RunTicket,
    SharedRunSupport,
    Unavailable,
    hookimpl,
    launch,
    open_monitor,
)
from rolecall.store.acks import undelivered
from rolecall.store.layout import Layout
from rolecall.store.lease import end, is_held, newest, succeed

WaitUntil = Callable[..., None]


class LateRun(lines_backend.LinesRun):
    """Its server shows as many rows as the test lets it; all, once the writer has ended."""

    def __init__(self, args: lines_backend.LinesArgs, ticket: RunTicket, server: Late) -> None:
        super().__init__(args, ticket)
        self._late = server

    def log(self, rows: Sequence[Row]) -> None:
        self._late.handed.extend(row.seq for row in rows)
        super().log(rows)

    def tend(self) -> None:
        self._late.tended[self._ticket.writer] += 1
        if self._late.loses and self._ticket.writer:
            self._late.loses = False
            raise Unavailable("it lost what it took")

    def confirmed(self, writer: str, session: int) -> int:
        return self._late.shown

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]] | int:
        return self._late.holds

    def flush(self, timeout: float) -> None:
        self._late.flushed += 1
        if self._late.drops:
            raise Unavailable("it does not hold what it took")


class Late:
    """The backend, and its server's state."""

    def __init__(self) -> None:
        self.handed: list[int] = []
        self.shown = self.flushed = 0
        self.tended: Counter[str | None] = Counter()
        self.loses = self.drops = False
        self.holds: Sequence[tuple[int, int]] | int = []

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return lines_backend.LinesArgs

    @hookimpl
    def supports_shared_run(self, args: BaseModel) -> SharedRunSupport:
        return SharedRunSupport(supported=True)

    @hookimpl
    def open_run(self, ticket: RunTicket, args: Any) -> LateRun:
        return LateRun(args, ticket, self)


@pytest.fixture
def late() -> Late:
    return Late()


@pytest.fixture
def monitor(tmp_path: Path, server: LinesServer, late: Late) -> Iterator[Monitor]:
    settings: Mapping[str, Any] = {
        "project": "p",
        "name": "n",
        "monitor_type": "late",
        "monitor_args": {"path": server.path},
        "monitor_dir": tmp_path / "monitor",
        "shared_run": True,
    }
    config = MonitorConfig.load(settings, registry=Registry().register("late", late))
    with launch(config) as job, open_monitor(job.config, "trainer") as opened:
        yield opened


def left(tmp_path: Path) -> int:
    return undelivered(Layout(tmp_path / "monitor"), "late", "trainer")


def test_confirmed_rows_are_acknowledged(monitor: Monitor, late: Late, tmp_path: Path, wait_until: WaitUntil) -> None:
    """While more are handed over."""
    for step in range(1, 4):
        monitor.log({"a": step}, step=step)
        wait_until(lambda step=step: late.handed == list(range(1, step + 1)))
    assert (left(tmp_path), late.flushed) == (3, 0)
    late.shown = 2
    wait_until(lambda: left(tmp_path) == 1)
    late.shown = 3
    wait_until(lambda: left(tmp_path) == 0)
    assert late.flushed == 0


def test_writers_end_flushes(monitor: Monitor, late: Late, tmp_path: Path, wait_until: WaitUntil) -> None:
    monitor.log({"a": 1}, step=1)
    wait_until(lambda: late.handed == [1])
    monitor.close()
    assert (left(tmp_path), late.flushed) == (0, 1)


def test_lost_rows_come_again(monitor: Monitor, late: Late, wait_until: WaitUntil) -> None:
    monitor.log({"a": 1}, step=1)
    wait_until(lambda: late.handed == [1])
    late.loses = True
    wait_until(lambda: late.handed == [1, 1])


def test_proxy_that_drops_rows_forever(
    monitor: Monitor, late: Late, tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes row after row, which is no sign that the backend is back: the courier gives up all the same."""
    monkeypatch.setattr("rolecall.timings.READ_BYTES", 1)
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 2.0)
    late.drops = True
    for step in (1, 2, 3):
        monitor.log({"a": step}, step=step)
    monitor.close(timeout=0.1)
    wait_until(lambda: not is_held(Layout(tmp_path / "monitor").delivery("late", "trainer")), 20.0)
    assert late.flushed > 1
    assert left(tmp_path) == 3


def test_rejected_row_is_not_waited_for(
    monitor: Monitor, late: Late, server: LinesServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    (server.path / "picky").write_text("[2]")
    for step in (1, 2):
        monitor.log({"a": step}, step=step)
    wait_until(lambda: late.handed == [1, 2])
    late.shown = 1
    wait_until(lambda: left(tmp_path) == 0)


def test_idle_run_is_tended(monitor: Monitor, late: Late, wait_until: WaitUntil) -> None:
    before = late.tended["trainer"]
    wait_until(lambda: late.tended["trainer"] >= before + 2)
    assert late.handed == []


def test_rows_under_way_are_bounded(
    monitor: Monitor, late: Late, tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their bytes in the journal, however few rows that is."""
    monitor.log({"a": 1}, step=1)
    wait_until(lambda: late.handed == [1])
    monkeypatch.setattr("rolecall.timings.MAX_QUEUE_BYTES", 1000)
    monitor.log({f"{at}/loss": 0.5 for at in range(100)}, step=2)
    wait_until(lambda: late.handed == [1, 2])
    monitor.log({"a": 3}, step=3)
    before = late.tended["trainer"]
    wait_until(lambda: late.tended["trainer"] >= before + 2)
    assert late.handed == [1, 2]
    late.shown = 2
    wait_until(lambda: late.handed == [1, 2, 3])


def test_waiting_primary_is_tended(tmp_path: Path, server: LinesServer, late: Late, wait_until: WaitUntil) -> None:
    config = MonitorConfig.load(
        {
            "project": "p",
            "name": "n",
            "monitor_type": "late",
            "monitor_args": {"path": server.path},
            "monitor_dir": tmp_path / "monitor",
            "shared_run": True,
        },
        registry=Registry().register("late", late),
    )
    job = launch(config)
    with open_monitor(job.config, "trainer"):
        job.close(timeout=0.1)
        before = late.tended[None]
        wait_until(lambda: late.tended[None] >= before + 2)


@pytest.mark.parametrize(("holds", "handed"), [([(4, 5), (1, 2)], [3, 6]), (4, [5, 6]), ([], [1, 2, 3, 4, 5, 6])])
def test_only_rows_that_are_not_held_are_handed_over(
    monitor: Monitor,
    late: Late,
    tmp_path: Path,
    wait_until: WaitUntil,
    holds: Sequence[tuple[int, int]] | int,
    handed: list[int],
) -> None:
    """A number is what backends of the first version of the hooks answer."""
    late.holds = holds
    for step in range(1, 7):
        monitor.log({"a": step}, step=step)
    wait_until(lambda: late.handed == handed)
    late.shown = 6
    wait_until(lambda: left(tmp_path) == 0)
    assert late.handed == handed


def test_courier_that_was_taken_for_dead_sends_nothing_more(
    monitor: Monitor, late: Late, tmp_path: Path, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.log({"a": 1}, step=1)
    wait_until(lambda: late.handed == [1])
    own = newest(Layout(tmp_path / "monitor").delivery("late", "trainer"))
    assert own is not None
    other = succeed(own, {"ack": [1, 0, 0], "rows": 0})
    monitor.log({"a": 2}, step=2)
    wait_until(lambda: "another courier has taken over" in caplog.text)
    assert late.handed == [1]
    end(other, "unfinished")
