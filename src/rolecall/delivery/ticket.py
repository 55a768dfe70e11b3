"""The ticket with which a writer's run is opened."""

from __future__ import annotations

from typing import Any

from rolecall.config.spec import JobSpec
from rolecall.protocol import RunTicket
from rolecall.store.acks import read_reference
from rolecall.store.layout import LAUNCH, SINGLE, Layout, slug_of
from rolecall.store.lease import newest


def make_ticket(spec: JobSpec, writer: str, backend: str, *, shared: bool) -> RunTicket:
    """The ticket of one writer for one backend, with what is known by now of an earlier opening.

    Args:
        spec: the job.
        writer: whose rows they are; `LAUNCH` for the launcher, which logs none but opens and ends shared runs.
        backend: the backend.
        shared: whether all roles write one run.
    """
    layout = Layout(spec.monitor_dir)
    is_launcher = writer == LAUNCH
    is_own = not shared and not is_launcher
    reference = read_reference(layout, backend, LAUNCH if shared else writer)
    job, own = _header(layout, LAUNCH), _header(layout, writer)
    config = job.get("config") or {}
    return RunTicket(
        project=spec.project,
        # The only role of `rolecall.init` needs no name beside the job's.
        name=f"{spec.name}_{writer.replace('/', '_')}" if is_own and writer != SINGLE else spec.name,
        group=spec.group if shared else spec.group or spec.name,
        run_id=f"{spec.run_id}-{slug_of(writer).replace('@', '-')}" if is_own else spec.run_id,
        backend_run_id=reference.id if reference else None,
        shared=shared,
        primary=not shared or is_launcher,
        writer=None if is_launcher else writer,
        role=None if is_launcher else writer.partition("/")[0],
        # A shared run gets the roles' configs through `SupportsConfig`.
        config=config if shared else {**config, **(own.get("config") or {})},
        directory=layout.backend(backend),
        pid=int(own.get("owner", {}).get("pid", 0)),
        created=float(job.get("opened", 0.0)),
    )


def _header(layout: Layout, writer: str) -> dict[str, Any]:
    session = newest(layout.journal(writer))
    return session.header() if session else {}
