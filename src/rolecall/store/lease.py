"""Leases: who holds a name.

A writer's name, the launcher's place and the delivery of one writer's rows to one backend may each have one live owner.
Each is a directory of numbered files `1.jsonl`, `2.jsonl`, ...: one for each *session*, of which the highest is the
owner's. A session's file is made whole under a name of its own, with a first line that names the owner, and then linked
to its number. `link(2)` fails if another process was quicker, so there is no lock, and nothing to release after a
SIGKILL. A session ends with a line `{"end": status}`.

An owner on this machine lives while its process does. One on another machine lives while its file is touched; its
courier does that every `HEARTBEAT` seconds. It counts as dead once this process has seen the file unchanged for `STALE`
seconds of its own monotonic clock: clocks of two machines may differ, and so may that of a file server. One look shows
nothing, so whoever must know waits (`proves_alive`); only what people are shown goes by the time of the file (`state`).
"""

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from rolecall.errors import WriterConflict
from rolecall.states import State
from rolecall.store.codec import (
    append_line,
    draft_of,
    encode,
    first_line,
    last_line,
    lines_from_end,
    make_folder,
    open_own,
    put_whole,
    refuse_link,
)
from rolecall.timings import POLL_INTERVAL, STALE

logger = logging.getLogger("rolecall")

FORMAT: Final = 2
"""The version of every file of lines. It is in the first line of each session."""
_SESSION: Final = re.compile(r"([1-9][0-9]{0,17})\.jsonl", re.ASCII)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Attributes:
        host: the name of its machine.
        pid: its number.
        start: when it started, in clock ticks on Linux. Tells it from a later process of the same number.
        space: the boot of the machine and the PID namespace, in which `pid` means something. A host's name may
            change, and containers share one.
    """

    host: str
    pid: int
    start: str
    space: str

    def is_here(self) -> bool:
        """Whether this process could see it."""
        return self.space == _space() if self.space else self.host == socket.gethostname()

    def is_running(self) -> bool:
        """Whether the process still runs; only meaningful if it is here."""
        return _start_of(self.pid) == self.start

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class Session:
    """One numbered file of a lease, as a reader finds it."""

    path: Path
    number: int

    @property
    def seed(self) -> int:
        """What the checksums of its lines start from: a line of another writer or session does not pass."""
        return crc32(f"{self.path.parent.name}/{self.number}".encode())

    @property
    def attachments(self) -> Path:
        """The folder of what is stored beside the file."""
        return self.path.with_suffix(".files")

    @property
    def header_copy(self) -> Path:
        """Where its first line is once more, if that holds a config."""
        return self.path.with_suffix(".header.json")

    def header(self) -> dict[str, Any]:
        """Its first line, or the copy beside it if that is damaged; empty if there is neither."""
        found = first_line(self.path, self.seed)
        if found is not None and "rolecall" in found:
            return found
        return first_line(self.header_copy) or {}

    def status(self) -> str | None:
        """How its owner ended it; `None` if it has not."""
        status = (last_line(self.path, self.seed) or {}).get("end")
        return str(status) if status is not None else None

    def owner(self) -> Owner | None:
        """Whose it is; `None` if its header does not say."""
        match self.header().get("owner"):
            case {"host": str(host), "pid": int(pid), "start": str(start), "space": str(space)}:
                return Owner(host, pid, start, space)
            case _:
                return None

    def is_live(self) -> bool:
        """Whether its owner has not ended it, and runs or, on another machine, may run as far as this process saw."""
        owner = self.owner()
        if owner is None or self.status() is not None:
            return False
        return owner.is_running() if owner.is_here() else time.monotonic() - _SIGHTINGS.since(self.path) < STALE

    def is_shown_live(self) -> bool:
        """Whether its owner has not ended it, and runs or, on another machine, showed that since the first look."""
        owner = self.owner()
        is_live = self.is_live()
        return is_live and owner is not None and (owner.is_here() or _SIGHTINGS.has_changed(self.path))

    def state(self) -> State:
        """What one look can tell people of it; of another machine's owner, by the time of the file."""
        owner = self.owner()
        # First: see `State.of`.
        is_live = self.is_live() and owner is not None and (owner.is_here() or self.silence() < STALE)
        return State.of(self.status(), is_live=is_live)

    def last_time(self) -> float | None:
        """When its owner ended it or, without an end, last wrote to it, by the owner's clock."""
        # Not the time of the file: a copy of the directory has another one, and so have rows that were spooled.
        times = (line.get("time", line.get("opened")) for line in lines_from_end(self.path, self.seed))
        return next((float(time) for time in times if isinstance(time, int | float)), None)

    def silence(self) -> float:
        """Seconds since the file was last written or touched, by the clock of this machine."""
        try:
            return max(0.0, time.time() - self.path.lstat().st_mtime)
        except FileNotFoundError:
            return float("inf")


class _Sightings:
    """What this process saw of the files of owners on other machines, and since when."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[tuple[int, int], float, bool]] = {}

    def since(self, path: Path) -> float:
        """Looks at a file; when it was first seen as it is now, by `time.monotonic`."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return float("-inf")
        seen, before = (found.st_mtime_ns, found.st_size), self._found.get(path)
        if before is not None and before[0] == seen:
            return before[1]
        now = time.monotonic()
        self._found[path] = (seen, now, before is not None)
        return now

    def has_changed(self, path: Path) -> bool:
        """Whether two looks found it different."""
        return path in self._found and self._found[path][2]


_SIGHTINGS: Final = _Sightings()

Fill = Callable[[Path, Session], None]
"""Appends to the file at a path what belongs into that of a session."""


def this_process() -> Owner:
    """The owner that this process is."""
    pid = os.getpid()
    return Owner(host=socket.gethostname(), pid=pid, start=_start_of(pid) or "", space=_space())


def sessions(directory: Path) -> list[Session]:
    """The sessions of a lease, oldest first.

    Raises:
        OSError: the directory cannot be read, or is a symlink.
    """
    try:
        names = os.listdir(refuse_link(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = (int(match[1]) for match in map(_SESSION.fullmatch, names) if match)
    return [Session(directory / f"{number}.jsonl", number) for number in sorted(numbers)]


def newest(directory: Path) -> Session | None:
    """The owner's session, live or not; `None` if nobody ever held the lease."""
    return next(reversed(sessions(directory)), None)


def is_held(directory: Path) -> bool:
    """Whether a process holds the lease that lives, as far as this one saw."""
    session = newest(directory)
    return session is not None and session.is_live()


def is_shown_held(directory: Path) -> bool:
    """Whether a process holds the lease that lives; one on another machine shows it within `HEARTBEAT` seconds."""
    session = newest(directory)
    return session is not None and session.is_shown_live()


def proves_alive(session: Session, holder: str) -> bool:
    """Whether a session's owner is alive; waits for one on another machine to show it.

    Args:
        session: the newest of its lease.
        holder: what is held, in words, for the one warning that it waits.
    """
    owner = session.owner()
    is_live = session.is_live()
    if owner is None or owner.is_here() or not is_live:
        return is_live
    since = _SIGHTINGS.since(session.path)
    wait = f"waiting for up to {STALE - time.monotonic() + since:.0f} s to see whether it is alive"
    logger.warning("%s was held by %s, which did not end it; %s", holder, owner, wait)
    # Each look opens the file, so what is seen of it is not what a network filesystem had cached.
    while session.is_live():
        if _SIGHTINGS.since(session.path) != since:
            return True
        time.sleep(POLL_INTERVAL)
    return False


def held_now(leases: Mapping[Path, str]) -> dict[Path, str]:
    """Those leases that live processes hold; waits for owners on other machines to show that they are alive.

    Args:
        leases: the directory of each, and what it holds in words.
    """
    found = {lease: session for lease in leases if (session := newest(lease)) is not None}
    suspects = {lease: session for lease, session in found.items() if session.is_live()}  # all are watched from here on
    return {lease: leases[lease] for lease, session in suspects.items() if proves_alive(session, leases[lease])}


def claim(directory: Path, header: Mapping[str, Any], holder: str, owner: Owner | None = None) -> Session:
    """Become the owner, with the next session.

    Args:
        directory: the lease.
        header: what the first line says beside the owner, ready for JSON: see `rolecall.config.redact.scrub`.
        holder: what is held, in words, for the error.
        owner: who becomes the owner; this process by default.

    Raises:
        WriterConflict: a live process holds it. About one on another machine that takes up to `STALE` seconds to tell.
    """
    make_folder(directory)
    while True:
        last = newest(directory)
        if last is not None and proves_alive(last, holder):
            raise WriterConflict(
                f"{holder} is held by {last.owner() or 'another process'} ({last.path}). Stop that process, or use "
                "another monitor_dir (or another role or rank) for this one."
            )
        if session := _create(directory, (last.number if last else 0) + 1, header, owner=owner):
            return session


def succeed(
    session: Session, header: Mapping[str, Any], fill: Fill | None = None, owner: Owner | None = None
) -> Session:
    """Go on in a new session of this process's own, behind one whose file is not what it wrote any more.

    Args:
        session: the one to go on from.
        header: what the first line says beside the owner.
        fill: appends to the file of the new session before anyone can see it.
        owner: who goes on; this process by default.
    """
    directory = session.path.parent
    make_folder(directory)
    while True:
        number = max(each.number for each in (session, *sessions(directory))) + 1
        if successor := _create(directory, number, {**header, "continues": session.number}, fill, owner):
            return successor


def end(session: Session, status: str) -> None:
    """End a session that holds nothing else; only its owner may."""
    with os.fdopen(open_own(session.path), "ab", buffering=0) as file:
        append_line(file.fileno(), {"end": status}, session.seed)


def _create(
    directory: Path, number: int, header: Mapping[str, Any], fill: Fill | None = None, owner: Owner | None = None
) -> Session | None:
    """The new session; `None` if another process took the number first."""
    session = Session(directory / f"{number}.jsonl", number)
    whole = {"rolecall": FORMAT, "owner": asdict(owner or this_process()), "session": number, **header}
    # A session has its name once it is whole, so nobody reads half of a header.
    with draft_of(session.path) as draft:
        draft.write_bytes(encode(whole, session.seed))
        if fill is not None:
            fill(draft, session)
        try:
            os.link(draft, session.path)
        except FileExistsError:
            # Over NFS a link can succeed although its answer gets lost; the repetition then finds the file there.
            if not draft.samefile(session.path):
                return None
    if "config" in header:
        # One bad sector at the start of a journal must not cost the owner and the config.
        put_whole(session.header_copy, encode(whole))
    return session


def _space() -> str:
    """The boot and the PID namespace of this process; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a live process started, as an opaque string; `None` if there is no such process, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        # Without /proc (macOS) the number is all there is.
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    # The name of the program, in parentheses, may hold spaces and parentheses itself (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
