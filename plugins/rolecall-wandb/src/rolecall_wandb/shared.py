"""One writer's part in a run that all roles of a job write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from rolecall import Row, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.definitions import Definitions
from rolecall_wandb.pieces import PIECE, UnderWay, pieces
from rolecall_wandb.sdk import init
from rolecall_wandb.server import RunPath, RunState, Server
from rolecall_wandb.situation import sends_summary_early
from rolecall_wandb.tables import TableTries, table_of
from rolecall_wandb.watch import LOST, NO_ROWS, NO_TABLE, Watch, until

__all__ = ["PROGRESS", "SharedRun"]

PROGRESS: Final = "_rolecall/"
"""In the run's summary, before a writer's name: session and seq of the last row that the server holds of it."""

CHECK_EVERY: Final = {True: 10.0, False: 60.0}
"""Seconds between looks at the bindings that the server holds: of the primary, of the others."""
REPAIR_AFTER: Final = 15.0
"""Seconds to wait for a repair to arrive before the next; the SDK holds an upload back for 5 (0.31.0)."""
SETTLE: Final = 10.0
"""Seconds for the server to show what the SDK has uploaded."""
EVERYTHING: Final = (1 << 63) - 1


class SharedRun:
    """One writer's part in a run.

    Every row is a line of history, whose `_step` the server counts in the order of arrival. How far the writer got
    stands in the run's summary, which the SDK transmits with the lines it belongs to or after them (0.22.1 and newer,
    however many; older ones up to 10 MiB): so what the server shows there is a proof that it holds the rows.
    """

    def __init__(self, ticket: RunTicket, args: WandbArgs, server: Server) -> None:
        self._ticket = ticket
        self._args = args
        self._known: dict[str, str] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._handed: dict[str, tuple[int, int]] = {}
        self._held: dict[str, tuple[int, int]] = {}
        self._under_way = UnderWay()
        self._in_pieces = sends_summary_early()
        self._tables = TableTries()
        self._checked = self._repaired = time.monotonic()
        self._sdk = init(ticket, args)
        with self._sdk.given_up_on_error():
            self._run = self._sdk.run
            self.path = RunPath(self._run.entity, self._run.project, self._run.id)
            self._watch = Watch(server, self.path)
            self._learn(self._watch.look(summary=True))
            self._begin()

    @property
    def id(self) -> str:
        """The run's id in wandb, which is rolecall's own."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`.

        Once some were lost they go in pieces, and no more is under way than a run that ends can bring. They always do
        where the summary, which tells that they arrived, would be there before them.
        """
        if not self._in_pieces:
            self._log_some(rows)
            return
        for piece in pieces(rows):
            self._log_some(piece)
            self._under_way.add(piece)
            if self._under_way.size >= PIECE:
                self.flush(SETTLE)

    def _log_some(self, rows: Sequence[Row]) -> None:
        self._rejoin_if_ended()
        self._expect()
        with self._lost_on_error():
            for row in rows:
                if not self._is_confirmed(row):
                    self._run.log({**row.metrics, "_timestamp": row.time})
                    self._handed[row.writer] = (row.session, row.seq)
            self._show_progress()

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads it before this returns."""
        self._rejoin_if_ended()
        if self._is_confirmed(row):
            return
        table = table_of(row)
        try:
            with self._sdk.at_hand():
                self._run.log({**table, **row.metrics, "_timestamp": row.time})
        except Exception as error:
            self._watch.look()  # a server that is away is not the table's fault
            self._tables.fail(row, error)
            raise self._lost(NO_TABLE.format(error)) from error
        self._expect()
        self._handed[row.writer] = (row.session, row.seq)
        with self._lost_on_error():
            self._show_progress()

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes; once the last rows are through, that is for the others to do."""
        self._known.update(axes)
        if self._is_open:
            with self._lost_on_error():
                self.definitions.define(axes)

    def merge_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """See `rolecall.SupportsConfig`: each writer's config under its name, beside the job's."""
        self._configs.update(config)
        if self._is_open:
            with self._lost_on_error():
                self._tell_config(config)

    def _tell_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        job = self._ticket.config
        told = {writer: {**_mapping(job.get(writer)), **own} for writer, own in config.items()}
        self._run.config.update(told, allow_val_change=True)  # type: ignore[no-untyped-call]

    def held(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsProgress`: what a living SDK has taken will get there."""
        return max(_seq(self._held.get(writer), session), _seq(self._handed.get(writer), session))

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        return _seq(self._held.get(writer), session)

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`: ask how far the server got, and repair its bindings."""
        now = time.monotonic()
        checks = now - self._checked >= CHECK_EVERY[self._ticket.primary]
        was_away = self._watch.was_away
        if self._watch.is_due() and (checks or was_away or self._is_waiting()):
            state = self._watch.look(summary=self._is_waiting(), config=checks)
            self._learn(state)
            if was_away:
                self._repair()
            if checks:
                self._check(state)
            if self._is_waiting():
                self._require_progress()
                with self._lost_on_error():
                    self._show_progress()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`. Ending the SDK's run presses the last rows out; they would take seconds by themselves."""
        handed = dict(self._handed)
        if self._holds(handed):  # a server that is away would hold `finish` up, so it is asked first
            return
        with suppress(Exception):  # what came of it the server is asked
            self._show_progress()
        with suppress(Exception):
            self._finish("finished")
        if not until(lambda: self._holds(handed), min(timeout, SETTLE)):
            raise self._lost()

    def _holds(self, handed: Mapping[str, tuple[int, int]]) -> bool:
        """Whether the server holds these rows, asked only if that is not known."""
        if self._lacks(handed):
            self._learn(self._watch.look(summary=True))
        return not self._lacks(handed)

    def close(self, status: Status) -> None:
        """See `rolecall.Run`; a primary uploads all bindings once more, and sees that the server took the end."""
        if not self._ticket.primary:
            self._finish(status)
            return
        self._rejoin_if_ended()
        with self._lost_on_error():
            self.definitions.touch()
        self._finish(status)
        self._watch.require_end(SETTLE)

    def _begin(self) -> None:
        """Tell the SDK, which has just joined, all that it has to know."""
        self._run = self._sdk.run
        self.definitions = Definitions(self._run)
        self.definitions.define(self._known)
        if self._configs:
            self._tell_config(self._configs)
        self._is_open = True

    def _rejoin_if_ended(self) -> None:
        """Go on with a new SDK; what the last one brought is known before."""
        if not self._is_open:
            self._learn(self._watch.look(summary=True))
            self._sdk = init(self._ticket, self._args)
            with self._sdk.given_up_on_error():
                self._begin()
            self._watch.moved()

    def _expect(self) -> None:
        """Have the server's time for what comes now run from here, if nothing was under way."""
        if not self._is_waiting():
            self._watch.moved()

    def _show_progress(self) -> None:
        """Also said again while it has not arrived: 0.19 sends a summary only when something else comes up."""
        marks = {PROGRESS + writer: f"{session}:{seq}" for writer, (session, seq) in self._handed.items()}
        if marks:
            self._run.summary.update(marks)

    def _is_confirmed(self, row: Row) -> bool:
        return row.seq <= self.confirmed(row.writer, row.session)

    def _is_waiting(self) -> bool:
        """Whether the SDK has rows that the server is not known to hold."""
        return self._lacks(self._handed)

    def _lacks(self, handed: Mapping[str, tuple[int, int]]) -> bool:
        return any(self._held.get(writer, (0, 0)) < last for writer, last in handed.items())

    def _learn(self, state: RunState) -> None:
        for key, value in state.summary.items():
            if key.startswith(PROGRESS):
                self._learn_one(key.removeprefix(PROGRESS), str(value))

    def _learn_one(self, writer: str, mark: str) -> None:
        session, _, seq = mark.partition(":")
        if session.isdecimal() and seq.isdecimal():
            told = (int(session), int(seq))
            if told > self._held.get(writer, (0, 0)):
                self._held[writer] = told
                self._count_as_moved(writer)

    def _count_as_moved(self, writer: str) -> None:
        """Others' rows, which the summary shows too, get there through SDKs of their own."""
        if writer in self._handed:
            self._watch.moved()
            self._under_way.drop(self._is_confirmed)

    def _check(self, state: RunState) -> None:
        self._checked = time.monotonic()
        if self.definitions.missing(state.config):
            self._repair()

    def _repair(self) -> None:
        if self._is_open and time.monotonic() - self._repaired >= REPAIR_AFTER:
            self._repaired = time.monotonic()
            with self._lost_on_error():
                self.definitions.touch()

    def _require_progress(self) -> None:
        if self._watch.is_stalled():
            raise self._lost()

    @contextmanager
    def _lost_on_error(self) -> Iterator[None]:
        """Whatever the SDK raises: it may have no process any more, and another one shall go on."""
        try:
            yield
        except Exception as error:
            raise self._lost(NO_ROWS.format(error)) from error

    def _lost(self, reason: str = LOST) -> Unavailable:
        """The SDK will not bring all rows: what the server does not hold is read again, and goes through a new one."""
        self._in_pieces = True
        with suppress(Exception):
            self._show_progress()
        with suppress(Exception):
            self._finish("finished")
        with suppress(Exception):
            self._learn(self._watch.look(summary=True))
        return Unavailable(reason)

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on nothing is promised but what the server shows."""
        if self._is_open:
            self._is_open = False
            self._handed.clear()
            self._under_way.clear()
            self._sdk.finish(status)


def _seq(known: tuple[int, int] | None, session: int) -> int:
    """How much of a session is known: all, if a later one has begun."""
    if known is None or known[0] < session:
        return 0
    return known[1] if known[0] == session else EVERYTHING


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
