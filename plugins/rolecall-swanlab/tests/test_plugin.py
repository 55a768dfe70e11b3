"""The hooks, and the messages that a user sees at launch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

from rolecall import BackendRefused, Registry, Run, RunTicket
from rolecall_swanlab import plugin
from rolecall_swanlab.args import SwanlabArgs

OPENS = """
import socket, sys
def refuse(*_): raise AssertionError("it opens a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from rolecall import Row, RunTicket
from rolecall_swanlab import plugin
hooks = sys.excepthook
ticket = RunTicket(project="p", name="n", group=None, run_id="r", backend_run_id=None, shared=False, primary=True,
    writer="trainer", role="trainer", config={}, directory=Path(sys.argv[1], "folder"), pid=1)
run = plugin.open_run(ticket, plugin.backend_args()(mode="offline"))
run.log([Row(writer="trainer", session=1, seq=1, step=1, time=1.0, metrics={"loss": 1.0})])
run.flush(10.0)
run.close("finished")
assert sys.excepthook is hooks
"""


def test_entry_point_loads_this_plugin() -> None:
    (point,) = entry_points(group="rolecall.backends", name="swanlab")
    assert point.load() is plugin
    assert Registry().load("swanlab").supports_shared_run(SwanlabArgs()).supported


@pytest.mark.processes
def test_importing_and_asking_imports_no_sdk() -> None:
    code = (
        "import sys; from rolecall_swanlab import plugin as p; p.supports_shared_run(p.backend_args()());"
        "print(*({'swanlab', 'google.protobuf', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


@pytest.mark.processes
def test_offline_run_leaves_all_else_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints nothing, connects to nothing, and writes into its folder alone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    command = [sys.executable, "-c", OPENS, str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("env", "given", "mode"),
    [
        ("", {}, "online"),
        ("offline", {}, "offline"),
        ("cloud", {}, "online"),
        ("offline", {"mode": "online"}, "online"),
    ],
)
def test_mode_is_the_launchers(env: str, given: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_MODE", env)
    args = SwanlabArgs.model_validate(given)
    assert args.mode == mode
    assert args.model_dump(exclude_unset=True) == ({"mode": mode} if env or given else {}), "roles get it"


@pytest.mark.parametrize("value", [{"mode": "local"}, {"mode": "disabled"}, {"dir": "x"}])
def test_wrong_arguments_are_refused(value: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SwanlabArgs.model_validate(value)


def test_project_that_swanlab_refuses(ticket: Callable[..., RunTicket]) -> None:
    with pytest.raises(BackendRefused, match=r"(?s)project.*should match pattern"):
        plugin.open_run(ticket(project="a b"), SwanlabArgs(mode="offline"))


def test_address_is_a_command(open_run: Callable[..., Run], folder: Path) -> None:
    assert open_run().url == f"SWANLAB_RUN_ID=k3x9 swanlab sync {folder}/run-*-k3x9"
