"""rolecall: one run, many roles, and a training job that never waits for its tracker."""

from rolecall.backends.registry import Registry
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import Downgrade, Plan
from rolecall.config.resolve import resolve
from rolecall.errors import (
    BackendError,
    BackendRefused,
    ConfigError,
    DirectoryError,
    Rejected,
    RolecallError,
    RunGone,
    Unavailable,
    Undelivered,
    UnknownBackend,
    WriterConflict,
)
from rolecall.hookspecs import HOOKS_VERSION, hookimpl, hookspec
from rolecall.job.launch import Job, launch, open_monitor
from rolecall.job.monitor import Monitor
from rolecall.job.single.start import init
from rolecall.job.status import WriterState
from rolecall.protocol import (
    Point,
    Run,
    RunTicket,
    SharedRunSupport,
    SupportsConfig,
    SupportsConfirmation,
    SupportsEndTime,
    SupportsMedia,
    SupportsProgress,
    SupportsReadback,
    SupportsScan,
    SupportsSummary,
    SupportsTableMedia,
    SupportsTables,
    SupportsTags,
    SupportsText,
)
from rolecall.rows import Cell, Media, MediaKind, Metrics, Row, TableData
from rolecall.states import Status
from rolecall.values import Audio, File, Histogram, Html, Image, Table, Text, Video

__all__ = [
    "HOOKS_VERSION",
    "Audio",
    "BackendError",
    "BackendRefused",
    "Cell",
    "ConfigError",
    "DirectoryError",
    "Downgrade",
    "File",
    "Histogram",
    "Html",
    "Image",
    "Job",
    "Media",
    "MediaKind",
    "Metrics",
    "Monitor",
    "MonitorConfig",
    "Plan",
    "Point",
    "Registry",
    "Rejected",
    "RolecallError",
    "Row",
    "Run",
    "RunGone",
    "RunTicket",
    "SharedRunSupport",
    "Status",
    "SupportsConfig",
    "SupportsConfirmation",
    "SupportsEndTime",
    "SupportsMedia",
    "SupportsProgress",
    "SupportsReadback",
    "SupportsScan",
    "SupportsSummary",
    "SupportsTableMedia",
    "SupportsTables",
    "SupportsTags",
    "SupportsText",
    "Table",
    "TableData",
    "Text",
    "Unavailable",
    "Undelivered",
    "UnknownBackend",
    "Video",
    "WriterConflict",
    "WriterState",
    "hookimpl",
    "hookspec",
    "init",
    "launch",
    "open_monitor",
    "resolve",
]


def __dir__() -> list[str]:
    # Importing a package's modules makes them its attributes; completion shows what is public only.
    return __all__
