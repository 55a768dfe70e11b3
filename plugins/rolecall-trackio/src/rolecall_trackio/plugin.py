"""The hooks of the backend `trackio`."""

from pydantic import BaseModel

from rolecall import BackendRefused, RunGone, RunTicket, SharedRunSupport, hookimpl
from rolecall_trackio.args import TrackioArgs
from rolecall_trackio.rows import TrackioReadback
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
    _writable(ticket, args)


@hookimpl
def open_run(ticket: RunTicket, args: TrackioArgs) -> TrackioRun:
    """Open, join or resume the run; trackio accepts rolecall's id of it.

    Raises:
        Unavailable: the database is locked, or the disk is full.
        RunGone: the run was deleted.
        BackendRefused: trackio cannot be imported, or cannot write here.
    """
    return TrackioRun(_with_run(_writable(ticket, args), ticket), ticket)


@hookimpl
def open_readback(ticket: RunTicket, args: TrackioArgs) -> TrackioReadback:
    """Read a run.

    Raises:
        RunGone: it was deleted.
        BackendRefused: trackio cannot be imported.
    """
    return TrackioReadback(_with_run(Store(args.base(ticket.directory), ticket.project), ticket), ticket)


def _writable(ticket: RunTicket, args: TrackioArgs) -> Store:
    base = args.base(ticket.directory)
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise BackendRefused(f"cannot write {base}: {why.strerror}; set monitor_args.dir to another directory") from why
    return Store(base, ticket.project)


def _with_run(store: Store, ticket: RunTicket) -> Store:
    # The first row of a primary is written when it opens the run; trackio deletes a run by deleting its rows.
    if (run_id := ticket.backend_run_id) and not any(store.select("SELECT 1 FROM metrics WHERE run_id = ?", run_id)):
        raise RunGone(f"{store.path} has no run {run_id}")
    return store
