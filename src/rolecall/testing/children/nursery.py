"""The processes of a test: one for each courier and for each look of a reader, none of which can hang the test.

They are forked from one process, the `Nursery`, that has imported rolecall and nothing of a backend. To import it anew
takes most of a second, which is more than most tests take.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

MARK: Final = "ROLECALL_CONTRACT_PROCESS"
"""A variable of the environment, by which the processes are found that a backend's SDK has started."""
_COMMAND: Final = """
import sys
from rolecall.testing.children.service import raise_children
raise_children(int(sys.argv[1]), sys.argv[2:])
"""
_PRELOAD: Final = 300.0
"""Seconds for the imports of a `Nursery`: on a busy machine, MLflow's took more than 120."""
_NUMBER: Final = 8
_FORK, _REAP = b"+", b"-"
"""As `rolecall.testing.children.service` knows them, which imports more than a test needs."""
_SOON: Final = 2.0


class BackendRaised(AssertionError):
    """A call of the backend, or of the author's reader, raised something.

    Attributes:
        kinds: the names of its class and of those that it is derived from.
        details: what the process says about it beside the message.
    """

    def __init__(self, message: str, kinds: frozenset[str], details: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.kinds = kinds
        self.details = details


class BackendHung(AssertionError):
    """A call of the backend, or of the author's reader, did not return in time, or its process ended."""


class Nursery:
    """Starts the processes of tests.

    Args:
        preload: modules that it imports beside rolecall.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_PRELOAD)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def start(self, folder: Path, environ: Mapping[str, str], patience: float) -> "Child":
        """A new process, whose working directory is `folder`; what it prints is in the file `log` beside that."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [_FORK], [theirs.fileno()])
        number = self._socket.recv(_NUMBER, socket.MSG_WAITALL)
        if len(number) < _NUMBER:
            raise RuntimeError("the process that starts those of the tests has ended; it says above why")
        child = Child(ours, int.from_bytes(number, "big"), patience, folder.with_name("log"))
        child.call("settle", environ=dict(environ), folder=str(folder), path=sys.path, log=str(child.log))
        return child

    def reap(self) -> None:
        """Let go of the processes that have ended.

        Until then the system gives their numbers to no other process, which a test would end in their place.
        """
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(_REAP)

    def close(self) -> None:
        """End it, and what it has started."""
        self._socket.close()
        self._process.wait()


class Child:
    """One process, which does what it is asked to, one thing at a time.

    Attributes:
        pid: the process.
        log: the file that has what it printed.
        hung: whether it was given up, as it did not return in time.
    """

    def __init__(self, connection: socket.socket, pid: int, patience: float, log: Path) -> None:
        self.pid = pid
        self.log = log
        self.hung = False
        self._patience = patience
        self._socket = connection
        self._file = connection.makefile("rb")

    def call(self, name: str, /, **given: Any) -> Any:
        """Have it done by the function of `rolecall.testing.children.service.Service` that has this name.

        Raises:
            BackendRaised: the function raised.
            BackendHung: it did not return within the patience of the test, or the process died.
        """
        # What the author knows: a method of the run or a reader, and not the function here that calls all of them.
        said = given.get("method", given.get("reader", name))
        # A process that is gone shows when it is read from.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.settimeout(self._patience)
            self._socket.sendall(json.dumps({"call": name, "given": given}, default=plain).encode() + b"\n")
        try:
            line = self._file.readline()
        except TimeoutError:
            self.hung = True
            stack = self._stack()
            self.kill()
            raise BackendHung(f"{said} did not return within {self._patience:g} s{stack}") from None
        except ConnectionResetError:
            line = b""
        if not line:
            raise BackendHung(f"the process ended in {said}{self._printed()}")
        reply = json.loads(line)
        if "raised" in reply:
            raise BackendRaised(f"{said} raised {reply['raised']}", frozenset(reply["kinds"]), reply)
        return reply["result"]

    def kill(self) -> None:
        """Kill the process alone, as the kernel does when memory is short. What its SDK started goes on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._file.close()
        self._socket.close()

    def _stack(self) -> str:
        """Where it hangs, which it prints for this signal."""
        before = self._printed()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _SOON
        while self._printed() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._printed()

    def _printed(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n" + "\n".join(lines[-20:]) if lines else ""


def plain(value: object) -> object:
    """A value that JSON lacks, as a process gets it."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    secret = getattr(value, "get_secret_value", None)
    return secret() if callable(secret) else str(value)


def end_all(mark: str, sessions: Collection[int]) -> None:
    """End every process that has this mark or is of one of these sessions, however it was started."""
    for pid in _left(mark, sessions):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _left(mark: str, sessions: Collection[int]) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        # One that has ended meanwhile, or is somebody else's.
        with suppress(OSError):
            # After the name, which may hold anything: state, parent, group, session (proc(5)).
            session = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[3])
            if session in sessions or wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
