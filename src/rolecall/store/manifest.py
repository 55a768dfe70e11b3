"""The run's record: what a launcher leaves in `monitor_dir` for roles, readers and later launchers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rolecall.config.plan import Plan
from rolecall.errors import DirectoryError
from rolecall.store.acks import write_atomically
from rolecall.store.layout import Layout

__all__ = ["RunRecord", "read_record", "write_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One job in one `monitor_dir`.

    `nonce` is new with each launch: a role whose config has another stands on another directory than its
    launcher. `created` is in seconds since the epoch. `args` are the backends' arguments without secrets.
    """

    version: int = 1
    run_id: str
    nonce: str
    project: str
    name: str
    group: str | None
    created: float
    spool_dir: str | None = None
    plan: Plan
    args: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    """Made when the first record is read: it takes a while, and `import rolecall` shall not."""
    return TypeAdapter(RunRecord)


def read_record(layout: Layout) -> RunRecord | None:
    """The record, `None` if no launcher has been here.

    Raises:
        DirectoryError: what stands there is not a record of this version.
    """
    try:
        return _adapter().validate_json(layout.record.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DirectoryError(
            f"{layout.record}: cannot be read: {error.strerror}; give the monitor_dir of a job"
        ) from error
    except ValidationError as error:
        raise DirectoryError(
            f"{layout.record}: is damaged, or no run's record that this version of rolecall reads; use another "
            f"monitor_dir, or move it away"
        ) from error


def write_record(layout: Layout, record: RunRecord) -> None:
    """Leave the record; readers see the old one or the new."""
    write_atomically(layout.record, asdict(record))
