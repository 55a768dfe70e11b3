"""What wandb would do here with these arguments, told without importing it: version, mode, server, credentials.

The places, and their order, are those of the SDK (0.19.10 and 0.31.0: `wandb_setup._load_settings`,
`wandb_settings.Settings`, `lib/apikey.py`, `lib/wbauth/authenticate.py`): arguments, environment, the settings file
of the working directory, that of the user; for the key, `.netrc` comes before the settings files.
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

__all__ = [
    "OLDEST",
    "Said",
    "api_key",
    "base_url",
    "mode",
    "sends_summary_early",
    "what_hinders",
    "what_is_missing",
]

OLDEST: Final = (0, 19, 10)
"""The oldest wandb that is tested. Shared mode is public since 0.19.9."""

_HOSTED: Final = "https://api.wandb.ai"
_HOSTED_HOSTS: Final = ("api.wandb.ai", "api.forge.coreweave.com")
"""wandb's own cloud by its names; 0.31 goes by the second, and takes the first one's key for it (`lib/urls.py`)."""
_MOVES_SETTINGS: Final = (0, 19, 11)
"""The first wandb that looks for its settings where WANDB_CONFIG_DIR says."""
_SUMMARY_LAST: Final = (0, 22, 1)
"""The first wandb that sends a summary with the last of the rows it belongs to (measured: 0.19.10 to 0.31.0)."""
_ALIASES: Final = {"dryrun": "offline", "run": "online", "shared": "online"}
_TRUE: Final = {"1", "true", "t", "yes", "y", "on"}


@dataclass(frozen=True, slots=True)
class Said:
    """A setting's value, and who says so."""

    value: str
    source: str


def what_is_missing() -> str | None:
    """What has to be installed, in words that a user can act on; `None` if nothing."""
    found, oldest = _version(), ".".join(map(str, OLDEST))
    if not found:
        return f"wandb is not installed; run: pip install 'wandb>={oldest}'"
    if found < OLDEST:
        told = ".".join(map(str, found))
        return f"wandb {told} is too old to share a run reliably; run: pip install 'wandb>={oldest}'"
    return None


def sends_summary_early() -> bool:
    """Whether a summary arrives before its rows, where these do not fit in one request of 10 MiB."""
    return _version() < _SUMMARY_LAST


def _version() -> tuple[int, ...]:
    """The installed version's numbers; empty if there is none."""
    try:
        return tuple(int(number) for number in re.findall(r"\d+", version("wandb"))[:3])
    except PackageNotFoundError:
        return ()


def what_hinders(args: WandbArgs) -> str | None:
    """Why several processes cannot write one run here, and what to change; `None` if they can."""
    if missing := what_is_missing():
        return missing
    found = mode(args)
    if found.value != "online":
        return (
            f"wandb is {found.value} ({found.source}), and only online runs can be shared: shared mode would go "
            "online all the same. Set mode to online, or leave it so and each role has a run of its own"
        )
    if credentials_missing := what_key_is_missing(args):
        return credentials_missing
    return None


def what_key_is_missing(args: WandbArgs) -> str | None:
    """What to do for credentials, if there are none."""
    if api_key(args) is not None or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    url = base_url(args)
    return (
        f"wandb has no API key for {url}; set WANDB_API_KEY or monitor_args.api_key, or run "
        f"`wandb login --host {url}`"
    )


def mode(args: WandbArgs) -> Said:
    """`online`, `offline` or `disabled`."""
    if args.mode:
        return Said(args.mode, "monitor_args.mode")
    found = _setting("mode")
    if found is None:
        return _mode_of_switches()
    return Said(_ALIASES.get(found.value, found.value), found.source)


def _mode_of_switches() -> Said:
    """Older ways to switch it off: an environment variable, and what `wandb disabled` writes."""
    found = _setting("disabled")
    if found is not None and found.value.lower() in _TRUE:
        return Said("disabled", found.source)
    return Said("online", "by default")


def base_url(args: WandbArgs) -> str:
    """The server."""
    found = _setting("base_url")
    return args.base_url or (found.value.rstrip("/") if found else _default_url())


def _default_url() -> str:
    """The installed SDK's own default, which its sources say: importing it would take more than a second."""
    spec = find_spec("wandb")
    source = Path(spec.origin).parent / "sdk/lib/urls.py" if spec and spec.origin else Path()
    try:
        found = re.search(r'^DEFAULT_BASE_URL = "(.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return _HOSTED
    return found[1] if found else _HOSTED


def api_key(args: WandbArgs) -> str | None:
    """The key for the server, wherever it is kept."""
    if args.api_key is not None:
        return args.api_key.get_secret_value()
    return os.environ.get("WANDB_API_KEY") or _key_of_netrc(base_url(args)) or _settings().get("api_key")


def _setting(name: str) -> Said | None:
    variable = f"WANDB_{name.upper()}"
    if value := os.environ.get(variable):
        return Said(value, f"{variable} in the environment")
    for path in _settings_files():
        if value := _read(path).get(name):
            return Said(value, str(path))
    return None


def _settings() -> Mapping[str, str]:
    merged: dict[str, str] = {}
    for path in reversed(list(_settings_files())):
        merged.update(_read(path))
    return merged


def _settings_files() -> Iterator[Path]:
    """The working directory's, which `wandb init` and `wandb offline` write, then the user's."""
    hidden = Path.cwd() / ".wandb"
    yield (hidden if hidden.is_dir() else Path.cwd() / "wandb") / "settings"
    moved = os.environ.get("WANDB_CONFIG_DIR") if _version() >= _MOVES_SETTINGS else None
    yield Path(moved or "~/.config/wandb").expanduser() / "settings"


def _read(path: Path) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}  # the SDK says so itself, and goes on without it
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
