"""The hooks of rolecall's MLflow backend."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rolecall import BackendRefused, RunTicket, SharedRunSupport, Unavailable, hookimpl
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.opening import find_or_create, find_run, require_experiment
from rolecall_mlflow.sdk import Store, connect, what_is_missing
from rolecall_mlflow.system import SystemMetrics, probes_are_missing

if TYPE_CHECKING:
    import mlflow.entities

    from rolecall_mlflow.run import MlflowRun

__all__ = ["backend_args", "open_run", "prepare", "supports_shared_run"]

_logger = logging.getLogger(__name__)


@hookimpl
def backend_args() -> type[BaseModel]:
    """See `MlflowArgs`."""
    return MlflowArgs


@hookimpl
def supports_shared_run(args: BaseModel) -> SharedRunSupport:
    """Every store does, as MLflow's metrics carry their own step; but MLflow has to be installed."""
    missing = what_is_missing(_ours(args))
    return SharedRunSupport(supported=missing is None, reason=missing or "")


@hookimpl
def prepare(ticket: RunTicket, args: BaseModel) -> None:
    """Create the store and the experiment, which also proves the credentials."""
    with connect(_ours(args), ticket.directory) as store:
        _require_probes(store.args)
        require_experiment(store, ticket)


@hookimpl
def open_run(ticket: RunTicket, args: BaseModel) -> MlflowRun:
    """Create or resume the run for a primary; join it by its MLflow id for everyone else."""
    if ticket.shared and not ticket.primary and ticket.backend_run_id is None:
        raise Unavailable("the primary has not opened the run yet")
    with connect(_ours(args), ticket.directory) as store:
        if ticket.primary:
            _require_probes(store.args)
            found = find_or_create(store, ticket)
        else:
            found = find_run(store, ticket.backend_run_id or "")
        return _open(store, found, ticket)


def _open(store: Store, found: mlflow.entities.Run, ticket: RunTicket) -> MlflowRun:
    from rolecall_mlflow.run import MlflowRun

    run = MlflowRun(store, found, primary=ticket.primary)
    if ticket.primary:
        run.add_params(ticket.config)
    run.watch(_system(store, found, ticket))
    return run


def _system(store: Store, found: mlflow.entities.Run, ticket: RunTicket) -> SystemMetrics | None:
    if not store.args.system_metrics or ticket.writer is None:
        return None
    if missing := probes_are_missing():
        _logger.warning("no system metrics of this node: %s", missing)
        return None
    began, interval = found.info.start_time / 1000, store.args.system_metrics_interval
    return SystemMetrics(store.client, found.info.run_id, ticket.writer, began, interval)


def _require_probes(args: MlflowArgs) -> None:
    """A launcher says at once what is missing; a node that lacks it later goes without its statistics."""
    if args.system_metrics and (missing := probes_are_missing()):
        raise BackendRefused(missing)


def _ours(args: BaseModel) -> MlflowArgs:
    return args if isinstance(args, MlflowArgs) else MlflowArgs.model_validate(args.model_dump())
