"""rolecall as a monitor of Trinity-RFT. Its config names the class: `rolecall.integrations.trinity.RolecallMonitor`."""

from collections.abc import Mapping
from typing import Any, Final

import rolecall
from rolecall import ConfigError, MonitorConfig, Table, open_monitor

try:
    from trinity.utils.log import get_logger
    from trinity.utils.monitor import Monitor as _Monitor
except ImportError as error:
    raise ImportError(
        f"rolecall.integrations.trinity needs Trinity-RFT ({error}): pip install trinity-rft", name=error.name
    ) from error

__all__ = ["RolecallMonitor"]

_ARGS: Final = "monitor.monitor_args of Trinity's config"


class RolecallMonitor(_Monitor):  # type: ignore[misc]  # Trinity is not installed where types are checked
    """What an explorer or trainer of Trinity-RFT reports through.

    Trinity opens one in each of its actors. The first one that comes launches the job, the others join it, and the last
    one that leaves ends its runs, so it does not matter which of `explore`, `train`, `both` and `bench` you start, nor
    in which order: all that use one checkpoint directory are roles of one job, and a later start continues it. The
    journals are in Trinity's own `monitor` folder there.

    `monitor_args` has the settings of `rolecall.MonitorConfig`, such as `monitor_type`, `monitor_args` and
    `shared_run`; Trinity's config gives `project`, `group`, `name` and `monitor_dir`. Where Trinity's registry has
    this class under the name of a backend, such as `mlflow`, `monitor_args` are the arguments of that backend, with
    the names that they have in Trinity.

    Trinity closes its monitors in the same way whether an actor's work raised or not (0.6.0, `Explorer.shutdown`,
    `Trainer.shutdown`), so their runs are `finished`. The run of an actor that was killed is `failed`.

    Args:
        project: where backends file the run.
        group: ties the runs of the job together where each role has its own; `name` if empty.
        name: the run's display name.
        role: the name of the explorer or trainer.
        config: Trinity's whole config, which becomes the run's.

    Raises:
        ConfigError: the settings are wrong, or this role cannot join the job.
        BackendError, DirectoryError, WriterConflict, BackendRefused: as `rolecall.open_monitor` does.
    """

    # Trinity's `__del__` closes a monitor also if `__init__` raised
    _monitor: rolecall.Monitor | None = None

    def __init__(self, project: str, group: str, name: str, role: str, config: Any = None) -> None:
        super().__init__(project, name, role, config)
        if config is None:
            raise ConfigError("RolecallMonitor: config is None; Trinity hands its whole config to its monitors")
        given = {"project": project, "group": group or None, "name": name, "monitor_dir": config.monitor.cache_dir}
        settings = _settings(config.monitor)
        try:
            checked = MonitorConfig.load({**given, **settings})
        except ConfigError as error:
            raise ConfigError(f"{_ARGS}: {error}") from error
        self._monitor = open_monitor(checked, role, primary="auto", run_config=config)
        # as Trinity's own monitors tag their runs (0.6.0, `WandbMonitor`)
        self._monitor.tags.add(role)
        self.console_logger = get_logger(__name__, in_ray_actor=True)

    def log(self, data: Mapping[str, Any], step: int, commit: bool = False) -> None:
        """Log metrics, and print them in the actor's log, as Trinity's own monitors do."""
        if self._monitor is not None:
            self._monitor.log(data, step, commit=commit)
            self.console_logger.info(self.format_data_str(dict(data), step))

    def log_table(self, table_name: str, experiences_table: Any, step: int) -> None:
        """Log a data frame."""
        if self._monitor is not None:
            self._monitor.log({table_name: Table(experiences_table)}, step)

    def close(self) -> None:
        """End this role; a second call does nothing."""
        if self._monitor is not None:
            self._monitor.close()


def _settings(monitor: Any) -> Mapping[str, Any]:
    """What `monitor` of Trinity's config says of rolecall's settings."""
    args = monitor.monitor_args or {}
    if not isinstance(args, Mapping):
        raise ConfigError(f"{_ARGS}: must be a mapping of rolecall's settings; given {type(args).__name__}")
    kind = monitor.monitor_type
    if "." in kind or kind == "rolecall":
        return args
    # Under the name of a backend. `shared_run` is no field of Trinity's (0.6.0), but may become one.
    return {"monitor_type": kind, "monitor_args": args, "shared_run": getattr(monitor, "shared_run", False)}
