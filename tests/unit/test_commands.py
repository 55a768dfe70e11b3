"""The commands that messages print: they work where they are pasted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rolecall.config.commands import command, with_path
from rolecall.delivery.events import CourierEvent, EventLog

SCRIPT = Path(sys.executable).with_name("rolecall")


@pytest.fixture
def unactivated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in which the environment of rolecall is not activated."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.mark.usefixtures("unactivated")
def test_command_runs_in_plain_shell(tmp_path: Path) -> None:
    printed = command("show", tmp_path / "it's here; $HOME", "--metric", "*")
    ran = subprocess.run(printed, shell=True, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert f"{tmp_path}/it's here; $HOME: " in ran.stderr


def test_name_found_on_path_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(SCRIPT.parent))
    assert command("show", "runs/a b") == "rolecall show 'runs/a b'"


def test_another_rolecall_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "rolecall"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(command("show")) == [str(SCRIPT), "show"]


def test_no_script_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    assert shlex.split(command("show")) == [str(python), "-m", "rolecall", "show"]


def test_directory_that_looks_like_option() -> None:
    assert shlex.split(command("show", Path("-x"), "--csv"))[-2:] == ["./-x", "--csv"]


@pytest.mark.usefixtures("unactivated")
def test_urls_work_in_plain_shell() -> None:
    """What `Job.urls` and `Monitor.urls` hold."""
    events = EventLog("trainer")
    events.add(CourierEvent("tracker", "opened", url="rolecall show runs"))
    events.add(CourierEvent("console", "opened"))
    assert events.urls == {"tracker": f"{SCRIPT} show runs", "console": None}


@pytest.mark.usefixtures("unactivated")
def test_where_to_look() -> None:
    assert with_path("https://tracker/run 1") == "https://tracker/run 1"
    assert with_path("no-such-program --port 1") == "no-such-program --port 1"
    assert with_path("rolecall show 'a b'") == f"{SCRIPT} show 'a b'"
    assert with_path("sh -c true") == "sh -c true"
    assert with_path("COLUMNS=80 rolecall ls") == f"COLUMNS=80 {SCRIPT} ls"


def test_where_to_look_beside_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "rolecall"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert with_path("rolecall show a") == f"{SCRIPT} show a"
    monkeypatch.setenv("PATH", str(SCRIPT.parent))
    assert with_path("rolecall show a") == "rolecall show a"


def test_a_config_is_checked_from_standard_input() -> None:
    config = "train:\n  rate: 0.2\nmonitor:\n  project: p\n  name: n\n  monitor_dir: /job\n"
    ran = subprocess.run([str(SCRIPT), "check", "-"], input=config, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("p / n in /job\n")
