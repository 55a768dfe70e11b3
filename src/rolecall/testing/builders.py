"""Tickets and rows for tests, with defaults, so that a new field breaks no test; and what a reader finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rolecall.protocol import RunTicket
from rolecall.rows import Row

TIME = 1_700_000_000.0
"""When the first row of a test was logged."""


Points = Mapping[str, list[tuple[int, float]]]
"""Metrics by key: steps and values, in any order, each as many times as the backend holds it."""


class HeldTable(NamedTuple):
    """A table as a backend holds it."""

    step: int
    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class HeldRun:
    """A run that a test wrote, for reading back what its backend holds.

    Attributes:
        monitor_type: the backend's name.
        id: what the backend calls the run.
        url: where it is looked at.
        args: the backend's arguments, as the fixture `monitor_args` gave them: paths are strings, secrets are plain.
        directory: the backend's own folder.
        shared: whether several processes wrote the run.
        writers: whose rows it holds.
    """

    monitor_type: str
    id: str
    url: str | None
    args: Mapping[str, Any]
    directory: Path
    shared: bool
    writers: tuple[str, ...]


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
