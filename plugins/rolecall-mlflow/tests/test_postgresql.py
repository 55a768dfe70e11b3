"""A real `mlflow server` on PostgreSQL, whose database is disturbed while rows come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from local_postgresql import DATABASE_FAULTS, PostgreSQL

from rolecall import Row, Unavailable

if TYPE_CHECKING:
    from conftest import Job

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("fault", DATABASE_FAULTS)
def test_rows_arrive_once_over_a_fault(
    postgresql: PostgreSQL, produced: Job, row: Callable[..., Row], fault: str
) -> None:
    run = produced.open({"timeout": 20})
    rows = [row(seq, {f"m{number}": seq * 1.0 for number in range(20)}) for seq in range(1, 41)]
    run.log(rows[:20])
    with DATABASE_FAULTS[fault](postgresql):
        # after a restart, the server's old connections are broken, and it may or may not notice in time
        expected: Any = suppress(Unavailable) if fault == "database restarted" else pytest.raises(Unavailable)
        with expected:
            run.log(rows)
    produced.wait(lambda: _succeeds(run.log, rows))
    assert produced.points("m19") == [(step, float(step)) for step in range(1, 41)]


def test_end_is_tried_again(postgresql: PostgreSQL, produced: Job) -> None:
    run = produced.open({"timeout": 20}, created=1_700_000_000.0, ended=1_700_000_060.0)
    with postgresql.refusing(), pytest.raises(Unavailable, match="cannot end the run"):
        run.close("failed")
    produced.wait(lambda: _succeeds(run.close, "failed"))
    info = produced.stored().info
    assert (info.status, info.end_time - info.start_time) == ("FAILED", 60_000)


def _succeeds(call: Callable[[Any], None], argument: Any) -> bool:
    try:
        call(argument)
    except Unavailable:
        return False
    return True
