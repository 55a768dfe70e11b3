"""What integrations are given: a monitor that is open, or the settings of a run of their own."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import rolecall
from rolecall import ConfigError, Monitor, Status


class InitSettings(TypedDict, total=False):
    """The arguments of `rolecall.init` beside `project` and `name`, which each integration has as its own."""

    config: object
    monitor_type: str | list[str] | None
    monitor_args: Mapping[str, Any] | None
    monitor_dir: str | os.PathLike[str] | None
    tags: Sequence[str]
    resume: Literal["auto", "allow", "must", "never"]
    system_metrics: bool


class GivenRun:
    """Where an integration logs to: the monitor that it was given, or a run of its own, opened when it is needed.

    Args:
        integration: the name of the class, for messages.
        monitor: what was given as a monitor, if anything.
        settings: arguments of `rolecall.init` for that run; `None` is as if it was not given.

    Raises:
        ConfigError: `monitor` is none, or has settings beside it.
        TypeError: `rolecall.init` has no such argument.
    """

    def __init__(self, integration: str, monitor: Monitor | None, settings: Mapping[str, Any]) -> None:
        known = inspect.signature(rolecall.init).parameters
        if unknown := settings.keys() - known.keys():
            raise TypeError(
                f"{integration}: unexpected argument {', '.join(sorted(unknown))}; beside its own it takes those of "
                f"rolecall.init, which are {', '.join(known)}"
            )
        self.settings = dict(settings)
        self.is_own = monitor is None
        self.monitor = monitor
        if monitor is not None:
            check_monitor(integration, monitor)
        given = ", ".join(name for name, value in settings.items() if value is not None)
        if given and not self.is_own:
            raise ConfigError(
                f"{integration}: {given}: not allowed together with monitor, which has its own; give them to "
                "rolecall.init or rolecall.open_monitor instead"
            )

    def open(self, **defaults: str | None) -> Monitor:
        """The monitor. A run of its own is begun if there is none, or none that goes on.

        Args:
            **defaults: settings of that run, where none was given.

        Raises:
            ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `rolecall.init` does.
        """
        if self.monitor is None or (self.is_own and self._has_ended()):
            given = {name: value for name, value in self.settings.items() if value is not None}
            self.monitor = rolecall.init(**{**defaults, **given})
        return self.monitor

    def finish(self, status: Status = "finished") -> None:
        """End a run of its own; a monitor that was given is closed by whoever opened it."""
        if self.is_own and self.monitor is not None:
            self.monitor.finish(status)

    def _has_ended(self) -> bool:
        # Where monitoring is off there is no run, and none to go on with.
        return self.monitor is not None and self.monitor.run_id is not None and not self.monitor.is_open


def check_monitor(integration: str, monitor: object) -> None:
    """Refuse what is no monitor.

    Raises:
        ConfigError: as it says.
    """
    if not isinstance(monitor, Monitor):
        raise ConfigError(
            f"{integration}: monitor: {type(monitor).__name__} is not a rolecall.Monitor; give what rolecall.init or "
            "rolecall.open_monitor returned"
        )
