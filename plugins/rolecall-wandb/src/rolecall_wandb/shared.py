"""One writer's part in a run that all roles of a job write to, or a run of its own whose rows are on several axes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from rolecall import Row, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.definitions import Definitions
from rolecall_wandb.lines import Line
from rolecall_wandb.media import KINDS
from rolecall_wandb.pieces import PIECE, UnderWay, pieces
from rolecall_wandb.progress import Progress
from rolecall_wandb.sdk import fixed_tags, init
from rolecall_wandb.server import RunPath, RunState, Server, path_of
from rolecall_wandb.tables import TABLE_KINDS, table_of
from rolecall_wandb.told import Told
from rolecall_wandb.tries import Tries
from rolecall_wandb.watch import LOST, NO_ROWS, SETTLE, Watch, until

__all__ = ["SharedRun"]

CHECK_EVERY: Final = {True: 10.0, False: 60.0}
"""Seconds between checks of the bindings on the server: by the primary, by the other writers."""
REPAIR_AFTER: Final = 15.0
"""Seconds between two repairs of the bindings; the SDK delays an upload by 5 s (0.31.0)."""
MERGE_WAIT: Final = 10.0
"""Seconds that a line waits for more rows of its step."""
READ_BACK: Final = 10_000
"""Lines of a run up to which the end of a session reads all of them back; the counts of a larger one must do."""


class SharedRun:
    """One writer's part in a shared run, or a run of its own whose rows are on several axes.

    Consecutive rows of one axis and step are a line of history. The server counts its `_step` in the order of arrival,
    or the SDK if nobody else writes the run. A row
    is confirmed once the server counts all lines of its window (see `rolecall_wandb.lines`), or has shown its line.
    """

    media_kinds = KINDS
    table_media_kinds = TABLE_KINDS

    def __init__(
        self,
        ticket: RunTicket,
        args: WandbArgs,
        server: Server,
        *,
        ends_as: Status | None = None,
        tags: Sequence[str] = (),
        told: Told | None = None,
    ) -> None:
        self._ticket = ticket
        self._args = args
        self._known: dict[str, str] = {}
        self._axes: set[str] = set()
        self._told = told or Told((*tags, *fixed_tags(ticket, args)))
        # By writer, so that the last line of a session goes before the first one of the writer's next session.
        self._lines: dict[str, Line] = {}
        self._under_way = UnderWay()
        self._in_pieces = False
        self._tries = Tries()
        self._ends_as = _state_before(ticket, args, server) if ticket.repair else ends_as
        self._checked = self._repaired = time.monotonic()
        self._sdk = init(ticket, args)
        with self._sdk.given_up_on_error():
            self._run = self._sdk.run
            self.path = RunPath(self._run.entity, self._run.project, self._run.id)
            self._watch = Watch(server, self.path)
            self._progress = Progress(ticket, self._watch)
            self._watch.look()
            self._begin()

    @property
    def id(self) -> str:
        """The run's id in wandb, which is the ticket's `run_id`."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url

    # ---------------------------------------------------------------- rows

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        self._log(rows, {})

    def log_media(self, row: Row) -> None:
        """See `rolecall.SupportsMedia`. The server has the files before the row becomes a part of a line."""
        # Not while the SDK's run has ended: a file of it may open the run again, which nothing would end.
        self._rejoin_if_ended()
        self._log([row], self._tries.upload(row, self._watch.upload, self._watch.look))

    def _log(self, rows: Sequence[Row], more: Mapping[str, Any]) -> None:
        """Log rows, and `more` than its metrics and strings if it is one."""
        # In pieces once rows were lost, so that no more is under way than the SDK can upload when the run ends.
        if not self._in_pieces:
            self._log_some(rows, more)
            return
        for piece in pieces(rows):
            self._log_some(piece, more)
            self._under_way.add(piece)
            if self._under_way.size >= PIECE:
                self._settle(SETTLE)

    def _log_some(self, rows: Sequence[Row], more: Mapping[str, Any]) -> None:
        self._rejoin_if_ended()
        self._expect()
        with self._lost_on_error():  # around all rows, as a context for each adds half to this plugin's own time
            for row in rows:
                self._add(row, more)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`. The SDK uploads the table with its line, which more rows may belong to."""
        self._rejoin_if_ended()
        self._expect()
        more = table_of(row, self.id)
        with self._lost_on_error():
            if not self._in_pieces:
                self._add(row, more)
                return
            if row.writer in self._lines:
                self._hand_over(self._lines.pop(row.writer))
        # The reason may have been this table: at once and in a line of its own, so that a failure is that of its row.
        with self._tries.counted(row, self._watch.look, self._lost):
            self._hand_over(Line.of(row, more))

    def _add(self, row: Row, more: Mapping[str, Any]) -> None:
        """Add a row to the open line of its writer, or hand that over and begin a new one."""
        if (line := self._lines.get(row.writer)) is not None:
            if line.takes(row, self._axes, more):
                line.add(row, more)
                return
            self._hand_over(line)
        self._lines[row.writer] = Line.of(row, more)

    def _end_lines(self, age: float = 0.0) -> None:
        with self._lost_on_error():
            for line in [each for each in self._lines.values() if time.monotonic() - each.began >= age]:
                self._hand_over(self._lines.pop(line.last.writer))

    def _hand_over(self, line: Line) -> None:
        last = line.last
        handed = self._progress.of((last.writer, last.session))
        with self._sdk.at_hand() if line.has_table else nullcontext():
            self._run.log({**line.values, "_timestamp": last.time, **handed.marks(line)})
        handed.add(line)

    # ------------------------------------------------------- what is held

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`. Rows that a running SDK was handed count, as it will upload them."""
        self._progress.catch_up()
        known = [*self._progress.of((writer, session)).rows]
        line = self._open_line(writer, session)
        return [*known, (line.first, line.last.seq)] if line else known

    def _open_line(self, writer: str, session: int) -> Line | None:
        line = self._lines.get(writer)
        return line if line is not None and line.last.session == session else None

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        known = self._progress.confirmed((writer, session))
        line = self._open_line(writer, session)
        return min(known, line.first - 1) if line else known

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`: learn which rows the server holds, and repair this writer's bindings."""
        if self._is_open:
            self._end_lines(MERGE_WAIT)
        checks = time.monotonic() - self._checked >= CHECK_EVERY[self._ticket.primary]
        was_away, is_waiting = self._watch.was_away, self._is_open and self._progress.is_waiting
        if self._watch.is_due() and (checks or was_away or is_waiting):
            state = self._watch.look(counts=is_waiting, config=checks)
            if was_away:
                self._repair()
            if checks:
                self._check(state)
            if is_waiting:
                counts = self._learn(state)
                if self._progress.are_lost(counts) or self._watch.is_stalled():
                    raise self._lost()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`. The rows are read back, unless the run is large."""
        self._settle(timeout)
        if not self._is_open and self._watch.look().lines <= READ_BACK and not self._progress.is_shown():
            raise self._lost()

    def _settle(self, timeout: float) -> None:
        """Return once the server holds everything.

        Raises:
            Unavailable: it does not within `timeout` seconds, or does not answer.
        """
        self._end_lines()
        # Ask the server first: `finish` below would wait for one that is unreachable.
        if self._holds_all():
            return
        # End the SDK's run, which makes it upload the last rows at once; otherwise that takes seconds. Errors do not
        # matter here, as the server is asked afterwards.
        with suppress(Exception):
            self._finish("finished")
        if not until(self._holds_all, min(timeout, SETTLE)):
            raise self._lost()
        self._progress.settle()

    def _holds_all(self) -> bool:
        """Whether the server holds all lines; it is asked only if that is not known yet."""
        if self._progress.is_waiting:
            self._learn(self._watch.look(counts=True))
        return not self._progress.is_waiting

    def _learn(self, state: RunState) -> Mapping[str, int]:
        counts = self._progress.learn(state)
        self._under_way.drop(lambda row: row.seq <= self.confirmed(row.writer, row.session))
        return counts

    # ---------------------------------------------- bindings, configs, the end

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes. After the SDK's run has ended, the other writers do this."""
        self._known.update(axes)
        self._axes.update(axes.values())
        if self._is_open:
            with self._lost_on_error():
                self.definitions.define(axes)

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """See `rolecall.SupportsConfig`: in a shared run each writer's is stored under its name, beside the job's."""
        merged = dict(config)
        if self._ticket.shared or self._ticket.writers == "many":
            job = self._ticket.config
            merged = {writer: {**_mapping(job.get(writer)), **_mapping(own)} for writer, own in config.items()}
        self._told.config.update(merged)
        if self._is_open:  # else `_begin` tells the next SDK
            with self._lost_on_error():
                self._told.tell_config(self._run, merged)

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`."""
        self._rejoin_if_ended()
        with self._lost_on_error():
            self._told.merge_summary(self._run, summary)

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`."""
        self._rejoin_if_ended()
        with self._lost_on_error():
            self._told.set_tags(self._run, tags)

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
        self._told.tell(self._run)
        self._is_open = True

    def _rejoin_if_ended(self) -> None:
        """Continue with a new SDK, after reading what the last one has uploaded."""
        if not self._is_open:
            self._progress.catch_up()
            self._sdk = init(self._ticket, self._args)
            with self._sdk.given_up_on_error():
                self._begin()
            self._watch.moved()

    def _expect(self) -> None:
        """Start the time for the next rows now, if none are under way."""
        if not self._progress.is_waiting:
            self._watch.moved()

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
            self._finish("finished")
        with suppress(Exception):
            self._progress.catch_up()
        return Unavailable(reason)

    def _finish(self, status: Status) -> None:
        """End the SDK's run. From here on only rows that the server shows count."""
        if self._is_open:
            self._is_open = False
            with suppress(Exception):  # the SDK's process may have ended
                self._told.tell_summary(self._run)
            self._progress.end()
            self._lines.clear()
            self._under_way.clear()
            self._sdk.finish(self._ends_as or status)


def _state_before(ticket: RunTicket, args: WandbArgs, server: Server) -> Status:
    """How a run ended that is opened to repair it."""
    state = server.look_up(path_of(ticket, args, server)) or RunState()
    return "finished" if state.state == "finished" else "failed"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
