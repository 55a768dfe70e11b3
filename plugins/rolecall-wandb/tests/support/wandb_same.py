"""One role that logs one sequence of rows, with the plain SDK as Trinity-RFT does or through rolecall.

WANDB_SAME says which, so that the command line is the same: `plain` or `rolecall`. With `--fail` it ends with an
exception after the last row.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rolecall import MonitorConfig, open_monitor

PROJECT, NAME, ROLE = "gsm8k", "grpo-1", "explorer"
CONFIG: dict[str, Any] = {
    "lr": 1e-6,
    "seed": 42,
    "name": "grpo-1",
    "resume": None,
    "model": {"path": "models/one", "layers": [1, 2, 3], "rope": {"theta": 1e6, "on": True}},
    "äöü": "ß",
}


@dataclass(frozen=True, slots=True)
class Said:
    """One call of `log`, or of `log_table` if there are columns."""

    step: int
    data: dict[str, float | int] = field(default_factory=dict)
    commit: bool = False
    columns: dict[str, list[Any]] = field(default_factory=dict)


SAID = [
    Said(0, {"reward/mean": 0.25, "count": 3}),
    Said(1, {"reward/mean": 0.5}),
    Said(1, {"loss/actor": 1.5, "loss/critic.max": 2.5}),
    Said(1, {"reward/mean": 0.75}),
    Said(2, {"reward/mean": 1e300, "tiny": 5e-324, "negative": -0.0}),
    Said(2, columns={"prompt": ["1+1", "ünï"], "answer": ["2", ""], "score": [1.0, 0.5], "length": [3, 40]}),
    Said(5, {"gap": 1, "with space": 2, "a.b.c": 3, "奖励/平均": 4.5}, commit=True),
    Said(6, {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}),
    Said(7, {"big": 2**53 + 1, "bigger": 2**63 - 1, "smallest": -(2**63)}, commit=True),
    Said(1000, {"reward/mean": 0.1 + 0.2, "count": 4}),
    Said(1001, columns={"prompt": ["2+2"], "answer": ["4"], "score": [0.25], "length": [3]}),
    Said(1001, {"reward/mean": 3, "deep/er/and/deeper": 7}),
]
TABLE = "samples/eval"

Log = Callable[[Said], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--comment", default="")
    fails = parser.parse_args().fail
    print("console: before", flush=True)
    (plain if os.environ["WANDB_SAME"] == "plain" else through_rolecall)(fails)


def plain(fails: bool) -> None:
    """What Trinity-RFT's WandbMonitor calls."""
    import wandb

    run = wandb.init(project=PROJECT, group=NAME, name=f"{NAME}_{ROLE}", tags=[ROLE], config=CONFIG, save_code=False)

    def log(said: Said) -> None:
        table = {TABLE: wandb.Table(dataframe=pd.DataFrame(said.columns))} if said.columns else {}
        run.log({**said.data, **table}, step=said.step, commit=said.commit)

    log_all(log, fails)
    run.finish()


def through_rolecall(fails: bool) -> None:
    """The same calls, to a monitor."""
    with open_monitor(MonitorConfig.from_env(), ROLE, run_config=CONFIG) as monitor:

        def log(said: Said) -> None:
            if said.columns:
                monitor.log_table(TABLE, pd.DataFrame(said.columns), said.step)
            else:
                monitor.log(said.data, said.step, commit=said.commit)

        log_all(log, fails)


def log_all(log: Log, fails: bool) -> None:
    for said in SAID:
        print(f"console: step {said.step}", flush=True)
        log(said)
    if fails:
        raise RuntimeError("as the test wants it")


if __name__ == "__main__":
    main()
