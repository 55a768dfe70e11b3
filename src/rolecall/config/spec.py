"""A launched job, as every process of it needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from rolecall.backends.registry import Registry
from rolecall.config.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What a launcher settled, and hands to its roles inside of their config.

    Attributes:
        run_id: rolecall's name of the run.
        nonce: the mark that the launcher left in `monitor_dir`. A role that finds another one is in another directory.
        plan: how rows reach each backend.
        hub: over Ray, its id of the launcher's node, where the job's hub is; `None` if all roles share a disk.
    """

    run_id: str
    nonce: str
    plan: Plan
    hub: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(HandOver):
    """The settings of a launched job, checked. Attributes as in `MonitorConfig` and `HandOver`.

    Attributes:
        monitor_args: the typed arguments of each backend.
        secrets: every secret among them, to be kept out of what is written.
        registry: where backends are found.
    """

    project: str
    name: str
    group: str | None
    transport: Literal["files", "ray", "auto"]
    monitor_dir: Path
    spool_dir: Path | None
    sync_every: float | None
    courier: Literal["process", "thread", "none"]
    open_timeout: float
    on_backend_error: Literal["ignore", "raise"]
    monitor_args: Mapping[str, BaseModel]
    secrets: tuple[str, ...]
    registry: Registry
