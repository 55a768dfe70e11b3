"""Who holds a name: numbered files, of which the highest is the holder's.

A writer, a launcher's place and the carrying of one writer's rows to one backend may each have one live owner.
Each is a directory of files `1.jsonl`, `2.jsonl`, ...: a *session* each. A session's file is made whole, with
its first frame naming the owner, under a name of its own and then linked to its number, which fails if another
process was quicker. It ends with a frame `{"end": status}`. So there is no lock, nothing to release after a
SIGKILL, and nothing that a slower process could remove from under a quicker one.

An owner on this host lives while its process does. One on another host lives while its file was touched within
`STALE` seconds: its courier does so every `HEARTBEAT` seconds.
"""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rolecall.errors import WriterConflict
from rolecall.store.codec import append_frame, encode, first_frame, last_frame
from rolecall.store.files import open_own

__all__ = ["HEARTBEAT", "STALE", "Owner", "Session", "claim", "end", "newest", "sessions", "this_process"]

HEARTBEAT = 5.0
STALE = 60.0
_SESSION = re.compile(r"([1-9][0-9]{0,17})\.jsonl", re.ASCII)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from a later one with the same number by its start time (Linux: in clock ticks).

    `space` is what process numbers mean something in: the boot of the machine and, as containers may share a
    host's name, the namespace of processes.
    """

    host: str
    pid: int
    start: str
    space: str

    def is_here(self) -> bool:
        """Whether this process would see it."""
        return (self.host, self.space) == (socket.gethostname(), _space())

    def is_running(self) -> bool:
        """Whether the process still runs; only meaningful if it is here."""
        return _start_of(self.pid) == self.start


@dataclass(frozen=True, slots=True)
class Session:
    """One numbered file of a claim, as a reader finds it."""

    path: Path
    number: int

    def header(self) -> dict[str, Any]:
        """Its first frame; empty if that is missing or damaged."""
        return first_frame(self.path) or {}

    def status(self) -> str | None:
        """How its owner ended it; `None` if it has not."""
        end = (last_frame(self.path) or {}).get("end")
        return str(end) if end is not None else None

    def owner(self) -> Owner | None:
        """Whose it is; `None` if its first frame does not say."""
        match self.header().get("owner"):
            case {"host": str(host), "pid": int(pid), "start": str(start), "space": str(space)}:
                return Owner(host, pid, start, space)
            case _:
                return None

    def is_live(self) -> bool:
        """Whether its owner runs and has not ended it."""
        owner = self.owner()
        if owner is None or self.status() is not None:
            return False
        return owner.is_running() if owner.is_here() else self.silence() < STALE

    def look(self) -> tuple[bool, str | None]:
        """Whether it is live, and how its owner ended it; in this order, as it may end at any moment between them."""
        return self.is_live(), self.status()

    def silence(self) -> float:
        """Seconds since the file was last written or touched."""
        try:
            return max(0.0, time.time() - self.path.stat().st_mtime)
        except FileNotFoundError:
            return float("inf")


def this_process() -> Owner:
    """The owner that this process is."""
    pid = os.getpid()
    return Owner(host=socket.gethostname(), pid=pid, start=_start_of(pid) or "", space=_space())


def sessions(directory: Path) -> list[Session]:
    """The sessions of a claim, oldest first."""
    names = os.listdir(directory) if directory.is_dir() else []
    numbers = (int(match[1]) for match in map(_SESSION.fullmatch, names) if match)
    return [_session(directory, number) for number in sorted(numbers)]


def newest(directory: Path) -> Session | None:
    """The session of the holder, live or not; `None` if the claim was never held."""
    return next(reversed(sessions(directory)), None)


def claim(directory: Path, header: Mapping[str, Any], holder: str) -> Session:
    """Become the owner of the next session.

    Raises:
        WriterConflict: a live process holds it; `holder` says what in words.
    """
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        last = newest(directory)
        if last is not None and last.is_live():
            raise WriterConflict(_conflict(holder, last))
        session = _create(directory, (last.number if last else 0) + 1, header)
        if session is not None:
            return session


def end(session: Session, status: str) -> None:
    """End a session that is nothing but a claim; only its owner may."""
    descriptor = open_own(session.path)
    try:
        append_frame(descriptor, {"end": status})
    finally:
        os.close(descriptor)


def _session(directory: Path, number: int) -> Session:
    return Session(directory / f"{number}.jsonl", number)


def _create(directory: Path, number: int, header: Mapping[str, Any]) -> Session | None:
    """The new session, or `None` if another process took the number first."""
    session = _session(directory, number)
    draft = directory / f".{uuid.uuid4().hex}"
    try:
        draft.write_bytes(encode({"rolecall": 1, "owner": asdict(this_process()), **header}))
        os.link(draft, session.path)
    except FileExistsError:
        # Over NFS a link can succeed, its answer get lost, and its repetition say that there is one.
        return session if draft.samefile(session.path) else None
    finally:
        draft.unlink(missing_ok=True)
    return session


def _conflict(holder: str, session: Session) -> str:
    owner = session.owner()
    where = f"process {owner.pid} on {owner.host}" if owner else "another process"
    silent = (
        f" If it is gone: what cannot be seen from here is taken for dead after {STALE:.0f} s of silence."
    )
    return (
        f"{holder} is held by {where} ({session.path}). Stop that process, or use another monitor_dir "
        f"(or another role or rank) for this one.{'' if owner and owner.is_here() else silent}"
    )


def _space() -> str:
    """The boot and the namespace that this process's number belongs to; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a live process started, as an opaque text; `None` if there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_without_proc(pid: int) -> str | None:
    """Without /proc (macOS) a process number is all there is to go by."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
