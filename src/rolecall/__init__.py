"""rolecall: one run, many roles, and a training job that never waits for its tracker."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# A name's module is imported when the name is first asked for. Python imports this package before any module of it, so
# what is imported here is imported in each courier and agent, too: a quarter of the CPU that those take to start.
_HOMES = {
    "rolecall.backends.registry": ("Registry",),
    "rolecall.config.model": ("MonitorConfig",),
    "rolecall.config.plan": ("Downgrade", "Plan"),
    "rolecall.config.resolve": ("resolve",),
    "rolecall.errors": (
        "BackendError",
        "BackendRefused",
        "ConfigError",
        "DirectoryError",
        "Rejected",
        "RolecallError",
        "RunGone",
        "Unavailable",
        "Undelivered",
        "UnknownBackend",
        "WriterConflict",
    ),
    "rolecall.hookspecs": ("HOOKS_VERSION", "hookimpl", "hookspec"),
    "rolecall.job.launch": ("Job", "launch", "open_monitor"),
    "rolecall.job.monitor": ("Monitor",),
    "rolecall.job.single.start": ("init",),
    "rolecall.job.status": ("WriterState",),
    "rolecall.protocol": (
        "Point",
        "Run",
        "RunTicket",
        "SharedRunSupport",
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
    ),
    "rolecall.rows": ("Cell", "Media", "MediaKind", "Metrics", "Row", "TableData"),
    "rolecall.states": ("Status",),
    "rolecall.values": ("Audio", "File", "Histogram", "Html", "Image", "Table", "Text", "Video"),
}


def _import(name: str) -> object:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        # `name` and `obj` are what Python makes "Did you mean" of
        raise AttributeError(f"module 'rolecall' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # a checker that saw it would take any name for one of this package
    __getattr__ = _import


def __dir__() -> list[str]:
    # Importing a package's modules makes them its attributes; completion shows what is public only.
    return __all__
