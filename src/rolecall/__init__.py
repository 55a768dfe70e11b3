"""rolecall: one run, many roles, and a training job that never waits for its tracker."""

from rolecall.backend import (
    Row,
    Run,
    RunTicket,
    SharedRunSupport,
    Status,
    SupportsConfig,
    SupportsConfirmation,
    SupportsProgress,
    SupportsTables,
    Table,
)
from rolecall.config import MonitorConfig
from rolecall.errors import (
    BackendError,
    BackendRefused,
    ConfigError,
    DirectoryError,
    Rejected,
    RolecallError,
    Unavailable,
    Undelivered,
    UnknownBackend,
    WriterConflict,
)
from rolecall.hookspecs import hookimpl, hookspec
from rolecall.launch import Job, launch
from rolecall.monitor import Monitor, open_monitor
from rolecall.registry import Registry
from rolecall.resolve import Downgrade, Plan, resolve
from rolecall.writers import WriterState

__all__ = [
    "BackendError",
    "BackendRefused",
    "ConfigError",
    "DirectoryError",
    "Downgrade",
    "Job",
    "Monitor",
    "MonitorConfig",
    "Plan",
    "Registry",
    "Rejected",
    "RolecallError",
    "Row",
    "Run",
    "RunTicket",
    "SharedRunSupport",
    "Status",
    "SupportsConfig",
    "SupportsConfirmation",
    "SupportsProgress",
    "SupportsTables",
    "Table",
    "Unavailable",
    "Undelivered",
    "UnknownBackend",
    "WriterConflict",
    "WriterState",
    "hookimpl",
    "hookspec",
    "launch",
    "open_monitor",
    "resolve",
]
