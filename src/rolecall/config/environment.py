"""What the environment says: whether rolecall is off, and how much it prints."""

import logging
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from rolecall.errors import ConfigError

logger = logging.getLogger("rolecall")

_MODE: Final = "ROLECALL_MODE"
_DISABLED: Final = "ROLECALL_DISABLED"
_LOG: Final = "ROLECALL_LOG"
_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)


def is_switched_off() -> bool:
    """Whether `ROLECALL_MODE=disabled` or `ROLECALL_DISABLED` turns monitoring off.

    Raises:
        ConfigError: `ROLECALL_MODE` is something else.
    """
    mode = os.environ.get(_MODE, "")
    if mode not in {"", "disabled"}:
        raise ConfigError(f"{_MODE}: must be 'disabled', or not be set")
    return mode == "disabled" or os.environ.get(_DISABLED, "0") not in {"", "0"}


def uses_ray(transport: str) -> bool:
    """Whether rows of a job that is launched in this process go over Ray: `auto` is where Ray is initialised.

    Ray is imported by nobody who has not done that already.
    """
    ray: Any = sys.modules.get("ray")
    return transport == "ray" or (transport == "auto" and ray is not None and bool(ray.is_initialized()))


def later_node() -> str:
    """The number of this process's node, if torchrun started it on another node than its first; else nothing.

    torchrun sets both names (https://docs.pytorch.org/docs/stable/elastic/run.html, 2.13).
    """
    node = os.environ.get("GROUP_RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    return "" if node == "0" else node


def log_level() -> int:
    """The level of `ROLECALL_LOG`; `logging.NOTSET` if it is not set.

    Raises:
        ConfigError: it is no level.
    """
    name = os.environ.get(_LOG, "").lower()
    if name and name not in _LEVELS:
        raise ConfigError(f"{_LOG}: must be one of {', '.join(_LEVELS)}, or not be set")
    return _LEVELS.get(name, logging.NOTSET)


def prints_lines() -> bool:
    """Whether a launcher prints its lines: with `ROLECALL_LOG=warning` or `error` it does not."""
    return log_level() <= logging.INFO


class _ToStandardError(logging.Handler):
    """Prints where nothing else does: where the program has set up logging, its own handlers get the record."""

    def emit(self, record: logging.LogRecord) -> None:
        # Looked at each time: a notebook and a test replace `sys.stderr`, and a program may set up logging later.
        if not logging.getLogger().handlers and sys.stderr is not None:
            # `print` writes the newline apart, and another thread's line may come in between.
            sys.stderr.write(f"rolecall: {self.format(record)}\n")


_HANDLER: Final = _ToStandardError()


def follow_log_level() -> None:
    """Let the logger `rolecall` say as much as `ROLECALL_LOG` asks for.

    Raises:
        ConfigError: it is no level.
    """
    level = log_level()
    if level == logging.NOTSET and _HANDLER not in logger.handlers:
        return  # the level is the program's
    logger.setLevel(level)
    if level == logging.NOTSET:
        logger.removeHandler(_HANDLER)
    else:
        logger.addHandler(_HANDLER)
