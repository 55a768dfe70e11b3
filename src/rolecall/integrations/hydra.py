"""rolecall's settings as a structured config of Hydra."""

from dataclasses import dataclass, field
from typing import Any, Final

from rolecall import ConfigError, MonitorConfig

try:
    from hydra.core.config_store import ConfigStore
    from omegaconf import MISSING
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"hydra", "omegaconf"}:
        raise  # it is here, and lacks something itself
    raise ImportError(
        "rolecall.integrations.hydra needs Hydra, which is not installed: pip install hydra-core"
    ) from error

_PROVIDER: Final = "rolecall"
_DEFAULT: Final = {name: each.get_default() for name, each in MonitorConfig.model_fields.items()}


@dataclass
class MonitorSettings:
    """The settings of `rolecall.MonitorConfig`, as Hydra and OmegaConf hold them: with interpolations and overrides.

    Hydra refuses a setting that does not exist. Everything else is checked by `MonitorConfig.load`, `rolecall.launch`
    and `rolecall check`.
    """

    project: str = MISSING
    name: str = MISSING
    group: str | None = None
    # OmegaConf has no union of a string and a list, nor `Literal`.
    monitor_type: Any = "local"
    monitor_args: dict[str, Any] = field(default_factory=dict)
    shared_run: Any = False
    transport: str = _DEFAULT["transport"]
    run_id: str | None = None
    resume: str = _DEFAULT["resume"]
    monitor_dir: str | None = None
    spool_dir: str | None = None
    spool_limit: int | None = None
    sync_every: float | None = None
    courier: str = _DEFAULT["courier"]
    system_metrics: bool = False
    open_timeout: float = _DEFAULT["open_timeout"]
    on_backend_error: str = _DEFAULT["on_backend_error"]


def register(name: str = "rolecall", group: str = "monitor") -> None:
    """Add `MonitorSettings` to Hydra's `ConfigStore`, for `defaults: [monitor: rolecall]`. Call it before `main`.

    Args:
        name: what a defaults list calls it.
        group: its config group, and so the key at which the settings are; `MonitorConfig.load` looks at `monitor`.

    Raises:
        ConfigError: `name` or `group` is no name.
    """
    for what, given in (("name", name), ("group", group)):
        if not str(given).strip():
            raise ConfigError(f"{what}: {given!r}: must be a name, such as 'monitor' or 'rolecall'")
    ConfigStore.instance().store(group=group, name=name, node=MonitorSettings, provider=_PROVIDER)
