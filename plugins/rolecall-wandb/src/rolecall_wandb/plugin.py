"""The hooks of the backend `wandb`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from rolecall import BackendRefused, Run, RunTicket, SharedRunSupport, SupportsReadback, hookimpl
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.situation import mode, what_hinders, what_is_missing, what_key_is_missing

if TYPE_CHECKING:
    from rolecall_wandb.server import Server

__all__ = [
    "ROLECALL_HOOKS",
    "SYSTEM_METRICS",
    "backend_args",
    "declare_axes",
    "open_readback",
    "open_run",
    "prepare",
    "supports_shared_run",
]

ROLECALL_HOOKS = 2
# The SDK (0.31.0) samples the role's process and its node in every mode: in separate runs, in a shared one, where each
# role's are labelled (`system.cpu/l:explorer/0`), and offline.
SYSTEM_METRICS = True
NO_REPAIR: Final = "wandb accepts no step below the last one in a run that is not shared"
OFFLINE: Final = "wandb is {}, so there is no server whose runs could be read back"


@hookimpl
def backend_args() -> type[BaseModel]:
    """The model of `monitor_args`."""
    return WandbArgs


@hookimpl
def supports_shared_run(args: BaseModel) -> SharedRunSupport:
    """Yes, if wandb is online, has an API key and is new enough."""
    reason = what_hinders(_ours(args))
    return SharedRunSupport(supported=reason is None, reason=reason or "")


@hookimpl
def prepare(ticket: RunTicket, args: BaseModel) -> None:
    """Check that the server knows the key, before any role opens a run of its own."""
    with _final(at_launch=True):
        _require(_ours(args))


@hookimpl
def open_run(ticket: RunTicket, args: BaseModel) -> Run:
    """Open, join or resume the run."""
    with _final(at_launch=ticket.shared and ticket.primary and ticket.backend_run_id is None):
        return _open(ticket, _ours(args))


def _open(ticket: RunTicket, args: WandbArgs) -> Run:
    # In any order: the run's id is rolecall's own, so a role does not have to wait for the launcher.
    server = _require(args)
    if server is None:
        from rolecall_wandb.offline import open_offline

        return open_offline(ticket, args)
    if not ticket.shared and ticket.repair and not ticket.has_axes:
        raise BackendRefused(NO_REPAIR)
    if ticket.shared and (reason := what_hinders(args)):
        raise BackendRefused(reason)
    from rolecall_wandb.attached import attach

    found = attach(ticket, args, server)
    if not ticket.shared:
        from rolecall_wandb.role import RoleRun

        return RoleRun(found, args, server)
    from rolecall_wandb.shared import SharedRun

    return SharedRun(found.ticket, args, server, ends_as=found.ends_as, tags=found.tags)


@contextmanager
def _final(*, at_launch: bool) -> Iterator[None]:
    """Refuse at launch what the server denies; later a proxy that reloads may answer in its place."""
    from rolecall_wandb.server import Denied

    try:
        yield
    except Denied as error:
        if at_launch:
            raise BackendRefused(str(error)) from error
        raise


@hookimpl
def declare_axes(run: Any, axes: Mapping[str, str]) -> None:
    """Bind each key, by its full name, in this writer's definitions."""
    run.define(axes)


@hookimpl
def open_readback(ticket: RunTicket, args: BaseModel) -> SupportsReadback:
    """Read the lines of history that the server holds."""
    ours = _ours(args)
    server = _require(ours)
    if server is None:
        raise BackendRefused(OFFLINE.format(mode(ours).value))
    from rolecall_wandb.readback import WandbReadback

    return WandbReadback(ticket, server, ours.entity)


def _require(args: WandbArgs) -> Server | None:
    """The server, after a check that it knows the key; `None` if wandb is offline or disabled."""
    if missing := what_is_missing():
        raise BackendRefused(missing)
    if mode(args).value != "online":
        return None
    if missing := what_key_is_missing(args):
        raise BackendRefused(missing)
    from rolecall_wandb.server import server_of

    server = server_of(args)
    server.require_key()
    return server


def _ours(args: BaseModel) -> WandbArgs:
    return args if isinstance(args, WandbArgs) else WandbArgs.model_validate(args.model_dump())
