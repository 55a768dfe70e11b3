"""Starts Python programs by forking one process that has imported rolecall: for most of them, that is all their work.

`Forks` is for the tests. This file is also the program that forks: `python -S forks.py DESCRIPTOR`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from pathlib import Path

PRELOADED = ("packaging.requirements", "yaml", "rolecall.cli.backends", "rolecall.cli.check", "rolecall.job.launch")


@dataclass(frozen=True)
class Ran:
    """A program that has ended."""

    status: int
    out: str
    err: str


class Forks:
    """Runs programs, each in a process of its own.

    Args:
        path: where Python finds what they import, beside its own modules.
    """

    def __init__(self, path: Path) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-S", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"PATH": os.defpath, "PYTHONPATH": str(path)},
            )

    def run(self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Ran:
        """As `python -S *arguments` does, which are `-m MODULE ...` or `-c CODE ...`."""
        task = {"arguments": arguments, "folder": str(folder), "environ": dict(environ)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            data = json.dumps(task).encode()
            socket.send_fds(self._socket, [len(data).to_bytes(8, "big")], [out.fileno(), err.fileno()])
            self._socket.sendall(data)
            answer = self._socket.recv(8, socket.MSG_WAITALL)
            assert len(answer) == 8, "the process that forks has ended; it says above why"
            status = int.from_bytes(answer, "big", signed=True)
            return Ran(status, *(os.pread(file.fileno(), 1 << 24, 0).decode() for file in (out, err)))

    def close(self) -> None:
        """End the process that forks."""
        self._socket.close()
        self._process.wait()


def main() -> None:
    """Fork for each task that comes. The new process returns from here as a program ends."""
    for module in PRELOADED:
        import_module(module)
    gc.freeze()  # a collection in a new process would write to every object, and so copy all memory of this one
    own_path = sys.path[1:]  # the first is the folder of this file
    with closing(socket.socket(fileno=int(sys.argv[1]))) as connection:
        while True:
            size, descriptors, _, _ = socket.recv_fds(connection, 8, 2, socket.MSG_WAITALL)
            if not size:
                return
            task = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                break
            for descriptor in descriptors:
                os.close(descriptor)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            connection.sendall(status.to_bytes(8, "big", signed=True))
    for standard, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environ"])
    sys.path[:] = ["", *filter(None, task["environ"].get("PYTHONPATH", "").split(os.pathsep)), *own_path]
    invalidate_caches()
    kind, program, *rest = task["arguments"]
    sys.argv[:] = [program if kind == "-m" else kind, *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
