"""A role's courier in a process of its own: opens a run, logs rows and prints the run's id.

Its argument is JSON: `{"uri", "ticket", "rows", "metrics", "prefix", "batch"}`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rolecall import Row, RunTicket
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import open_run


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


def main(errand: dict[str, Any]) -> None:
    given = {**errand["ticket"], "directory": Path(errand["ticket"]["directory"])}
    ticket = RunTicket(**given)
    run = open_run(ticket, MlflowArgs(uri=errand["uri"]))
    todo, size = rows(errand, ticket.writer or "launcher"), errand.get("batch", 200)
    for start in range(0, len(todo), size):
        run.log(todo[start : start + size])
    run.close("finished")
    sys.stdout.write(run.id)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
