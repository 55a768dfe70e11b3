"""The manifest of a job: what a launcher leaves in `monitor_dir` for roles, readers and later launchers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from rolecall.config.plan import Plan
from rolecall.errors import DirectoryError
from rolecall.store.codec import put_whole
from rolecall.store.layout import Layout

VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One job in one `monitor_dir`.

    Attributes:
        version: of everything in the directory.
        nonce: new with each launch. A role whose config has another one is in another directory than its launcher.
        created: when the job was launched, in seconds since the epoch.
        args: the backends' arguments, without secrets.
    """

    version: Literal[2] = 2
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
    # Made when the first record is read: it takes a while, and `import rolecall` should not.
    return TypeAdapter(RunRecord)


def read_record(layout: Layout) -> RunRecord | None:
    """The record, `None` if no launcher has been here.

    Raises:
        DirectoryError: it cannot be read, is damaged, or is of another version.
    """
    try:
        data = layout.record.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DirectoryError(
            f"{layout.record}: cannot be read: {error.strerror}; give the monitor_dir of a job"
        ) from error
    try:
        return _adapter().validate_json(data)
    except ValidationError as error:
        raise DirectoryError(f"{layout.record}: {_fault(data)}") from error


def _fault(data: bytes) -> str:
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        version = VERSION
    if version == VERSION:
        return "is damaged; use another monitor_dir, or move this one away"
    return (
        f"is of version {version!r}, and this rolecall reads version {VERSION}. Use another monitor_dir, or read it "
        f"with the rolecall that wrote it"
    )


def write_record(layout: Layout, record: RunRecord) -> None:
    """Leave the record; readers see the old one or the new."""
    layout.record.parent.mkdir(parents=True, exist_ok=True)
    put_whole(layout.record, json.dumps(asdict(record), indent=1).encode() + b"\n")
