"""The hooks of the backend `swanlab`. The SDK is imported when a run is opened, which takes 0.8 s of CPU."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rolecall import BackendRefused, Run, RunTicket, SharedRunSupport, hookimpl
from rolecall_swanlab.args import SwanlabArgs

__all__ = ["COURIERS", "ROLECALL_HOOKS", "backend_args", "declare_axes", "open_run", "supports_shared_run"]

ROLECALL_HOOKS = 2

# The SDK has one account in a process, which may be another one in the training process.
COURIERS = ("process",)


@hookimpl
def backend_args() -> type[BaseModel]:
    """The model of `monitor_args`."""
    return SwanlabArgs


@hookimpl
def supports_shared_run(args: SwanlabArgs) -> SharedRunSupport:
    """Always, by `parallel="shared"`: both modes have it."""
    return SharedRunSupport(supported=True)


@hookimpl
def open_run(ticket: RunTicket, args: SwanlabArgs) -> Run:
    """Open, join or resume the run; swanlab takes rolecall's id of it.

    Raises:
        Unavailable: the server does not answer, or the disk is full.
        RunGone: the run was deleted.
        BackendRefused: swanlab cannot be imported, or does not take the API key or a name.
    """
    try:
        from rolecall_swanlab.run import SwanlabRun
    except Exception as error:  # an import can raise anything, and another try does not help
        raise BackendRefused(f"swanlab cannot be imported ({error}); run: pip install -U swanlab") from error
    return SwanlabRun(ticket, args)


@hookimpl
def declare_axes(run: Any, axes: Mapping[str, str]) -> None:
    """Bind keys to their axes, as `swanlab.define_metric` does."""
    run.define(axes)
