"""The hooks, and the messages that a user sees at launch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

from rolecall import BackendRefused, Registry, RunGone, RunTicket
from rolecall_trackio import plugin
from rolecall_trackio.args import TrackioArgs

ARGS = TrackioArgs(dir=Path())
OPENS = """
import socket, sys
def refuse(*_): raise AssertionError("it opens a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from rolecall import Row, RunTicket
from rolecall_trackio import plugin
ticket = RunTicket(project="p", name="n", group=None, run_id="r", backend_run_id=None, shared=False, primary=True,
    writer="trainer", role="trainer", config={}, directory=Path(sys.argv[1]), pid=1)
run = plugin.open_run(ticket, plugin.backend_args()(dir="."))
run.log([Row(writer="trainer", session=1, seq=1, step=1, time=1.0, metrics={"loss": 1.0})])
run.flush(10.0)
run.close("finished")
"""


def test_entry_point_loads_this_plugin() -> None:
    (point,) = entry_points(group="rolecall.backends", name="trackio")
    assert point.load() is plugin
    assert Registry().load("trackio").supports_shared_run(ARGS).supported


@pytest.mark.processes
def test_importing_and_asking_imports_no_sdk() -> None:
    code = (
        "import sys; from rolecall_trackio import plugin as p; p.supports_shared_run(p.backend_args()());"
        "print(*({'trackio', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.processes
def test_run_prints_nothing_and_connects_to_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENS, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"TRACKIO_DIR": "/scratch/t", "HF_HOME": "/hf"}, "/scratch/t"),
        ({"HF_HOME": "/hf"}, "/hf/trackio"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/huggingface/trackio"),
        ({}, str(Path.home() / ".cache/huggingface/trackio")),
    ],
)
def test_default_directory_is_trackios(
    env: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRACKIO_DIR", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    args = TrackioArgs()
    assert str(args.base(tmp_path)) == expected
    assert "dir" in args.model_fields_set, "roles get what the launcher found"
    ask = "from trackio.utils import TRACKIO_DIR; print(TRACKIO_DIR)"
    ran = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == expected


def test_relative_directory_is_below_folder(tmp_path: Path) -> None:
    assert ARGS.base(tmp_path) == tmp_path
    assert TrackioArgs(dir=Path("a/b")).base(tmp_path) == tmp_path / "a" / "b"


@pytest.mark.parametrize("value", [{"dir": ".."}, {"dir": "a/../../b"}, {"directory": "x"}])
def test_wrong_arguments_are_refused(value: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TrackioArgs.model_validate(value)


@pytest.mark.parametrize("hook", [plugin.prepare, plugin.open_run])
def test_unusable_directory_is_refused(
    ticket: Callable[..., RunTicket], folder: Path, hook: Callable[..., object]
) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()
    with pytest.raises(BackendRefused, match=r"set monitor_args\.dir to another directory"):
        hook(ticket(), ARGS)


def test_network_file_system_is_refused(ticket: Callable[..., RunTicket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")  # what it finds there by itself
    with pytest.raises(BackendRefused, match="is on a network file system"):
        plugin.prepare(ticket(), ARGS)


def test_project_that_trackio_refuses(ticket: Callable[..., RunTicket]) -> None:
    with pytest.raises(BackendRefused, match="'registry-x' is not allowed"):
        plugin.prepare(ticket(project="registry-x"), ARGS)


def test_missing_run_is_gone(ticket: Callable[..., RunTicket], folder: Path) -> None:
    with pytest.raises(RunGone, match="has no run abc"):
        plugin.open_readback(ticket(backend_run_id="abc"), ARGS)
    assert not folder.exists(), "reading creates nothing"


def test_address_is_a_command(ticket: Callable[..., RunTicket], folder: Path) -> None:
    url = plugin.open_run(ticket(project="a b"), ARGS).url
    assert url == f"TRACKIO_DIR={folder} trackio show --project 'a b'"
