"""Runs without a server: stored in a directory for `wandb sync`, or not stored at all."""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rolecall import Rejected, Row, Run, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.definitions import Definitions
from rolecall_wandb.history import TOO_LATE, History
from rolecall_wandb.lines import Line
from rolecall_wandb.media import KINDS
from rolecall_wandb.sdk import WRITE_EVERY, fixed_tags, init
from rolecall_wandb.situation import mode
from rolecall_wandb.tables import TABLE_KINDS, table_of
from rolecall_wandb.told import Told
from rolecall_wandb.tries import Tries

__all__ = ["NoRun", "OfflineRun", "open_offline"]

_MARGIN: Final = 0.5


def open_offline(ticket: RunTicket, args: WandbArgs) -> Run:
    """Open a run in the writer's own directory, or one that stores nothing if wandb is disabled."""
    # Nobody can tell whether a server has a run of an id that the user gave, so it is named like any other.
    return NoRun(ticket) if mode(args).value == "disabled" else OfflineRun(replace(ticket, attached=False), args)


class OfflineRun:
    """A run on a writer's own disk.

    Rows are acknowledged after the SDK has written its file, which it does every second. Old versions do not: see
    `flush`.
    """

    media_kinds = KINDS
    table_media_kinds = TABLE_KINDS

    def __init__(self, ticket: RunTicket, args: WandbArgs) -> None:
        self._sdk = init(ticket, args)
        self._run = self._sdk.run
        self._history = History(self._run)
        # Of several writers, steps repeat and decrease; so do those of several axes.
        self._definitions = Definitions(self._run) if ticket.has_axes else None
        self._line: Line | None = None
        self._axes: set[str] = set()
        self._tries = Tries()
        self._told = Told(fixed_tags(ticket, args))
        self._logged = 0.0

    @property
    def id(self) -> str:
        """The run's id in wandb."""
        return str(self._run.id)

    @property
    def url(self) -> str | None:
        """The command that uploads it."""
        return f"wandb sync {self._run.settings.sync_dir}"

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        self._log(rows, {})

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`."""
        table = table_of(row, self.id)
        with self._tries.counted(row, lambda: None, Unavailable), self._sdk.at_hand():
            self._log([row], table)

    def log_media(self, row: Row) -> None:
        """See `rolecall.SupportsMedia`. `wandb sync` uploads the copies of the files."""
        self._log([row], self._tries.upload(row, self._save, lambda: None))

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes. From here on steps are metrics, and the SDK counts the lines."""
        if self._definitions is None:
            self._history.commit()
            self._definitions = Definitions(self._run)
        self._definitions.define(axes)
        self._axes.update(axes.values())

    def _log(self, rows: Sequence[Row], more: Mapping[str, Any]) -> None:
        """Log rows, and `more` than its metrics and strings if it is one."""
        if self._definitions is not None:
            for row in rows:
                if self._line is not None and self._line.takes(row, self._axes, more):
                    self._line.add(row, more)
                else:
                    self._end_line()
                    self._line = Line.of(row, more)
            self._logged = time.monotonic()
            return
        late = []
        for row in rows:
            if self._history.accepts(row):
                self._history.log(row, more)
            else:
                late.append(row)
        self._logged = time.monotonic()
        if late:
            raise Rejected(late, TOO_LATE)

    def _end_line(self) -> None:
        if (line := self._line) is not None:
            self._line = None
            self._run.log({**line.values, "_timestamp": line.last.time})

    def _save(self, files: Mapping[str, Path]) -> None:
        folder = Path(self._run.dir)
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # A copy, as the file may be removed once its row is acknowledged, long before `wandb sync` runs.
            shutil.copyfile(path, folder / name)
            pattern = glob.escape(str(folder))  # where the files are is a pattern, too
            self._run.save(f"{pattern}/{name}", base_path=pattern, policy="now")

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """See `rolecall.SupportsConfig`."""
        self._told.tell_config(self._run, config)
        self._logged = time.monotonic()

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`."""
        self._told.merge_summary(self._run, summary)
        self._logged = time.monotonic()

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`."""
        self._told.set_tags(self._run, tags)
        self._logged = time.monotonic()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`; a line of a run with one axis stays open."""
        self._end_line()
        # 0.31.0 has a setting to write the file every second. 0.19.10 writes blocks of 32 KiB (measured): if its
        # courier is killed by SIGKILL, the last rows are only in the journal.
        wait = self._logged + WRITE_EVERY + _MARGIN - time.monotonic()
        time.sleep(min(max(wait, 0.0), timeout))

    def close(self, status: Status) -> None:
        """See `rolecall.Run`."""
        self._end_line()
        self._told.tell_summary(self._run)
        self._sdk.finish(status)


class NoRun:
    """A run that stores nothing, for `mode: disabled`."""

    url = None
    media_kinds = KINDS

    def __init__(self, ticket: RunTicket) -> None:
        self.id = ticket.run_id

    def log(self, rows: Sequence[Row]) -> None:
        """Store nothing."""

    def log_table(self, row: Row) -> None:
        """Store nothing."""

    def log_media(self, row: Row) -> None:
        """Store nothing."""

    def define(self, axes: Mapping[str, str]) -> None:
        """Store nothing."""

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Store nothing."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """Store nothing."""

    def set_tags(self, tags: Sequence[str]) -> None:
        """Store nothing."""

    def flush(self, timeout: float) -> None:
        """Do nothing."""

    def close(self, status: Status) -> None:
        """Do nothing."""
