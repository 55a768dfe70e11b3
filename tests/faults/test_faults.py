"""A smoke of the faults: a few kills in each backend, and some others once. `fault_suite.py` runs all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault_places import PLACES, Place
from fault_suite import SCENES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

KILLS = 3
SLOW = {"mlflow sqlite": 1, "wandb": 1}
"""Backends for which each kill takes half a minute."""
OVER = 500.0
"""ms that `log` may take longer than the longest pause of a loop that only reads the clock. Other work on the machine
holds up either by some 100 ms; a call that waits for what does not answer takes a second and more."""


# The whole of it takes hours. A courier that imports MLflow takes 4 s for that alone: one of its stores is enough here.
# Rows with images have numbers, too.
SMOKE = [
    ("local", "kills"),
    *[(backend, "kills with images") for backend in ("tensorboard", "mlflow sqlite", "wandb")],
    *[("tensorboard", fault) for fault in ("relay kills", "relay frozen directory")],
    *[(backend, "kills amid images") for backend in ("local", "tensorboard")],
    *[("local", fault) for fault in ("full disk with images", "frozen directory", "fork")],
    ("tensorboard", "spoiled images"),
    ("wandb", "lost answers with images"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Opens a backend, once in each worker."""
    with ExitStack() as stack:
        opened: dict[str, Place] = {}

        def get(name: str) -> Place:
            if name not in opened:
                opened[name] = stack.enter_context(PLACES[name](tmp_path_factory.mktemp("place")))
            return opened[name]

        yield get


@pytest.mark.parametrize(("backend", "fault"), SMOKE)
def test_no_row_is_lost(
    places: Callable[[str], Place], backend: str, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "rolecall")
    place = places(backend)
    line = SCENES[fault](place, tmp_path / "scene", 0, SLOW.get(backend, KILLS))
    if line is None:
        pytest.skip("not to be had here: a mount, or sshfs")
    assert line.acknowledged > 0
    assert line.lost == 0
    assert line.doubled == 0 or not place.exactly_once
    if line.pictures is not None:
        assert line.pictures.lost == 0
        assert line.pictures.damaged == 0
        assert line.pictures.doubled == 0 or not place.exactly_once
    assert line.longest_log < line.longest_control + OVER
