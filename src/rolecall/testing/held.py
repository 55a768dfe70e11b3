"""What a backend holds, as its author's reader finds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
