"""What a process runs, as the header of its session says it: its script, its user and the git commit.

Trackers show this of a run, and a courier, which opens the run, is another process.
"""

import getpass
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_COMMIT: Final = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_MOST: Final = 4 << 20
"""Bytes of a file of git's that are read: `packed-refs` has a line for each branch and tag."""


def source_of_process() -> dict[str, str]:
    """The `name` of the script, the `user`, and the `commit`; without what is not known."""
    script = str(sys.argv[0]) if getattr(sys, "argv", None) else ""
    # A prompt has no script; the words are those of MLflow's SDK.
    found = {"name": script or "<console>", "user": _user(), "commit": git_commit(script)}
    # A path may be bytes that are no text, which no header holds.
    return {name: value.encode("utf-8", "replace").decode() for name, value in found.items() if value}


def source_in(header: Mapping[str, Any]) -> dict[str, str]:
    """What a session's header says of it; anyone may have written it."""
    found = header.get("source")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def git_commit(script: str) -> str | None:
    """The commit that is checked out where a script is; `None` if there is none.

    The files of git are read, as a process of `git` would cost a role more than all else of its start.
    """
    try:
        path = Path(script)
        if not path.is_file():
            return None
        for folder in path.resolve().parents:
            if (found := folder / ".git").exists():
                return _head(_git_dir(found))
    except (OSError, ValueError):  # a folder of somebody else's, or bytes that are no text
        pass
    return None


def _git_dir(found: Path) -> Path:
    """Where git's files are: in a worktree or a submodule, `.git` is a file that names the place."""
    return found if found.is_dir() else found.parent / _read(found).removeprefix("gitdir:").strip()


def _head(directory: Path) -> str | None:
    head = _read(directory / "HEAD").strip()
    if not head.startswith("ref:"):
        return head if _COMMIT.fullmatch(head) else None
    ref = head.removeprefix("ref:").strip()
    # Of several worktrees, each has its HEAD, and all have the branches in common.
    common = directory / _read(directory / "commondir").strip()
    for place in (directory, common):
        if _COMMIT.fullmatch(commit := _read(place / ref).strip()):
            return commit
    packed = (line.split() for line in _read(common / "packed-refs").splitlines())
    return next((words[0] for words in packed if words[1:] == [ref]), None)


def _read(path: Path) -> str:
    """What a file holds; nothing if it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        return None
