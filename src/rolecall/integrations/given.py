"""What integrations are given: a monitor that is open, or the settings of one."""

from collections.abc import Mapping
from typing import Any

from rolecall import ConfigError, Monitor


def check_monitor(integration: str, monitor: object, settings: Mapping[str, Any]) -> None:
    """Refuse what is no monitor, and settings beside one, which has its own.

    Args:
        integration: the name of the class, for the message.
        monitor: what was given as a monitor.
        settings: the other arguments, those that were not given at their defaults.

    Raises:
        ConfigError: as it says.
    """
    if not isinstance(monitor, Monitor):
        raise ConfigError(
            f"{integration}: monitor: {type(monitor).__name__} is not a rolecall.Monitor; give what rolecall.init or "
            "rolecall.open_monitor returned"
        )
    given = [name for name, value in settings.items() if value not in (None, (), "never", False)]
    if given:
        raise ConfigError(
            f"{integration}: {', '.join(given)}: not allowed together with monitor, which has its own; give them to "
            "rolecall.init or rolecall.open_monitor instead"
        )
