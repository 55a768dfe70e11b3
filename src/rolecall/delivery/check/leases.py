"""Holds the delivery to one run, so that no courier sends rows to it meanwhile."""

from collections.abc import Sequence
from typing import Self, get_args

from rolecall.errors import Unavailable, WriterConflict
from rolecall.states import Status
from rolecall.store.acks import Acknowledgements, RunReference, is_carried
from rolecall.store.layout import Layout
from rolecall.store.lease import newest


class Leases:
    """The lease of each writer's delivery to one run.

    Args:
        layout: the job's files.
        backend: the backend.
        carriers: every writer whose courier has the run open; the one that opens and ends it first.

    Raises:
        WriterConflict: a courier lives.
    """

    def __init__(self, layout: Layout, backend: str, carriers: Sequence[str]) -> None:
        refuse_live(layout, backend, carriers)
        self._owner = carriers[0]
        self._acks: dict[str, Acknowledgements] = {}
        self._statuses: dict[str, Status | None] = {}
        delivered = [writer for writer in carriers if newest(layout.delivery(backend, writer))]
        try:
            # The owner's in any case, as a new run would be written down there.
            for writer in dict.fromkeys([self._owner, *delivered] if delivered else ()):
                self._claim(layout, backend, writer)
        except WriterConflict:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def touch(self) -> None:
        """Show other hosts that this process is alive."""
        for acks in list(self._acks.values()):
            acks.touch()

    def require(self) -> None:
        """Make sure that no other host has counted this process as dead: what it sent then would be there twice.

        Raises:
            Unavailable: one has, and sends rows itself.
        """
        if any(acks.is_taken_over() for acks in self._acks.values()):
            raise Unavailable("another courier has taken over, as it counted this process as dead")

    def start_again(self, reference: RunReference) -> None:
        """From now on, all rows belong to another run, which holds none."""
        self._acks[self._owner].refer(reference)
        for writer, acks in self._acks.items():
            acks.start_again()
            self._statuses[writer] = None

    def release(self) -> None:
        """Leave the delivery as the last courier left it; or unfinished, if all rows have to be sent again."""
        for writer, acks in self._acks.items():
            acks.release(self._statuses[writer])

    def _claim(self, layout: Layout, backend: str, writer: str) -> None:
        session = newest(layout.delivery(backend, writer))
        status = session.status() if session else None
        self._statuses[writer] = status if status in get_args(Status) else None  # type: ignore[assignment]
        self._acks[writer] = Acknowledgements(layout, backend, writer)


def refuse_live(layout: Layout, backend: str, carriers: Sequence[str]) -> None:
    """Make sure that no courier lives that has the run open.

    Raises:
        WriterConflict: one does.
    """
    for writer in carriers:
        if is_carried(layout, backend, writer):
            session = newest(layout.delivery(backend, writer))
            owner = (session and session.owner()) or "another process"
            raise WriterConflict(
                f"a courier still sends rows of {writer} to {backend} ({owner}). Repair the run once the job has "
                "ended; until then, verify it without --repair"
            )
