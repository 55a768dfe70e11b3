"""What happens to a role, and to its rows, when somebody changes the files that it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).parents[1] / "support" / "changed_files.py"
CHANGES = (
    "truncate_to_0",
    "truncate_to_half",
    "copytruncate",
    "rename",
    "rotate",
    "sed",
    "rename_directory",
    "remove_directory",
    "remove_journal",
    "hard_link_and_removal",
    "chown",
    "full_disk",
    "read_only",
)
SKIPPED = 77
WORDS = ("rows are being lost", "the journal goes on in", "was left out")


def make_change(kind: str, change: str, server: Path, *slow: str) -> dict[str, Any]:
    if kind != "disk" and (os.getuid() != 0 or shutil.which("unshare") is None):
        pytest.skip("mounting needs root and unshare(1)")
    server.mkdir()
    namespace = ["unshare", "--mount"] if kind != "disk" else []
    ran = subprocess.run(
        [*namespace, sys.executable, str(SCRIPT), kind, change, str(server), *slow],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if ran.returncode == SKIPPED:
        pytest.skip(ran.stdout.strip())
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def check(result: dict[str, Any]) -> None:
    """The role ended by itself; each row is in the backend once, or counted and warned of once."""
    assert result["status"] == 0, result["errors"]
    steps = result["steps"]
    assert len(steps) == len(set(steps)), "a row was delivered twice"
    absent = result["logged"] - len(steps)
    assert absent <= result["lost"], result
    about = [message for message in result["messages"] if any(word in message for word in WORDS)]
    assert len(about) <= 1, about
    assert about or not result["lost"], "rows were lost in silence"
    for _, said in result["delivers"]:
        assert not absent or "all rows are delivered" not in said, said


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay"])
def test_rows_arrive_or_are_counted(tmp_path: Path, kind: str, change: str) -> None:
    if change == "read_only" and kind != "ext4":
        pytest.skip("the kernel remounts no filesystem read-only while a file of it is written, but ext4's own errors")
    check(make_change(kind, change, tmp_path / "server"))


@pytest.mark.parametrize("change", ["truncate_to_0", "truncate_to_half", "rotate", "sed", "remove_journal"])
def test_also_behind_a_slow_backend(tmp_path: Path, change: str) -> None:
    check(make_change("disk", change, tmp_path / "server", "slow"))
