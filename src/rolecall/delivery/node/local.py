"""What of a job is on this node: its agent, and its roles."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from zlib import crc32

from rolecall import timings
from rolecall.config.spec import JobSpec
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.group import TendedWriter
from rolecall.store.codec import open_own
from rolecall.store.layout import Layout, node_name
from rolecall.store.lease import Owner, Session, newest, this_process
from rolecall.store.spool import Mirror, make_root

LEFT_TO_AGENT = "agent"
"""In the header of a role that has no courier: the agent does for it what couriers do beside delivering."""


def agent_names() -> tuple[str, str]:
    """The names that the agent of this node may have; the second one if another machine's has the first.

    Containers may share the name of their host, and processes in one do not see those in another.
    """
    host = socket.gethostname()
    return node_name(host), node_name(f"{host[:55]}-{crc32(this_process().space.encode()):08x}")


def take_agents_place(spec: JobSpec) -> int | None:
    """Take the place of this node's agent in a job: who has it starts the agent, which inherits it.

    It is a lock on a file of this node and not the agent's lease in `monitor_dir`, at which a role must not look: see
    `rolecall.job.beside`.

    Returns:
        A descriptor, or `None` if the place is taken: until every process that has the descriptor has closed it or has
        ended (flock(2)).

    Raises:
        DirectoryError, OSError: the file cannot be written.
    """
    # Roles in one container do not see those in another, so each has an agent.
    job = "\0".join((spec.run_id, str(spec.monitor_dir), this_process().space))
    folder = make_root(spec.spool_dir) / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    place = open_own(folder / f"{sha256(job.encode()).hexdigest()[:16]}.lock", create=True)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(place)
        if not isinstance(error, BlockingIOError):
            raise
        return None
    return place


def _local_owner(session: Session) -> Owner | None:
    """The owner of a session, if it lives and is on this node."""
    owner = session.owner()
    return owner if owner is not None and owner.is_here() and session.is_live() else None


def _opened(session: Session) -> float:
    opened = session.header().get("opened")
    return float(opened) if isinstance(opened, int | float) else 0.0


@dataclass(slots=True)
class _Role:
    """A role of this node; `tended` if it has no courier."""

    session: Session
    owner: Owner
    tended: TendedWriter | None

    def is_live(self) -> bool:
        try:
            return self.owner.is_running() and self.session.status() is None
        except OSError:  # the directory does not answer, so it is alive as long as its process is
            return True


class LocalRoles:
    """The roles of this node, and what is done for those that have no courier: mirrors, syncs and heartbeats.

    Args:
        spec: the job.
        report: gets what goes wrong.

    Attributes:
        pids: the process of each live role, by writer. Another thread may read it.
    """

    def __init__(self, spec: JobSpec, report: Callable[[CourierEvent], None]) -> None:
        self._spec = spec
        self._report = report
        self._layout = Layout(spec.monitor_dir)
        self._roles: dict[str, _Role] = {}
        self._seen: dict[str, Session] = {}
        self._own: TendedWriter | None = None
        self._left: dict[TendedWriter, float] = {}
        self._looked = self._touched = float("-inf")
        self.pids: Mapping[str, int] = {}

    def add_own(self, writer: str) -> None:
        """The agent's own journal is mirrored, too, and its lease kept."""
        self._own = TendedWriter(self._spec, writer, self._report)

    def tend(self) -> bool:
        """What is due now; whether there will be more.

        That is while a role lives, and while rows of one that has ended are not copied yet. A directory that does not
        answer, or is gone, is tried again the next time, for up to `DRAIN_TIMEOUT` seconds after the role's end.
        """
        now = time.monotonic()
        with suppress(OSError):
            if now - self._looked >= timings.HEARTBEAT:
                self._look()
                self._looked = now
            self._drop_ended()
            self._copy_left(now)
            if not self._roles:
                self._look()  # a role may have been started again a moment ago
            is_due = now - self._touched >= timings.HEARTBEAT
            for writer in self._tended():
                writer.mirror()
                if is_due:
                    writer.touch()
            self._touched = now if is_due else self._touched
        return bool(self._roles or self._left)

    def recover(self) -> None:
        """Copy what roles spooled that died together with an earlier agent."""
        with suppress(OSError):
            for writer in self._layout.roles():
                session = newest(self._layout.journal(writer))
                if session is not None and session.header().get(LEFT_TO_AGENT) is True and not session.is_live():
                    Mirror(self._spec, writer).copy()

    def stop(self) -> None:
        """The last of what is done for the agent's own journal."""
        if self._own is not None:
            with suppress(OSError):
                self._own.stop()

    def _look(self) -> None:
        """Look for roles that are new on this node, or were started again."""
        for writer in self._layout.roles():
            session = newest(self._layout.journal(writer))
            # Each session is looked at once: a job may have hundreds of roles on other nodes, and a session that has
            # ended does not live again.
            if session is None or self._seen.get(writer) == session:
                continue
            if (owner := _local_owner(session)) is not None:
                is_left = session.header().get(LEFT_TO_AGENT) is True
                if is_left and self._is_half_open(writer, session):
                    continue
                self._drop(writer)
                tended = TendedWriter(self._spec, writer, self._report) if is_left else None
                self._roles[writer] = _Role(session, owner, tended)
            self._seen[writer] = session
        self.pids = {writer: role.owner.pid for writer, role in self._roles.items()}

    def _is_half_open(self, writer: str, session: Session) -> bool:
        """Whether a role has its session and not yet its spool, which it makes next; a later look finds both."""
        is_spooled = "spool" in session.header() and Mirror(self._spec, writer).spool_of(session) is None
        return is_spooled and time.time() - _opened(session) < timings.STALE

    def _drop_ended(self) -> None:
        for writer in [writer for writer, role in self._roles.items() if not role.is_live()]:
            self._drop(writer)
            self.pids = {writer: role.owner.pid for writer, role in self._roles.items()}

    def _drop(self, writer: str) -> None:
        """A role has ended: copy the rest of it."""
        role = self._roles.pop(writer, None)
        if role is not None and role.tended is not None:
            role.tended.stop()
            self._left[role.tended] = time.monotonic() + timings.DRAIN_TIMEOUT

    def _copy_left(self, now: float) -> None:
        for tended, until in list(self._left.items()):
            if tended.is_mirrored() or now >= until:
                del self._left[tended]
            else:
                tended.stop()

    def _tended(self) -> Iterator[TendedWriter]:
        if self._own is not None:
            yield self._own
        yield from (role.tended for role in self._roles.values() if role.tended is not None)
