"""One writer's part in a run that all roles of a job write to."""

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
"""The prefix of summary keys, one for each writer, with session and seq of the writer's last row on the server."""

CHECK_EVERY: Final = {True: 10.0, False: 60.0}
"""Seconds between checks of the bindings on the server: by the primary, by the other writers."""
REPAIR_AFTER: Final = 15.0
"""Seconds between two repairs of the bindings; the SDK delays an upload by 5 s (0.31.0)."""
SETTLE: Final = 10.0
"""Seconds that the server may take to show what the SDK has uploaded."""
EVERYTHING: Final = (1 << 63) - 1


class SharedRun:
    """One writer's part in a shared run.

    Every row is a line of history, whose `_step` the server counts in the order of arrival. The run's summary holds
    each writer's progress, so a row is confirmed once the server shows it there.
    """

    # Why the summary proves that the server holds the rows: the SDK transmits it together with the lines it belongs to,
    # or after them. That holds for 0.22.1 and newer, and for older versions up to requests of 10 MiB (measured).

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
        """The run's id in wandb, which is the ticket's `run_id`."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        # In pieces once rows were lost, so that no more is under way than the SDK can upload when the run ends. Always
        # in pieces with SDK versions whose summary, which confirms rows, may arrive before them.
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
                    self._run.log({**row.metrics, **row.text, "_timestamp": row.time})
                    self._handed[row.writer] = (row.session, row.seq)
            self._show_progress()

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads the table before this returns."""
        self._rejoin_if_ended()
        if self._is_confirmed(row):
            return
        table = table_of(row, self.id)
        try:
            with self._sdk.at_hand():
                self._run.log({**table, **row.metrics, "_timestamp": row.time})
        except Exception as error:
            self._watch.look()  # raises if the server is unreachable: then the table is not to blame
            self._tables.fail(row, error)
            raise self._lost(NO_TABLE.format(error)) from error
        self._expect()
        self._handed[row.writer] = (row.session, row.seq)
        with self._lost_on_error():
            self._show_progress()

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes. After the SDK's run has ended, the other writers do this."""
        self._known.update(axes)
        if self._is_open:
            with self._lost_on_error():
                self.definitions.define(axes)

    def merge_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """See `rolecall.SupportsConfig`: each writer's config is stored under its name, beside the job's."""
        self._configs.update(config)
        if self._is_open:
            with self._lost_on_error():
                self._update_config(config)

    def _update_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        job = self._ticket.config
        merged = {writer: {**_mapping(job.get(writer)), **own} for writer, own in config.items()}
        self._run.config.update(merged, allow_val_change=True)  # type: ignore[no-untyped-call]

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`. Rows that a running SDK was handed count, as it will upload them."""
        return [(1, max(_seq(self._held.get(writer), session), _seq(self._handed.get(writer), session)))]

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        return _seq(self._held.get(writer), session)

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`: read the writer's progress from the server, and repair its bindings."""
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
                if self._watch.is_stalled():
                    raise self._lost()
                with self._lost_on_error():
                    self._show_progress()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`."""
        handed = dict(self._handed)
        # Ask the server first: `finish` below would wait for one that is unreachable.
        if self._holds(handed):
            return
        # End the SDK's run, which makes it upload the last rows at once; otherwise that takes seconds. Errors do not
        # matter here, as the server is asked afterwards.
        with suppress(Exception):
            self._show_progress()
        with suppress(Exception):
            self._finish("finished")
        if not until(lambda: self._holds(handed), min(timeout, SETTLE)):
            raise self._lost()

    def _holds(self, handed: Mapping[str, tuple[int, int]]) -> bool:
        """Whether the server holds these rows; it is asked only if that is not known yet."""
        if self._lacks(handed):
            self._learn(self._watch.look(summary=True))
        return not self._lacks(handed)

    def close(self, status: Status) -> None:
        """See `rolecall.Run`. A primary uploads all bindings again and waits until the server shows the end."""
        if not self._ticket.primary:
            self._finish(status)
            return
        self._rejoin_if_ended()
        with self._lost_on_error():
            self.definitions.touch()
        self._finish(status)
        self._watch.require_end(SETTLE)

    def _begin(self) -> None:
        """Pass the bindings and configs to an SDK that has just joined."""
        self._run = self._sdk.run
        self.definitions = Definitions(self._run)
        self.definitions.define(self._known)
        if self._configs:
            self._update_config(self._configs)
        self._is_open = True

    def _rejoin_if_ended(self) -> None:
        """Continue with a new SDK, after reading what the last one has uploaded."""
        if not self._is_open:
            self._learn(self._watch.look(summary=True))
            self._sdk = init(self._ticket, self._args)
            with self._sdk.given_up_on_error():
                self._begin()
            self._watch.moved()

    def _expect(self) -> None:
        """Start the time for the next rows now, if none are under way."""
        if not self._is_waiting():
            self._watch.moved()

    def _show_progress(self) -> None:
        # `tend` calls this again until it has arrived: 0.19 sends a summary only together with something else.
        marks = {PROGRESS + writer: f"{session}:{seq}" for writer, (session, seq) in self._handed.items()}
        if marks:
            self._run.summary.update(marks)

    def _is_confirmed(self, row: Row) -> bool:
        return row.seq <= self.confirmed(row.writer, row.session)

    def _is_waiting(self) -> bool:
        """Whether the SDK has rows that are not confirmed."""
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
            found = (int(session), int(seq))
            if found > self._held.get(writer, (0, 0)):
                self._held[writer] = found
                # Only this SDK's own rows count: the summary also shows other writers' rows, which their SDKs upload.
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

    @contextmanager
    def _lost_on_error(self) -> Iterator[None]:
        """Count rows as lost if the SDK raises anything: its process may have ended, and a new one has to continue."""
        try:
            yield
        except Exception as error:
            raise self._lost(NO_ROWS.format(error)) from error

    def _lost(self, reason: str = LOST) -> Unavailable:
        """End an SDK that will not upload all rows; those that the server does not hold go to a new one."""
        self._in_pieces = True
        with suppress(Exception):
            self._show_progress()
        with suppress(Exception):
            self._finish("finished")
        with suppress(Exception):
            self._learn(self._watch.look(summary=True))
        return Unavailable(reason)

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on only rows that the server shows count."""
        if self._is_open:
            self._is_open = False
            self._handed.clear()
            self._under_way.clear()
            self._sdk.finish(status)


def _seq(known: tuple[int, int] | None, session: int) -> int:
    """The `seq` up to which a session's rows are known; all of them if a later session has begun."""
    if known is None or known[0] < session:
        return 0
    return known[1] if known[0] == session else EVERYTHING


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
