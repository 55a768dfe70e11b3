"""Couriers of roles, each in a process of its own: each opens a run, logs rows and prints the run's id.

The argument is JSON, a list of `{"uri", "ticket", "rows", "metrics", "prefix", "batch"}`, one for each courier. MLflow
is imported once, before they part: that takes seconds, and so they start at the same moment.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from rolecall import Row, RunTicket, Unavailable
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import open_run
from rolecall_mlflow.run import MlflowRun


def rows(errand: dict[str, Any], writer: str) -> list[Row]:
    names = [f"{errand.get('prefix', '')}m{number}" for number in range(errand.get("metrics", 1))]
    return [
        Row(
            writer=writer,
            session=1,
            seq=step,
            step=step,
            time=1_700_000_000 + step / 100,
            metrics=dict.fromkeys(names, step / 10),
        )
        for step in range(1, errand.get("rows", 0) + 1)
    ]


def opened(ticket: RunTicket, args: MlflowArgs) -> MlflowRun:
    """The run; tried again as a courier does."""
    # The file store cannot read a run while another process has made the file of a metric and not written to it yet.
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return open_run(ticket, args)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def deliver(errand: dict[str, Any]) -> None:
    given = {**errand["ticket"], "directory": Path(errand["ticket"]["directory"])}
    ticket = RunTicket(**given)
    run = opened(ticket, MlflowArgs(uri=errand["uri"]))
    todo, size = rows(errand, ticket.writer or "launcher"), errand.get("batch", 200)
    for start in range(0, len(todo), size):
        run.log(todo[start : start + size])
    run.close("finished")
    os.write(1, f"{run.id}\n".encode())


def start(errand: dict[str, Any]) -> int:
    """The id of a new process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        deliver(errand)
        status = 0
    except BaseException:  # noqa: BLE001 - it must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(status)


def main(errands: list[dict[str, Any]]) -> int:
    import_module("mlflow.store.tracking.sqlalchemy_store")
    children = [start(errand) for errand in errands]
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
