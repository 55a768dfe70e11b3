"""A run's history, read back in pages."""

from __future__ import annotations

import time
from typing import Any

import pytest
from wandb_emulator import Fault, HistoryLine, StoredRun, WandbServer
from wandb_emulator.server import KEY

from rolecall import Row, Unavailable
from rolecall_wandb.resumed import StoredLines
from rolecall_wandb.server import RunPath, Server

PATH = RunPath("team", "gsm8k", "run-1")


@pytest.fixture
def run(server: WandbServer) -> StoredRun:
    return server.state.run(PATH.run, PATH.project)


def store(run: StoredRun, *steps: int) -> None:
    run.history += [HistoryLine(time.time(), None, {"loss": step / 7, "_timestamp": 5.0}, step) for step in steps]


def read(server: WandbServer, first: int = 0) -> tuple[list[int], int]:
    """The steps of the lines, and how many requests it took."""
    asked = server.faults.add(Fault("query"))
    steps = [int(line["_step"]) for line in Server(server.url, KEY).history(PATH, first)]
    server.faults.clear()
    return steps, len(asked.hits)


@pytest.mark.parametrize(
    ("steps", "most"),
    [
        ([], 1),
        ([0], 2),
        ([1, 10**6, 10**9], 25),
        ([*range(0, 10**9, 10**6)], 35),
        ([*range(10_000)], 15),
        ([*range(1_000), *range(10**9, 10**9 + 4_500)], 60),
        ([10**18], 60),
    ],
    ids=["none", "first", "three", "every million", "dense", "dense, far apart", "one"],
)
def test_steps_far_apart_take_few_requests(server: WandbServer, run: StoredRun, steps: list[int], most: int) -> None:
    store(run, *steps)
    found, asked = read(server)
    assert found == steps
    assert asked <= most


def test_many_lines_of_one_step_are_all_read(server: WandbServer, run: StoredRun) -> None:
    steps = sorted([*range(3_000)] * 3)
    store(run, *steps)
    found, asked = read(server)
    assert (found, asked < 15) == (steps, True)


def test_history_is_read_from_a_step_on(server: WandbServer, run: StoredRun) -> None:
    store(run, *range(0, 10**6, 100))
    found, _ = read(server, 500_050)
    assert found == [*range(500_100, 10**6, 100)]


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


def row(step: int, **metrics: Any) -> Row:
    return Row(writer="trainer", session=1, seq=1, step=step, time=5.0, metrics=metrics or {"loss": step / 7})
