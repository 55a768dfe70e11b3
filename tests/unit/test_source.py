"""What a session's header says of the process that opened it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall import MonitorConfig, launch, open_monitor
from rolecall.delivery.group import make_ticket
from rolecall.source import git_commit, source_in, source_of_process
from rolecall.store.layout import LAUNCH

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="no git")
ROLE = """
import sys
from rolecall import MonitorConfig, open_monitor
with open_monitor(MonitorConfig.from_env(), "trainer") as monitor:
    monitor.log({"loss": 1.0})
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
    # Not what this machine's own settings say, or what a hook runs under.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, env=env | {"HOME": str(folder)}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, and a script below it."""
    folder = tmp_path / "checkout"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "train.py").write_text(ROLE)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@needs_git
@pytest.mark.parametrize(
    "change", [None, ("pack-refs", "--all"), ("checkout", "-q", "--detach"), ("switch", "-qc", "a/b")]
)
def test_commit_is_that_of_git(checkout: Path, change: tuple[str, ...] | None) -> None:
    if change is not None:
        git(checkout, *change)
    assert git_commit(str(checkout / "jobs" / "train.py")) == git(checkout, "rev-parse", "HEAD")


@needs_git
def test_worktree_has_a_commit_of_its_own(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-qb", "other", str(tmp_path / "other"))
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "second")
    found = [git_commit(str(folder / "jobs" / "train.py")) for folder in (checkout, tmp_path / "other")]
    assert found == [git(checkout, "rev-parse", "HEAD"), git(tmp_path / "other", "rev-parse", "HEAD")]
    assert found[0] != found[1]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"ref: refs/heads/main\n", b"gitdir: /nowhere\n"])
@pytest.mark.parametrize("name", [".git", ".git/HEAD"])
def test_odd_repository_has_no_commit(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert git_commit(str(tmp_path / "train.py")) is None


@pytest.mark.parametrize("script", ["", "-c", "/nowhere/train.py", "\0"])
def test_no_script_has_no_commit(script: str) -> None:
    assert git_commit(script) is None


@pytest.mark.parametrize(("argv", "name"), [([""], "<console>"), ([], "<console>"), (["\udcff.py"], "?.py")])
def test_any_script_has_a_name(monkeypatch: pytest.MonkeyPatch, argv: list[str], name: str) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert source_of_process() == {"name": name, "user": getpass.getuser()}


def test_header_of_a_stranger_is_harmless() -> None:
    assert source_in({"source": {"name": 3}}) == {"name": "3"}
    assert source_in({"source": ["name"]}) == source_in({}) == {}


@needs_git
@pytest.mark.processes
def test_ticket_tells_the_source_of_its_run(
    make_config: Callable[..., MonitorConfig], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's of a shared run, and of a role's own run that of the role, which is another program."""
    monkeypatch.setattr(sys, "argv", ["launch.py"])
    script = str(checkout / "jobs" / "train.py")
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        subprocess.run([sys.executable, script], env={**os.environ, **job.config.to_env()}, check=True)
        with open_monitor(job.config, "explorer"):
            pass

    def source(writer: str, *, shared: bool) -> dict[str, str]:
        return dict(make_ticket(job.config.spec(), writer, "lines", shared=shared).source)

    user = getpass.getuser()
    assert source("trainer", shared=True) == {"name": "launch.py", "user": user}
    assert source(LAUNCH, shared=False) == source("explorer", shared=False) == {"name": "launch.py", "user": user}
    commit = git(checkout, "rev-parse", "HEAD")
    assert source("trainer", shared=False) == {"name": script, "user": user, "commit": commit}
