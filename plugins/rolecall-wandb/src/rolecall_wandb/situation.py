"""Finds which version, mode, server and credentials wandb would use, without importing it.

The sources and their order are those of the SDK (0.19.10 and 0.31.0: `wandb_setup._load_settings`,
`wandb_settings.Settings`, `lib/apikey.py`, `lib/wbauth/authenticate.py`): arguments, environment, the settings file
of the working directory, that of the user. For the key, `.netrc` comes before the settings files.
"""

from __future__ import annotations

import configparser
import netrc
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rolecall_wandb.args import WandbArgs

__all__ = ["OLDEST", "Setting", "api_key", "base_url", "mode", "takes_key", "what_hinders", "what_is_missing"]

OLDEST: Final = (0, 19, 10)
"""The oldest wandb that is tested. Shared mode is public since 0.19.9."""

_HOSTED: Final = "https://api.wandb.ai"
# The names of wandb's own cloud. 0.31 uses the second, and accepts a key that is stored for the first (`lib/urls.py`).
_HOSTED_HOSTS: Final = ("api.wandb.ai", "api.forge.coreweave.com")
_MOVES_SETTINGS: Final = (0, 19, 11)  # the first version that reads WANDB_CONFIG_DIR
# The oldest tested version whose runs take the key from their settings; 0.19.10 does not (measured).
_TAKES_KEY: Final = (0, 24, 2)
_ALIASES: Final = {"dryrun": "offline", "run": "online", "shared": "online"}
_TRUE: Final = {"1", "true", "t", "yes", "y", "on"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's value, and where it was found."""

    value: str
    source: str


def what_is_missing() -> str | None:
    """A message that names what to install; `None` if nothing is missing."""
    found, oldest = _version(), ".".join(map(str, OLDEST))
    if not found:
        return f"wandb is not installed; run: pip install 'wandb>={oldest}'"
    if found < OLDEST:
        installed = ".".join(map(str, found))
        return f"wandb {installed} is too old to share a run reliably; run: pip install 'wandb>={oldest}'"
    return None


def takes_key() -> bool:
    """Whether a run takes its key from its settings alone; older versions look for it in the environment."""
    return _version() >= _TAKES_KEY


def _version() -> tuple[int, ...]:
    """The installed version; empty if wandb is not installed."""
    try:
        return tuple(int(number) for number in re.findall(r"\d+", version("wandb"))[:3])
    except PackageNotFoundError:
        return ()


def what_hinders(args: WandbArgs) -> str | None:
    """Why several processes cannot write to the same run, and what to change; `None` if they can."""
    if missing := what_is_missing():
        return missing
    found = mode(args)
    # The SDK's shared mode would go online in spite of the setting.
    if found.value != "online":
        return (
            f"wandb is {found.value} ({found.source}), and only online runs can be shared. Set monitor_args.mode to "
            "online; otherwise each role has a run of its own"
        )
    if credentials_missing := what_key_is_missing(args):
        return credentials_missing
    return None


def what_key_is_missing(args: WandbArgs) -> str | None:
    """A message that says how to set an API key; `None` if there are credentials."""
    if api_key(args) is not None or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    url = base_url(args)
    return (
        f"wandb has no API key for {url}; set WANDB_API_KEY or monitor_args.api_key, or run `wandb login --host {url}`"
    )


def mode(args: WandbArgs) -> Setting:
    """The mode, `online`, `offline` or `disabled`, and where it was found."""
    if args.mode:
        return Setting(args.mode, "monitor_args.mode")
    found = _setting("mode")
    if found is None:
        return _mode_of_switches()
    return Setting(_ALIASES.get(found.value, found.value), found.source)


def _mode_of_switches() -> Setting:
    # Older ways to disable wandb: WANDB_DISABLED, and the setting that `wandb disabled` writes.
    found = _setting("disabled")
    if found is not None and found.value.lower() in _TRUE:
        return Setting("disabled", found.source)
    return Setting("online", "by default")


def base_url(args: WandbArgs) -> str:
    """The URL of the server."""
    found = _setting("base_url")
    return args.base_url or (found.value.rstrip("/") if found else _default_url())


def _default_url() -> str:
    # Read from the SDK's source: importing it takes more than a second.
    spec = find_spec("wandb")
    source = Path(spec.origin).parent / "sdk/lib/urls.py" if spec and spec.origin else Path()
    try:
        found = re.search(r'^DEFAULT_BASE_URL = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return _HOSTED
    return found[1] if found else _HOSTED


def api_key(args: WandbArgs) -> str | None:
    """The API key for the server, from any of the sources."""
    if args.api_key is not None:
        return args.api_key.get_secret_value()
    return os.environ.get("WANDB_API_KEY") or _key_of_netrc(base_url(args)) or _settings().get("api_key")


def _setting(name: str) -> Setting | None:
    variable = f"WANDB_{name.upper()}"
    if value := os.environ.get(variable):
        return Setting(value, f"{variable} in the environment")
    for path in _settings_files():
        if value := _read(path).get(name):
            return Setting(value, str(path))
    return None


def _settings() -> Mapping[str, str]:
    merged: dict[str, str] = {}
    for path in reversed(list(_settings_files())):
        merged.update(_read(path))
    return merged


def _settings_files() -> Iterator[Path]:
    """That of the working directory, which `wandb init` and `wandb offline` write, then that of the user."""
    hidden = Path.cwd() / ".wandb"
    yield (hidden if hidden.is_dir() else Path.cwd() / "wandb") / "settings"
    moved = os.environ.get("WANDB_CONFIG_DIR") if _version() >= _MOVES_SETTINGS else None
    yield Path(moved or "~/.config/wandb").expanduser() / "settings"


def _read(path: Path) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # the SDK ignores such a file too, with a message of its own
    return dict(parser["default"]) if parser.has_section("default") else {}


def _key_of_netrc(url: str) -> str | None:
    path = next((path for path in _netrc_files() if path.is_file()), None)
    host = urlsplit(url).netloc
    try:
        kept = netrc.netrc(str(path)) if path else None
    except (netrc.NetrcParseError, OSError):
        return None
    hosts = (host, *_HOSTED_HOSTS) if host in _HOSTED_HOSTS else (host,)
    found = [kept.hosts[name][2] for name in hosts if kept and name in kept.hosts]
    return found[0] if found else None


def _netrc_files() -> Iterator[Path]:
    if named := os.environ.get("NETRC"):
        yield Path(named).expanduser()
    else:
        yield from (Path.home() / ".netrc", Path.home() / "_netrc")
