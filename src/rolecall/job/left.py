"""Counts what backends lack of a writer, in a process of its own.

A look at a network filesystem whose server is frozen can't be given up. On FUSE the process that looks can't even end
before it is answered, whichever of its threads it was (Linux 6.18 with sshfs 3.7, measured). So a role, which is to
end on time, has it done by a process that it need not wait for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rolecall.store.acks import undelivered
from rolecall.store.layout import Layout

__all__ = ["count_left", "count_left_apart"]


def count_left(root: Path, writer: str, backends: Sequence[str]) -> dict[str, int]:
    """How many rows of a writer each backend lacks."""
    layout = Layout(root)
    return {name: undelivered(layout, name, writer) for name in backends}


def count_left_apart(
    root: Path, writer: str, backends: Sequence[str], seconds: float
) -> dict[str, int] | None:
    """The same, or `None` if it is not known within so many seconds."""
    command = [sys.executable, "-P", "-m", "rolecall.job.left", str(root), writer, *backends]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        counted: dict[str, int] = json.loads(process.communicate(timeout=seconds)[0])
    except (subprocess.TimeoutExpired, ValueError):
        _dismiss(process)
        return None
    return counted


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    """It dies when the directory answers, and nobody waits for that but a thread that no one waits for."""
    process.kill()
    if process.stdout is not None:
        process.stdout.close()
    threading.Thread(target=process.wait, name="rolecall-look", daemon=True).start()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count_left(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])))
