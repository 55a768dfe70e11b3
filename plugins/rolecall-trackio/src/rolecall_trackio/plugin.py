"""The hooks of the backend `trackio`."""

from __future__ import annotations

from pydantic import BaseModel

from rolecall import BackendRefused, RunGone, RunTicket, SharedRunSupport, hookimpl
from rolecall_trackio.args import TrackioArgs
from rolecall_trackio.readback import TrackioReadback
from rolecall_trackio.run import TrackioRun
from rolecall_trackio.store import Store

__all__ = ["COURIERS", "ROLECALL_HOOKS", "backend_args", "open_readback", "open_run", "prepare", "supports_shared_run"]

ROLECALL_HOOKS = 2

# trackio has one directory in a process, which may be another one in the training process.
COURIERS = ("process",)


@hookimpl
def backend_args() -> type[BaseModel]:
    """The model of `monitor_args`."""
    return TrackioArgs


@hookimpl
def supports_shared_run(args: TrackioArgs) -> SharedRunSupport:
    """Always: a row has its own step, and a lock of trackio's keeps processes apart."""
    return SharedRunSupport(supported=True)


@hookimpl
def prepare(ticket: RunTicket, args: TrackioArgs) -> None:
    """Check that trackio can be imported, and that it writes a database here."""
    _store(ticket, args)


@hookimpl
def open_run(ticket: RunTicket, args: TrackioArgs) -> TrackioRun:
    """Open, join or resume the run; trackio accepts rolecall's id of it.

    Raises:
        Unavailable: the database is locked, or the disk is full.
        RunGone: the run was deleted.
        BackendRefused: trackio cannot be imported, or cannot write here.
    """
    store = _store(ticket, args)
    _require(store, ticket.backend_run_id)
    return TrackioRun(store, ticket)


@hookimpl
def open_readback(ticket: RunTicket, args: TrackioArgs) -> TrackioReadback:
    """Read a run.

    Raises:
        RunGone: it was deleted.
        BackendRefused: trackio cannot be imported.
    """
    store = Store(args.base(ticket.directory), ticket.project)
    _require(store, ticket.backend_run_id)
    return TrackioReadback(store.path, ticket.backend_run_id or ticket.run_id)


def _store(ticket: RunTicket, args: TrackioArgs) -> Store:
    base = args.base(ticket.directory)
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot write {error.filename or base}: {error.strerror}; set monitor_args.dir to another directory"
        raise BackendRefused(message) from error
    return Store(base, ticket.project)


def _require(store: Store, run_id: str | None) -> None:
    # The first row of a primary is written when it opens the run.
    if run_id is not None and not store.has_run(run_id):
        raise RunGone(f"{store.path} has no run {run_id}")
