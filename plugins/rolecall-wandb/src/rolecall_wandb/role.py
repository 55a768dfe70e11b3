"""A role's own run on a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rolecall import Row, Status
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.attached import Attachment
from rolecall_wandb.media import KINDS
from rolecall_wandb.separate import SeparateRun
from rolecall_wandb.server import Server
from rolecall_wandb.shared import SharedRun
from rolecall_wandb.tables import TABLE_KINDS

__all__ = ["RoleRun"]


class RoleRun:
    """A role's own run: a `SeparateRun`, and from its second axis on written as a `SharedRun` is.

    wandb numbers the lines of a run with growing steps. The steps of one axis can be these numbers; those of several
    repeat and decrease from one axis to the other. So they become metrics, and wandb counts the lines by itself.
    """

    media_kinds = KINDS
    table_media_kinds = TABLE_KINDS

    def __init__(self, found: Attachment, args: WandbArgs, server: Server) -> None:
        given = found.ticket, args, server
        self._with_axes = partial(SharedRun, *given, ends_as=found.ends_as, tags=found.tags)
        self._run: SeparateRun | SharedRun = (
            self._with_axes() if found.ticket.has_axes else SeparateRun(*given, ends_as=found.ends_as, tags=found.tags)
        )

    def define(self, axes: Mapping[str, str]) -> None:
        """Bind keys to their axes. Rows that came before are held: the courier flushes first."""
        if isinstance(self._run, SeparateRun):
            self._run = self._with_axes(told=self._run.release())
        self._run.define(axes)

    @property
    def id(self) -> str:
        """The run's id in wandb."""
        return self._run.id

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url

    def log(self, rows: Sequence[Row]) -> None:
        """See `rolecall.Run`."""
        self._run.log(rows)

    def log_table(self, row: Row) -> None:
        """See `rolecall.SupportsTables`."""
        self._run.log_table(row)

    def log_media(self, row: Row) -> None:
        """See `rolecall.SupportsMedia`."""
        self._run.log_media(row)

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """See `rolecall.SupportsConfig`."""
        self._run.merge_config(config)

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """See `rolecall.SupportsSummary`."""
        self._run.merge_summary(summary)

    def set_tags(self, tags: Sequence[str]) -> None:
        """See `rolecall.SupportsTags`."""
        self._run.set_tags(tags)

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """See `rolecall.SupportsProgress`."""
        return self._run.held(writer, session)

    def confirmed(self, writer: str, session: int) -> int:
        """See `rolecall.SupportsConfirmation`."""
        return self._run.confirmed(writer, session)

    def tend(self) -> None:
        """See `rolecall.SupportsConfirmation`."""
        self._run.tend()

    def flush(self, timeout: float) -> None:
        """See `rolecall.Run`."""
        self._run.flush(timeout)

    def close(self, status: Status) -> None:
        """See `rolecall.Run`."""
        self._run.close(status)
