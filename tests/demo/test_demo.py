"""The demo as a person runs it: what it learns, what it reports, and how it ends when it is disturbed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rolecall import ConfigError
from rolecall.config.commands import command
from rolecall.demo import DemoOptions, DemoResult, options_of, run_demo
from rolecall.demo.command import _where_to_look
from rolecall.errors import DirectoryError
from rolecall.job.history import JobHistory, read_history, read_rows
from rolecall.store.layout import Layout
from rolecall.store.lease import Owner, newest

WRITERS = ["evaluator", "explorer/0", "explorer/1", "trainer"]
COMMAND = [sys.executable, "-c", "import sys; from rolecall.__main__ import main; sys.exit(main())", "demo"]
Wait = Callable[..., None]
Inline = Callable[..., list[float]]


@pytest.fixture
def options(tmp_path: Path) -> DemoOptions:
    return options_of(monitor_type=["local"], steps=3, monitor_dir=tmp_path / "demo")


def steps_of(root: Path) -> dict[str, list[int]]:
    """The steps that each writer logged metrics at."""
    rows = [row for row in read_rows(root) if row.metrics]
    return {writer: [row.step for row in rows if row.writer == writer] for writer in WRITERS}


def steps_to(last: int) -> dict[str, list[int]]:
    return {writer: list(range(1, last + 1)) for writer in WRITERS}


# ------------------------------------------------------------------ what it does


@pytest.mark.servers
@pytest.mark.processes
def test_processes_learn_what_one_process_learns(
    options: DemoOptions, train_inline: Inline, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_demo(options)
    assert list(result.returns) == train_inline(steps=3, seed=0)
    assert steps_of(result.directory) == steps_to(3)
    history = read_history(result.directory)
    assert {writer.writer: (writer.state, writer.tables) for writer in history.writers} == {
        "evaluator": ("finished", 2),
        "explorer/0": ("finished", 0),
        "explorer/1": ("finished", 0),
        "trainer": ("finished", 0),
    }
    assert re.search(r"round 3/3: return \d+", capsys.readouterr().out)


@pytest.mark.servers
@pytest.mark.processes
def test_without_monitor_it_learns_the_same(options: DemoOptions, train_inline: Inline) -> None:
    result = run_demo(replace(options, monitor_type=("none",), steps=1))
    assert list(result.returns) == train_inline(steps=1, seed=0)
    assert not options.monitor_dir.exists()


@pytest.mark.servers
@pytest.mark.processes
def test_it_prints_a_command_that_works(tmp_path: Path) -> None:
    """Also in a shell in which the environment is not activated."""
    env = {**os.environ, "PATH": "/usr/bin:/bin"}
    arguments = ["--monitor-type", "local", "--steps", "1", "--monitor-dir", "it's here"]
    ran = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    printed = ran.stdout.partition("Look at the run:\n")[2].splitlines()[0].strip()
    shown = subprocess.run(
        f"{printed} --json", shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["state"] == "finished"


def test_where_to_look(tmp_path: Path) -> None:
    urls = {"local": None, "acme": "https://acme/run", "rolecall": "/bin/rolecall show x"}
    result = DemoResult(returns=(1.0,), directory=tmp_path, urls=urls, seconds=1.0)
    lines = [line.strip() for line in _where_to_look(result)]
    assert lines[:4] == ["Look at the run:", command("show", tmp_path), "https://acme/run", "/bin/rolecall show x"]
    assert list(_where_to_look(replace(result, urls={}))) == ["\nMonitoring was off: nothing was recorded."]


@pytest.mark.processes
@pytest.mark.parametrize("seed", range(2))
def test_its_return_at_least_doubles(options: DemoOptions, seed: int) -> None:
    result = run_demo(replace(options, steps=options_of().steps, seed=seed))
    assert result.last_quarter >= 2 * result.first_quarter
    assert steps_of(result.directory) == steps_to(options_of().steps)


# ------------------------------------------------------------------- what it takes


def test_fresh_directory_is_taken_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "cartpole")
    taken = []
    for _ in range(3):
        taken.append(options_of().monitor_dir)
        taken[-1].mkdir(parents=True)
    assert taken == [Path("rolecall-demo", name) for name in ("cartpole", "cartpole-2", "cartpole-3")]


@pytest.mark.parametrize(("setting", "value"), [("steps", 0), ("seed", -1)])
def test_number_out_of_range_is_refused(setting: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}: must be a whole number from \d, not {value}"):
        options_of(**{setting: value})  # type: ignore[arg-type]


# -------------------------------------------------------------- how it is disturbed


@pytest.fixture
def endless(tmp_path: Path, wait_until: Wait) -> Iterator[subprocess.Popen[str]]:
    """A demo in a process of its own that is well under way, in `demo` below `tmp_path`."""
    settings = ["--monitor-type", "local", "--steps", "100000", "--monitor-dir", "demo"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *settings], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as demo:
        try:
            wait_until(lambda: all_have_logged(tmp_path / "demo"), timeout=60)
            yield demo
        finally:
            demo.kill()


def all_have_logged(root: Path) -> bool:
    try:
        writers = read_history(root).writers
    except DirectoryError:
        return False
    return [writer.writer for writer in writers if writer.rows] == WRITERS


def owner(root: Path, writer: str) -> Owner:
    session = newest(Layout(root).journal(writer))
    found = session.owner() if session else None
    assert found is not None
    return found


def states(root: Path) -> set[str]:
    history: JobHistory = read_history(root)
    return {history.state, *(writer.state for writer in history.writers)}


@pytest.mark.processes
def test_ctrl_c_ends_it_cleanly(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    endless.send_signal(signal.SIGINT)
    out, err = endless.communicate(timeout=60)
    assert endless.returncode == 130
    first, end, last = err.splitlines()
    assert (first.startswith("rolecall: run cartpole-"), " rows: local " in end) == (True, True)
    assert last == "rolecall: interrupted"
    assert f"Stopped. To see what was logged: {command('show', 'demo')}" in out
    assert states(tmp_path / "demo") == {"killed"}


@pytest.mark.processes
def test_killed_role_ends_it_by_name(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(owner(tmp_path / "demo", "explorer/1").pid, signal.SIGKILL)
    _, err = endless.communicate(timeout=60)
    assert endless.returncode == 2
    _, warning, _, last = err.splitlines()
    assert "closing the job with roles that did not close: explorer/1 killed (process " in warning
    assert last == "rolecall: explorer/1 was killed by SIGKILL; the other roles have been stopped"
    assert states(tmp_path / "demo") == {"failed", "killed"}


@pytest.mark.servers
@pytest.mark.processes
def test_killed_launcher_leaves_no_role_behind(
    endless: subprocess.Popen[str], tmp_path: Path, wait_until: Wait
) -> None:
    roles = [owner(tmp_path / "demo", writer) for writer in WRITERS]
    endless.kill()
    wait_until(lambda: not any(role.is_running() for role in roles), timeout=60)
