"""Tickets and rows for tests: what a test does not name has a default, so that a new field breaks no test."""

from pathlib import Path
from typing import Any

from rolecall.protocol import RunTicket
from rolecall.rows import Row

TIME = 1_700_000_000.0
"""When the first row of a test was logged."""


def ticket(**changes: Any) -> RunTicket:
    """A ticket of a run of the role `trainer` alone, opened for the first time, with these fields changed.

    Give `directory`, the backend's own folder, if the backend writes files.
    """
    fields: dict[str, Any] = {
        "project": "contract",
        "name": "run-1",
        "group": "run",
        "run_id": "contract-1",
        "backend_run_id": None,
        "shared": False,
        "primary": True,
        "writer": "trainer",
        "role": "trainer",
        "config": {},
        "directory": Path("backends"),
        "pid": 4711,
        "created": TIME,
        "job": "run-1",
    }
    if (writer := changes.get("writer", "")) != "":
        fields["role"] = writer and writer.partition("/")[0]
    return RunTicket(**{**fields, **changes})


def row(**changes: Any) -> Row:
    """The first row of the writer `trainer`, `{"loss": 0.5}` at step 1, with these fields changed.

    `step` is `seq` and `time` grows with it, if they are not given. A row with a table or media has no metrics.
    """
    seq = changes.get("seq", 1)
    fields: dict[str, Any] = {"writer": "trainer", "session": 1, "seq": seq, "step": seq, "time": TIME + seq}
    if not changes.keys() & {"table", "media", "text"}:
        fields["metrics"] = {"loss": 0.5}
    return Row(**{**fields, **changes})
