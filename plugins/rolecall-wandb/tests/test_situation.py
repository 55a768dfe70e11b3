"""What the plugin makes of the environment, beside what the real SDK makes of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

import rolecall_wandb.situation
from rolecall import MonitorConfig, resolve
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.situation import api_key, base_url, mode, what_hinders

KEY = "0123456789abcdef0123456789abcdef01234567"
OTHER = "76543210fedcba9876543210fedcba9876543210"
OURS = "http://localhost:9"

IS_OLD = Version(version("wandb")) < Version("0.19.11")

ASK_THE_SDK = """
import json, wandb
settings = wandb.setup().settings
mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
print(json.dumps([mode, settings.base_url]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working directory without any word of wandb."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "home/.config/wandb").mkdir(parents=True)
    (tmp_path / "work/wandb").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(path: Path, **settings: str) -> None:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    path.write_text("\n".join(["[default]", *lines]) + "\n")


def by_nothing(place: Path) -> None:
    """A fresh machine."""


def by_environment(place: Path) -> None:
    os.environ["WANDB_MODE"] = "offline"
    os.environ["WANDB_BASE_URL"] = OURS


def by_an_old_name(place: Path) -> None:
    os.environ["WANDB_MODE"] = "dryrun"


def by_the_users_file(place: Path) -> None:
    write(place / "home/.config/wandb/settings", mode="offline", base_url=OURS)


def by_the_directorys_file(place: Path) -> None:
    write(place / "work/wandb/settings", mode="offline")
    write(place / "home/.config/wandb/settings", mode="online", base_url=OURS)


def by_another_directory_of_settings(place: Path) -> None:
    (place / "else").mkdir()
    write(place / "else/settings", mode="offline", base_url=OURS)
    os.environ["WANDB_CONFIG_DIR"] = str(place / "else")


def by_environment_over_files(place: Path) -> None:
    write(place / "home/.config/wandb/settings", mode="offline", base_url="http://elsewhere:1")
    os.environ["WANDB_MODE"] = "online"
    os.environ["WANDB_BASE_URL"] = OURS


def by_a_broken_file(place: Path) -> None:
    (place / "home/.config/wandb/settings").write_text("mode = offline\nno section")


@pytest.mark.parametrize(
    "said",
    [
        by_nothing,
        by_environment,
        *(pytest.param(said, marks=pytest.mark.servers) for said in (by_an_old_name, by_the_users_file)),
        by_the_directorys_file,
        pytest.param(by_another_directory_of_settings, marks=pytest.mark.servers),
        by_environment_over_files,
        pytest.param(by_a_broken_file, marks=pytest.mark.skipif(IS_OLD, reason="0.19 does not start with one")),
    ],
)
def test_mode_and_server_are_the_sdks(
    place: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", os.environ.copy())
        said(place)
        found = subprocess.run(
            [sys.executable, "-c", ASK_THE_SDK], env=dict(os.environ), capture_output=True, check=True, text=True
        )
        ours = [mode(WandbArgs()).value, base_url(WandbArgs())]
    assert ours == json.loads(found.stdout.splitlines()[-1])


def test_arguments_come_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://elsewhere:1")
    monkeypatch.setenv("WANDB_API_KEY", OTHER)
    args = WandbArgs.model_validate({"mode": "online", "base_url": OURS, "api_key": KEY})
    assert (mode(args).value, base_url(args), api_key(args)) == ("online", OURS, KEY)


def test_netrc_key_is_for_its_host(place: Path) -> None:
    (place / "home/.netrc").write_text(f"machine localhost:9 login user password {KEY}\n")
    (place / "home/.netrc").chmod(0o600)
    assert api_key(WandbArgs(base_url=OURS)) == KEY
    assert api_key(WandbArgs()) is None


@pytest.mark.parametrize("url", ["https://api.wandb.ai", "https://api.forge.coreweave.com"])
def test_clouds_key_has_several_names(place: Path, url: str) -> None:
    (place / "home/.netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert api_key(WandbArgs(base_url=url)) == KEY


def downgrades(place: Path, **monitor_args: Any) -> list[str]:
    config = MonitorConfig(
        project="gsm8k",
        name="grpo-1",
        monitor_type="wandb",
        monitor_args=monitor_args,
        monitor_dir=place / "monitor",
        shared_run=True,
    )
    return [downgrade.reason for downgrade in resolve(config).downgrades]


def test_online_job_with_key_is_shared(place: Path) -> None:
    assert downgrades(place, api_key=KEY) == []


@pytest.mark.parametrize(
    ("environment", "monitor_args", "expected"),
    [
        ({"WANDB_MODE": "offline"}, {}, ["wandb is offline (WANDB_MODE in the environment)", "online"]),
        ({"WANDB_MODE": "disabled"}, {}, ["wandb is disabled (WANDB_MODE in the environment)"]),
        ({}, {"mode": "offline"}, ["wandb is offline (monitor_args.mode)"]),
        ({}, {}, ["no API key for https://api.", "WANDB_API_KEY", "wandb login --host"]),
        ({}, {"base_url": OURS}, [f"no API key for {OURS}"]),
    ],
)
def test_unshareable_run_says_what_to_change(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: Mapping[str, str],
    monitor_args: dict[str, Any],
    expected: list[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (reason,) = downgrades(place, **monitor_args)
    assert [part for part in expected if part not in reason] == []


def test_settings_file_saying_offline_is_named(place: Path) -> None:
    write(place / "work/wandb/settings", mode="offline")
    (reason,) = downgrades(place, api_key=KEY)
    assert str(place / "work/wandb/settings") in reason


def test_an_identity_token_is_a_credential(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", "/run/token")
    assert what_hinders(WandbArgs()) is None


@pytest.mark.parametrize(("installed", "is_old"), [("0.19.9", True), ("0.19.10", False), ("1.0.0rc1", False)])
def test_too_old_an_sdk_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, installed: str, is_old: bool) -> None:
    monkeypatch.setattr(rolecall_wandb.situation, "version", lambda _: installed)
    reason = what_hinders(WandbArgs.model_validate({"api_key": KEY}))
    assert ("is too old" in (reason or "")) == is_old
