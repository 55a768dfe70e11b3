"""A whole job: couriers that are killed, and a run whose folders are those of several processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from swanlab_files import Held, read_run

from rolecall import Image, MonitorConfig, launch, open_monitor

pytestmark = pytest.mark.processes

KILLS = 2


def couriers() -> Iterator[int]:
    """The processes that this one started."""
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended
            if f"PPid:\t{os.getpid()}\n" in path.read_text():
                yield int(path.parent.name)


def test_no_row_is_lost_after_kills(tmp_path: Path) -> None:
    """SIGKILL for the couriers, at any moment; each goes on in a folder of its own, of the same run."""
    config = MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="swanlab",
        monitor_args={"swanlab": {"mode": "offline"}},
        monitor_dir=tmp_path / "job",
        shared_run=True,
    )
    step, key, killed = 0, "trainer/loss", set[int]()

    def held() -> Held:
        return read_run(config.monitor_dir / "backends" / "swanlab", str(job.run_id))

    with launch(config, run_config={"lr": 0.1}) as job, open_monitor(job.config, "trainer") as monitor:
        for _ in range(KILLS):
            before = len(held().steps(key))
            while len(held().steps(key)) == before:
                step += 1
                monitor.log({"loss": 1 / step}, step=step)
                time.sleep(0.02)
            for pid in couriers():
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        monitor.log({"image": Image(np.zeros((1, 1, 3), "uint8"))}, step=1)
        monitor.log({"loss": 0.5}, axis="eval", step=1)
        monitor.close(timeout=240.0)
    assert len(killed) >= KILLS
    assert held().steps(key) == [(at, 1 / at) for at in range(1, step + 1)]
    assert held().axes[key] == "trainer/step"
    assert held().axes["trainer/eval/loss"] == "trainer/eval/step"
    assert held().steps("trainer/eval/loss") == [(1, 0.5)]
    assert held().media["trainer/image"][1][0][0].startswith(b"\x89PNG")
    assert len(held().folders) > KILLS
