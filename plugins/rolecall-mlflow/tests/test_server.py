"""A real `mlflow server`, stopped and started while rows come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from rolecall import Row, Run, Unavailable

if TYPE_CHECKING:
    from conftest import Job, Server

pytestmark = pytest.mark.servers


def log_at_last(run: Run, rows: Sequence[Row]) -> None:
    """Hand over rows again and again, as a courier does, until the server takes them: on a busy machine it is slow."""
    for _ in range(10):
        with suppress(Unavailable):
            run.log(rows)
            return
    run.log(rows)


def test_rows_arrive_once_over_a_restart(server: Server, served: Job, row: Callable[..., Row]) -> None:
    run = served.open({"timeout": 20})
    rows = [row(seq, {f"m{number}": seq * 1.0 for number in range(20)}) for seq in range(1, 41)]
    log_at_last(run, rows[:20])
    server.stop()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        run.log(rows)
    assert time.monotonic() - began < 30
    server.start()
    log_at_last(run, rows)
    assert served.points("m19") == [(step, float(step)) for step in range(1, 41)]
    run.close("finished")
    assert served.stored().info.status == "FINISHED"


def test_the_url_is_the_runs_page(server: Server, served: Job) -> None:
    run = served.open()
    experiment = served.stored().info.experiment_id
    assert run.url == f"{server.uri}/#/experiments/{experiment}/runs/{run.id}?workflowType=machine_learning"
