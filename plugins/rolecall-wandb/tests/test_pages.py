"""A run's history, read back in pages."""

from __future__ import annotations

import time

import pytest
from wandb_emulator import Fault, HistoryLine, StoredRun, WandbServer
from wandb_emulator.server import KEY

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
