"""The backends that need no plugin.

`local`: the journal is the run, so nothing is delivered and `open_run` is never called. `console`: one line for each
row through `logging`. (`none` is not a backend: it turns everything off.)
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from rolecall.errors import BackendError
from rolecall.hookspecs import hookimpl
from rolecall.protocol import Run, RunTicket, SharedRunSupport
from rolecall.rows import MediaKind, Row
from rolecall.states import Status

__all__ = ["BUILTIN", "CONSOLE", "LOCAL", "NONE"]

LOCAL, CONSOLE, NONE = "local", "console", "none"


class NoArgs(BaseModel):
    """A backend without arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class LocalBackend:
    """The journals are the run; each role writes its own."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return NoArgs

    @hookimpl
    def supports_shared_run(self) -> SharedRunSupport:
        return SharedRunSupport(supported=True)

    @hookimpl
    def open_run(self) -> Run:
        raise BackendError("local has no run to open: its journal is the run")


class ConsoleArgs(NoArgs):
    """How rows are logged.

    Attributes:
        logger: the name of the logger.
        level: the level of each line.
    """

    logger: str = "rolecall.console"
    level: int = logging.INFO


@dataclass(frozen=True)
class ConsoleRun:
    """Writes each row as one line through `logging`."""

    id: str
    logger: logging.Logger
    level: int
    url: str | None = None

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            values = [f"{key}={value:.6g}" for key, value in row.metrics.items()]
            values += [f"{key}={value!r}" for key, value in row.text.items()]
            self.logger.log(self.level, "%s step %d: %s", row.writer, row.step, " ".join(values))

    def log_table(self, row: Row) -> None:
        if row.table is not None:
            size = f"{len(row.table.rows)} rows of {', '.join(row.table.columns)}"
            self.logger.log(self.level, "%s step %d: table %s: %s", row.writer, row.step, row.table.name, size)

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        return frozenset(get_args(MediaKind))

    def log_media(self, row: Row) -> None:
        for each in row.media:
            what = f"{each.kind} {each.key}: {each.path or f'{len(each.counts)} bins'}"
            self.logger.log(self.level, "%s step %d: %s", row.writer, row.step, what)

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self._say("config", config)

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        self._say("summary", summary)

    def set_tags(self, tags: Sequence[str]) -> None:
        self.logger.log(self.level, "run %s: tags: %s", self.id, ", ".join(tags))

    def _say(self, what: str, values: Mapping[str, Any]) -> None:
        text = " ".join(f"{key}={value}" for key, value in values.items())
        self.logger.log(self.level, "run %s: %s: %s", self.id, what, text)

    def flush(self, timeout: float) -> None:
        for handler in self.logger.handlers:
            handler.flush()

    def close(self, status: Status) -> None:
        self.logger.log(self.level, "run %s is %s", self.id, status)


class ConsoleBackend:
    """Writes from a thread of the role, because its lines go through the role's own logging."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return ConsoleArgs

    @hookimpl
    def supports_shared_run(self) -> SharedRunSupport:
        return SharedRunSupport(supported=True)

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ConsoleArgs) -> Run:
        logger = logging.getLogger(args.logger)
        # Lines are visible in a program that set up no logging; one that did keeps its settings.
        if logger.level == logging.NOTSET:
            logger.setLevel(args.level)
        # `hasHandlers` looks at the parents too: a handler of ours beside the root's would print each line twice
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
        return ConsoleRun(id=ticket.run_id, logger=logger, level=args.level)


BUILTIN: Mapping[str, object] = {LOCAL: LocalBackend(), CONSOLE: ConsoleBackend()}
