"""The hooks of the backend `mlflow`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rolecall import BackendRefused, RunGone, RunTicket, SharedRunSupport, Unavailable, hookimpl
from rolecall_mlflow.args import MlflowArgs, sqlite_path
from rolecall_mlflow.opening import find_or_create, find_run, require_experiment
from rolecall_mlflow.run import MlflowReadback, MlflowRun
from rolecall_mlflow.sdk import Store, connect, what_is_missing
from rolecall_mlflow.system import SystemMetrics, probes_are_missing

if TYPE_CHECKING:
    import mlflow.entities

__all__ = ["ROLECALL_HOOKS", "backend_args", "open_readback", "open_run", "prepare", "supports_shared_run"]

ROLECALL_HOOKS = 2

_logger = logging.getLogger(__name__)


@hookimpl
def backend_args() -> type[BaseModel]:
    """The model of `monitor_args`."""
    return MlflowArgs


@hookimpl
def supports_shared_run(args: BaseModel) -> SharedRunSupport:
    """Always, if MLflow is installed: an MLflow metric has its own step, so writers do not disturb each other."""
    missing = what_is_missing(_ours(args))
    return SharedRunSupport(supported=missing is None, reason=missing or "")


@hookimpl
def prepare(ticket: RunTicket, args: BaseModel) -> None:
    """Create the store and the experiment, which also checks the credentials."""
    with connect(_ours(args), ticket.directory) as store:
        _require_probes(store.args)
        require_experiment(store, ticket)


@hookimpl
def open_run(ticket: RunTicket, args: BaseModel) -> MlflowRun:
    """Create or resume the run for a primary; join it by its MLflow id for any other writer."""
    if ticket.shared and not ticket.primary and ticket.backend_run_id is None:
        raise Unavailable("the launcher has not opened the run yet")
    with connect(_ours(args), ticket.directory) as store:
        if ticket.primary:
            _require_probes(store.args)
            found = find_or_create(store, ticket)
        else:
            found = find_run(store, ticket.backend_run_id or "")
        run = MlflowRun(store, found, primary=ticket.primary, attached=ticket.attached)
        if ticket.ended is not None:
            run.end_at(ticket.ended)
        if ticket.primary:
            run.add_params(ticket.config)
        run.watch(_system_metrics(store, found, ticket))
        return run


@hookimpl
def open_readback(ticket: RunTicket, args: BaseModel) -> MlflowReadback:
    """Read a run; a store that is a file has to be there."""
    ours = _ours(args)
    uri = ours.store_uri(ticket.directory)
    # `connect` would create it.
    file = sqlite_path(uri) if uri.startswith("sqlite:") else Path(uri.removeprefix("file://"))
    if not uri.startswith("http") and not file.exists():
        raise RunGone(f"{file} is not there, so the run {ticket.backend_run_id} is gone with it")
    with connect(ours, ticket.directory) as store:
        return MlflowReadback(store, find_run(store, ticket.backend_run_id or ""))


def _system_metrics(store: Store, found: mlflow.entities.Run, ticket: RunTicket) -> SystemMetrics | None:
    # Once the role has ended, samples would be those of whatever delivers or repairs its rows.
    is_late = ticket.ended is not None or ticket.repair
    if not store.args.system_metrics or ticket.writer is None or is_late:
        return None
    if missing := probes_are_missing():
        _logger.warning("system metrics of this node are not logged: %s", missing)
        return None
    began, interval = found.info.start_time / 1000, store.args.system_metrics_interval
    return SystemMetrics(store.client, found.info.run_id, ticket.writer, began, interval)


def _require_probes(args: MlflowArgs) -> None:
    # Only a launcher refuses. A role on a node without psutil starts all the same: see `_system_metrics`.
    if args.system_metrics and (missing := probes_are_missing()):
        raise BackendRefused(missing)


def _ours(args: BaseModel) -> MlflowArgs:
    return args if isinstance(args, MlflowArgs) else MlflowArgs.model_validate(args.model_dump())
