"""What the server holds of the rows that SDKs were handed for a shared run."""

from __future__ import annotations

from collections.abc import Mapping

from rolecall import RunTicket
from rolecall_wandb.lines import HandedOver, Ranges, Session
from rolecall_wandb.server import RunState
from rolecall_wandb.watch import SETTLE, Watch, until

__all__ = ["Progress"]


class Progress:
    """What the server holds of each session's rows.

    What a running SDK was handed is on its way: the server's counts tell when it has arrived (see
    `rolecall_wandb.lines`). Once an SDK has ended, only rows count that the server shows, when it has shown no more for
    a while.
    """

    def __init__(self, ticket: RunTicket, watch: Watch) -> None:
        self._watch = watch
        self._writer = ticket.writer if ticket.writers == "one" else None
        self._sessions: dict[Session, HandedOver] = {}
        # Whether the server shows all that was handed to SDKs which have ended, a predecessor's too.
        self._is_quiet = not _has_predecessor(ticket)
        self._is_read = True

    def of(self, session: Session) -> HandedOver:
        """What is known of a session; a predecessor may have handed over some of it.

        Raises:
            Unavailable: the server does not answer; any method here may raise it.
        """
        if session not in self._sessions:
            handed = HandedOver(*session)
            self._await_quiet()
            counts = self._watch.look(counts=True).counts
            if counts is None or any(counts.get(key) for key in handed.keys):
                handed.restart(self._watch.read_back([session]), session)
            self._sessions[session] = handed
        return self._sessions[session]

    def confirmed(self, session: Session) -> int:
        """The `seq` up to which the server holds every row of a session, as far as that is known."""
        handed = self._sessions.get(session)
        return handed.confirmed if handed else 0

    @property
    def is_waiting(self) -> bool:
        """Whether the SDK was handed rows that are not confirmed."""
        return any(handed.is_waiting for handed in self._sessions.values())

    def learn(self, state: RunState) -> Mapping[str, int]:
        """Learn which rows have arrived; return the counts that say so."""
        counts = state.counts
        if counts is None:  # a server that does not count
            counts = self._watch.read_back(self._sessions).counts
        if [each for each in self._sessions.values() if each.learn(counts)]:  # `any` would stop at the first
            self._watch.moved()
        return counts

    def are_lost(self, counts: Mapping[str, int]) -> bool:
        """Whether some rows did not arrive, by counts that were just learned."""
        return bool([each for each in self._sessions.values() if each.are_lost(counts)])

    def end(self) -> None:
        """The SDK has ended. From here on only rows that the server shows count."""
        self._is_read = self._is_quiet = False

    def settle(self) -> None:
        """The SDK has ended, and all that it was handed is confirmed."""
        self._is_read = self._is_quiet = True

    def catch_up(self) -> None:
        """Learn what an SDK has uploaded that ended before the server showed all of it."""
        if not self._is_read:
            self._await_quiet()
            self._read_back()
            self._is_read = True

    def is_shown(self) -> bool:
        """Whether the server shows every row when it is read back; it may take a while."""
        given = {session: handed.rows for session, handed in self._sessions.items()}
        return until(lambda: self._shows(given), SETTLE)

    def _shows(self, given: Mapping[Session, Ranges]) -> bool:
        self._read_back()
        return all(self._sessions[session].held.cover(rows) for session, rows in given.items())

    def _read_back(self) -> None:
        found = self._watch.read_back(self._sessions)
        for session, handed in self._sessions.items():
            handed.restart(found, session)

    def _await_quiet(self) -> None:
        if not self._is_quiet:
            self._watch.await_quiet(self._writer)
            self._is_quiet = True


def _has_predecessor(ticket: RunTicket) -> bool:
    """Whether an SDK was opened before for this writer's rows; remembered in a file."""
    directory = ticket.directory / (ticket.writer or "@launcher").replace("/", "@")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{ticket.run_id}.opened").touch(exist_ok=False)
    except OSError:  # it is there; or nobody can know
        return True
    return False
