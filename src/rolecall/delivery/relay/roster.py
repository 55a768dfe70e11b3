"""The writers whose rows a relay delivers: who is there, who came, who came back, and whether another relay takes over.

A relay has one cursor for each writer and backend, which goes on with the sessions that a restarted role opens. New
writers are found by one look at the directory of journals, and not by a thread for each.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from rolecall import timings
from rolecall.config.spec import JobSpec
from rolecall.delivery.cursor import Cursor
from rolecall.delivery.relay.steps import GrowingSteps
from rolecall.errors import DirectoryError, WriterConflict
from rolecall.store.acks import Acknowledgements, is_carried, is_meant_for
from rolecall.store.layout import LAUNCH, Layout, read_record
from rolecall.store.lease import newest
from rolecall.store.spool import Mirror


class Roster:
    """The writers of one job, as its relay to one backend finds them.

    Args:
        spec: the job.
        backend: where the relay delivers to.
        launcher: the cursor of the launcher, whose place is the relay's too.
        is_followed: whether another launcher has that place by now.

    Attributes:
        steps: steps in place of the rows' own, for a backend that needs growing ones.
    """

    def __init__(self, spec: JobSpec, backend: str, launcher: Cursor, is_followed: Callable[[], bool]) -> None:
        self._spec = spec
        self._backend = backend
        self._layout = Layout(spec.monitor_dir)
        self._cursors = [launcher]
        self._is_followed = is_followed
        self._mirrors: dict[str, Mirror] = {}
        self._looked = float("-inf")
        self._is_relieved = False
        self.steps = GrowingSteps(self._layout.run(backend, LAUNCH).with_name("steps.json"))

    @property
    def is_relieved(self) -> bool:
        """Whether the job was launched again, with a relay that goes on from here; as the last look found it."""
        return self._is_relieved

    def arrivals(self, *, now: bool = False) -> Sequence[Cursor]:
        """The cursors of writers that came since the last look, and of those that came back.

        Args:
            now: whether to look even if the last look was a moment ago.

        Raises:
            OSError: the directory does not answer.
        """
        if not now and time.monotonic() - self._looked < timings.ROSTER_INTERVAL:
            return ()
        self._looked = time.monotonic()
        self._is_relieved = self._is_relieved or (self._is_followed() and self._has_relay())
        if self._is_relieved:
            return ()
        back = [cursor for cursor in self._cursors if cursor.status is not None and cursor.goes_on()]
        known = {cursor.writer for cursor in self._cursors}
        others = (writer for writer in self._layout.writers() if writer not in known)
        new = [cursor for writer in others for cursor in self._meet(writer)]
        self._cursors += new
        return [*back, *new]

    def touch(self) -> bool:
        """Show other hosts that the roles of this one are alive, as they have no process beside them that does it.

        Returns:
            Whether any role is alive, on any host.
        """
        roles = [cursor for cursor in tuple(self._cursors) if cursor.writer != LAUNCH]
        for cursor in roles:
            cursor.touch()
        with suppress(OSError):  # a directory that does not answer says nothing about the roles
            return any(not cursor.is_over() for cursor in roles)
        return True

    def close(self) -> None:
        """Remove from the node what was spooled there and is in `monitor_dir` now."""
        for mirror in self._mirrors.values():
            with suppress(OSError):  # a directory that does not answer: `deliver` does it later
                mirror.copy()

    def _meet(self, writer: str) -> Iterator[Cursor]:
        """A cursor for a writer that nobody delivers; at the next look, if somebody still does."""
        # First, as a claim would wait for a courier on another host that may be dead.
        if newest(self._layout.journal(writer)) is None or is_carried(self._layout, self._backend, writer):
            return
        if not is_meant_for(self._layout, self._backend, writer):
            return
        with suppress(WriterConflict):
            acks = Acknowledgements(self._layout, self._backend, writer)
            yield Cursor(self._layout, writer, acks, self._refresh(writer), timings.LIVENESS_INTERVAL)

    def _refresh(self, writer: str) -> Callable[[], None]:
        """Copies what a role spools on this node: its own process does that too, but may have died with it."""
        mirror = Mirror(self._spec, writer)
        session = newest(self._layout.journal(writer))
        if session is None or mirror.spool_of(session) is None:
            return lambda: None
        self._mirrors[writer] = mirror
        with suppress(OSError):  # a disk that does not answer is tried again
            mirror.copy()
        return partial(_copy, mirror)

    def _has_relay(self) -> bool:
        """Whether the launcher that came after has a relay, and leaves it to no other machine."""
        try:
            record = read_record(self._layout)
        except DirectoryError:
            return True
        plans = record.plan.backends if record is not None else ()
        return any(plan.backend == self._backend and plan.courier != "none" for plan in plans)


def _copy(mirror: Mirror) -> None:
    with suppress(OSError):  # as above
        mirror.copy(newest_only=True)
