"""A run that is not shared and is resumed: where it goes on, and which rows it had."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from wandb_emulator import Fault, StoredRun, WandbServer
from wandb_emulator.server import KEY

import rolecall_wandb.resumed
from rolecall import Row, Unavailable
from rolecall_wandb.resumed import StoredLines, wind_back
from rolecall_wandb.server import RunPath, Server

PATH = RunPath("team", "gsm8k", "run-1")


@pytest.fixture
def run(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> StoredRun:
    monkeypatch.setattr(rolecall_wandb.resumed, "SETTLE", 1.5)
    return server.state.run(PATH.run, PATH.project)


def store(run: StoredRun, *steps: int) -> None:
    lines = [json.dumps({"loss": step / 7, "_timestamp": 5.0, "_step": step}) for step in steps]
    run.stream("sdk", {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}})


def row(step: int, **metrics: Any) -> Row:
    return Row(writer="trainer", session=1, seq=1, step=step, time=5.0, metrics=metrics or {"loss": step / 7})


@pytest.mark.parametrize(("steps", "last"), [((1, 4), 4), ((), -1)], ids=["some lines", "none"])
def test_summary_of_dropped_lines_is_set_back(
    server: WandbServer, run: StoredRun, steps: tuple[int, ...], last: int
) -> None:
    store(run, *steps)
    run.summary = {"loss": 0.5, "_step": 20}
    wind_back(Server(server.url, KEY), PATH)
    assert run.summary == {"loss": 0.5, "_step": last}


def test_summary_of_lines_shown_late_stays(server: WandbServer, run: StoredRun) -> None:
    server.state.late = 0.7
    store(run, 1, 20)
    run.summary = {"_step": 20}
    wind_back(Server(server.url, KEY), PATH)
    assert run.summary == {"_step": 20}


def test_new_run_is_not_waited_for(server: WandbServer) -> None:
    began = time.monotonic()
    wind_back(Server(server.url, KEY), PATH)
    assert time.monotonic() - began < 1.5
    assert not server.runs


def test_rows_that_a_run_had_are_found(server: WandbServer, run: StoredRun) -> None:
    """Also in an order of their own, and with few requests."""
    store(run, *range(0, 10**9, 10**6))
    stored = StoredLines(Server(server.url, KEY), PATH, 10**9)
    asked = server.faults.add(Fault("query"))
    assert all(stored.has(row(step)) for step in range(0, 10**9, 10**6))
    assert len(asked.hits) < 40
    assert stored.has(row(7 * 10**6))
    assert stored.has(row(3 * 10**6))
    assert not stored.has(row(3 * 10**6 + 1))
    assert not stored.has(row(4 * 10**6, loss=0.1))
    assert not stored.has(row(2 * 10**9))


def test_rows_are_found_after_a_failed_request(server: WandbServer, run: StoredRun) -> None:
    store(run, *range(0, 10**9, 10**6))
    stored = StoredLines(Server(server.url, KEY), PATH, 10**9)
    assert stored.has(row(10**6))
    server.faults.add(Fault("query", answer=500))
    with pytest.raises(Unavailable):
        stored.has(row(900 * 10**6))
    server.faults.clear()
    assert stored.has(row(900 * 10**6))
