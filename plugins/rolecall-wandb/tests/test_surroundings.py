"""What a run says of its program is the role's, though a courier opens it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from wandb_beside import REMOTE, SUPPORT, make_repository, own_runs, run_plain, run_through_rolecall
from wandb_emulator import StoredRun, WandbServer

from rolecall import MonitorConfig, RunTicket
from rolecall_wandb.surroundings import _program, in_place_of_role, settings_of_role

PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize(
    ("command", "program", "arguments"),
    [
        ("", None, ""),
        (PYTHON, None, ""),
        (f"{PYTHON} train.py --x", "train.py", "--x"),
        (f"{PYTHON} -m pkg.mod --x 1", "-m pkg.mod", "--x 1"),
        (f"{PYTHON} -mpkg.mod", "-m pkg.mod", ""),
        (f"{PYTHON} -um pkg.mod", "-m pkg.mod", ""),
        (f"{PYTHON} -m", None, ""),
        (f"{PYTHON} -u -W ignore train.py -m eval", "train.py", "-m eval"),
        (f"{PYTHON} -Wignore -Xdev -BI train.py", "train.py", ""),
        (f"{PYTHON} -uX dev train.py", "train.py", ""),
        (f"{PYTHON} --check-hash-based-pycs never train.py", "train.py", ""),
        (f"{PYTHON} -c pass train.py", None, "train.py"),
        (f"{PYTHON} - train.py", None, "train.py"),
        (f"{PYTHON} /usr/bin/torchrun --nproc 2 train.py", "/usr/bin/torchrun", "--nproc 2 train.py"),
        (f"{PYTHON} -m torch.distributed.run train.py", "-m torch.distributed.run", "train.py"),
        ("ray::Explorer.step()", None, ""),
    ],
)
def test_program_of_a_command_line(command: str, program: str | None, arguments: str) -> None:
    assert _program(command.split()) == (program, arguments.split())


def ticket(tmp_path: Path, pid: int) -> RunTicket:
    return RunTicket(
        project="p",
        name="n",
        group=None,
        run_id="r",
        backend_run_id=None,
        shared=False,
        primary=True,
        writer="trainer",
        role="trainer",
        config={},
        directory=tmp_path,
        pid=pid,
    )


def test_roles_own_run_is_left_alone(tmp_path: Path) -> None:
    mine = ticket(tmp_path, os.getpid())
    before = list(sys.argv)
    with in_place_of_role(mine):
        assert (sys.argv, os.environ.get("WANDB_PROGRAM")) == (before, None)
    assert settings_of_role(mine) == {"git_root": str(Path.cwd())}


def test_ended_role_has_no_program(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with in_place_of_role(ticket(tmp_path, gone.pid)):
        assert os.environ["WANDB_PROGRAM"] == "<python with no main file>"
    assert "WANDB_PROGRAM" not in os.environ


def test_program_named_by_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROGRAM", "notebook.ipynb")
    with in_place_of_role(ticket(tmp_path, 1)):
        assert os.environ["WANDB_PROGRAM"] == "notebook.ipynb"
    assert os.environ["WANDB_PROGRAM"] == "notebook.ipynb"


def metadata(run: StoredRun) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(run.files["wandb-metadata.json"])
    return {"upserted": run.named["program"], **found}


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.parametrize(
    "command",
    [
        ["-u", "-W", "ignore", "train.py", "--comment", "two words"],
        [str(SUPPORT / "wandb_same.py"), "--comment", "-m eval"],
        ["-m", "wandb_same", "--comment", ""],
        ["-c", "import wandb_same; wandb_same.main()"],
    ],
)
def test_the_run_shows_the_roles_program(
    server: WandbServer,
    make_config: Callable[..., MonitorConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    commit = make_repository(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for ran in (run_plain(*command), run_through_rolecall(make_config(shared_run=False), *command)):
        assert ran.returncode == 0, ran.stderr
    theirs, ours = (metadata(run) for run in own_runs(server))
    shown = ("upserted", "program", "codePath", "codePathLocal", "args", "executable", "git", "host")
    assert {key: ours.get(key) for key in shown} == {key: theirs.get(key) for key in shown}
    assert ours["git"] == {"commit": commit, "remote": REMOTE}
