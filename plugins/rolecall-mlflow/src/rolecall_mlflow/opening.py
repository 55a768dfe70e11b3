"""Finds or creates the experiment and the run for a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rolecall import BackendRefused, RunGone, RunTicket
from rolecall_mlflow.args import sqlite_path
from rolecall_mlflow.faults import Fault, fault_of
from rolecall_mlflow.sdk import Store

if TYPE_CHECKING:
    import mlflow.entities

__all__ = ["find_or_create", "find_run", "require_experiment"]

RUN_ID_TAG, WRITER_TAG = "rolecall.run_id", "rolecall.writer"

# MLflow 3's UI then shows runs and metrics, and not prompts and traces (its `main.js`, 3.17.2).
_KIND = {"mlflow.experimentKind": "custom_model_development"}


def require_experiment(store: Store, ticket: RunTicket) -> str:
    """The id of the job's experiment, which is created if it does not exist."""
    name = store.args.experiment or ticket.project
    found = store.client.get_experiment_by_name(name) or _create_experiment(store, name)
    if found.lifecycle_stage != "active":
        raise BackendRefused(
            f"the experiment {name!r} was deleted in MLflow at {store.uri}; run `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or set monitor_args.experiment to another name"
        )
    return str(found.experiment_id)


def _create_experiment(store: Store, name: str) -> mlflow.entities.Experiment:
    from mlflow.exceptions import MlflowException

    try:
        id_ = store.client.create_experiment(name, artifact_location=_artifact_location(store), tags=_KIND)
    except MlflowException as error:
        # Another process may have created it in between.
        found = store.client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found
    return store.client.get_experiment(id_)


def _artifact_location(store: Store) -> str | None:
    # Beside a sqlite file. MLflow's default is `./mlruns` in the working directory, which differs between processes.
    if store.args.artifact_location or not store.uri.startswith("sqlite:"):
        return store.args.artifact_location
    return (sqlite_path(store.uri).parent / "mlartifacts").as_uri()


def find_or_create(store: Store, ticket: RunTicket) -> mlflow.entities.Run:
    """The run that this primary opened before, or a new one; set to running again if the job runs.

    One that the user named is taken as it is.
    """
    if ticket.attached:
        return find_run(store, ticket.run_id, advice="correct monitor_args.run_id or MLFLOW_RUN_ID")
    if ticket.backend_run_id:
        return _running(store, find_run(store, ticket.backend_run_id), ticket)
    experiment = require_experiment(store, ticket)
    marks = {RUN_ID_TAG: ticket.run_id, WRITER_TAG: ticket.writer or "launcher"}
    # A request that timed out may have created the run, and a launcher may have been killed before it recorded the id.
    # So a run with these tags is used again, and no empty run is left over.
    query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in marks.items())
    if found := store.client.search_runs([experiment], filter_string=query, max_results=1):
        return _running(store, found[0], ticket)
    tags = _labels(ticket) | store.args.tags | marks
    began = round(ticket.created * 1000) or None  # the server's time if that is not known
    return store.client.create_run(experiment, start_time=began, tags=tags, run_name=ticket.name)


def find_run(store: Store, run_id: str, advice: str = "correct monitor_args.uri") -> mlflow.entities.Run:
    """The run with this id.

    Raises:
        RunGone: there is none, or it was deleted.
    """
    try:
        run = store.client.get_run(run_id)
    except Exception as error:
        if fault_of(error) is not Fault.ABSENT:
            raise
        raise RunGone(
            f"MLflow at {store.uri} has no run {run_id}; {advice}, or, if the run was removed "
            "permanently, start a new run with resume: never"
        ) from error
    if run.info.lifecycle_stage != "active":
        raise RunGone(
            f"the run {run_id} was deleted in MLflow at {store.uri}; run `mlflow runs restore --run-id {run_id}`, "
            "or start a new run with resume: never"
        )
    return run


def _running(store: Store, run: mlflow.entities.Run, ticket: RunTicket) -> mlflow.entities.Run:
    # MLflow takes rows after the end, too. A run that has ended stays so while its last rows come: a courier that dies
    # meanwhile does not leave it running.
    if ticket.ended is None and run.info.status != "RUNNING":
        store.client.update_run(run.info.run_id, status="RUNNING")
    return run


def _labels(ticket: RunTicket) -> dict[str, str]:
    """What a run says of itself, as far as it is known."""
    # `group` and `role` are tags that Trinity-RFT sets too. MLflow's pages group runs by any tag: by `role`, the ranks
    # of each role are drawn as one line, with the span between them.
    rank = (ticket.writer or "").partition("/")[2]
    source = ticket.source
    known = {
        "group": ticket.group,
        "role": ticket.role,
        "rank": rank,
        # What the SDK's `mlflow.start_run` says of the process that calls it (`mlflow/tracking/context`, 3.17.2).
        "mlflow.user": source.get("user"),
        "mlflow.source.name": source.get("name"),
        "mlflow.source.type": source.get("name") and "LOCAL",
        "mlflow.source.git.commit": source.get("commit"),
    }
    return {tag: value for tag, value in known.items() if value}
