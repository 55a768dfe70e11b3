"""A backend that hangs for ever, beside one that works."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from lines_server import LinesServer

from rolecall import MonitorConfig, launch, open_monitor

pytestmark = pytest.mark.processes

MakeConfig = Callable[..., MonitorConfig]
ROWS = 200
CLOSING = 3.0


@pytest.mark.parametrize("courier", ["process", "thread"])
@pytest.mark.parametrize("call", ["open", "log", "close"])
def test_hanging_backend_delays_no_other(
    two: tuple[MakeConfig, list[LinesServer]], call: str, courier: str, wait_until: Callable[..., None]
) -> None:
    """The other has every row while the job runs, and the job ends on time."""
    make, (good, bad) = two
    bad.fail("hang", call)
    job = launch(make(courier=courier, open_timeout=3.0))
    monitor = open_monitor(job.config, "trainer")
    for step in range(1, ROWS + 1):
        monitor.log({"loss": 1 / step}, step=step)
    wait_until(lambda: good.seqs("trainer") == [(1, seq) for seq in range(1, ROWS + 1)])
    began = time.monotonic()
    monitor.close(timeout=CLOSING)
    job.close(timeout=CLOSING)
    assert time.monotonic() - began < 2 * CLOSING + 5.0
    assert len(bad.seqs("trainer")) == (ROWS if call == "close" else 0)
    ends = [(line["by"], line["closed"]) for line in good.lines() if "closed" in line]
    assert ends == [("trainer", "finished"), (None, "finished")]
    bad.fix("hang")
    wait_until(lambda: len(bad.seqs("trainer")) == ROWS)
