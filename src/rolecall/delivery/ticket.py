"""Writes the tickets with which a writer's runs are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rolecall.config.model import MonitorConfig
from rolecall.protocol import RunTicket
from rolecall.store.acks import read_reference
from rolecall.store.layout import LAUNCH, Layout, slug_of
from rolecall.store.lease import newest

__all__ = ["TicketOffice"]


@dataclass(frozen=True, slots=True)
class TicketOffice:
    """The tickets of one writer of a job."""

    config: MonitorConfig
    layout: Layout
    writer: str

    @property
    def is_launcher(self) -> bool:
        """Whether it is the launcher, which logs no rows but opens and ends shared runs."""
        return self.writer == LAUNCH

    def ticket(self, backend: str, *, shared: bool) -> RunTicket:
        """The ticket for one backend, with what is known by now of an earlier opening."""
        holder = LAUNCH if shared else self.writer
        reference = read_reference(self.layout, backend, holder)
        return RunTicket(
            project=self.config.project,
            name=self._name(shared=shared),
            group=self.config.group if shared else self.config.group or self.config.name,
            run_id=self._run_id(shared=shared),
            backend_run_id=reference.id if reference else None,
            shared=shared,
            primary=not shared or self.is_launcher,
            writer=None if self.is_launcher else self.writer,
            role=None if self.is_launcher else self.writer.partition("/")[0],
            config=self._run_config(shared=shared),
            directory=self.layout.backend(backend),
            pid=self._pid(),
        )

    def _name(self, *, shared: bool) -> str:
        separate = not shared and not self.is_launcher
        return f"{self.config.name}_{self.writer.replace('/', '_')}" if separate else self.config.name

    def _run_id(self, *, shared: bool) -> str:
        separate = not shared and not self.is_launcher
        run_id = self.config.run_id or ""
        return f"{run_id}-{slug_of(self.writer).replace('@', '-')}" if separate else run_id

    def _run_config(self, *, shared: bool) -> Mapping[str, Any]:
        """The job's; a run of a role's own shows the role's too, and a shared one is told that by the courier."""
        job = self._header(LAUNCH).get("config") or {}
        return job if shared else {**job, **(self._header(self.writer).get("config") or {})}

    def _pid(self) -> int:
        return int(self._header(self.writer).get("owner", {}).get("pid", 0))

    def _header(self, writer: str) -> dict[str, Any]:
        session = newest(self.layout.journal(writer))
        return session.header() if session else {}
