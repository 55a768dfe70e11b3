"""A run that the user named by its id, and that somebody else may have made.

It keeps its name, its notes and its config, and it ends as it had ended before. A run that is live has a process of its
own; only in wandb's shared mode may another one join it, and then its end is left to that process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from rolecall import BackendRefused, RunTicket, Status
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.server import RunState, Server, path_of

__all__ = ["Attachment", "attach"]

LIVE: Final = (
    "the run {run} is live, and another process writes it: only a run in wandb's shared mode can be joined. Wait for "
    "its end, or leave out monitor_args.run_id (WANDB_RUN_ID)"
)
_SHARED_MODE: Final = 67
"""Of the features that a run says it uses (`Feature` in `wandb_telemetry.proto`, 0.19.10 to 0.31.0)."""
_Before = Literal["made", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """How to open a run.

    Attributes:
        ticket: the ticket, so that nothing of the run's is replaced.
        ends_as: how the run ends, whatever became of the job; `None` for the job's own status.
        tags: the tags that it has.
    """

    ticket: RunTicket
    ends_as: Status | None = None
    tags: tuple[str, ...] = ()


def attach(ticket: RunTicket, args: WandbArgs, server: Server) -> Attachment:
    """Look at the run that the ticket names.

    Raises:
        BackendRefused: another process writes it.
        Unavailable: the server does not answer.
    """
    if not ticket.attached:
        return Attachment(ticket)
    before = _read_note(ticket)
    found = server.look_up(path_of(ticket, args, server), config=True, tags=True)
    if before == "made" or found is None:
        # There was no such run, so it is rolecall's, under an id that the user chose.
        if ticket.primary:
            _write_note(ticket, "made")
        return Attachment(replace(ticket, attached=False))
    ticket = replace(ticket, config={**ticket.config, **_plain(found.config)})
    if ticket.primary and before is None:
        if found.state == "running":
            if not (ticket.shared and _is_shared(found)):
                raise BackendRefused(LIVE.format(run=ticket.run_id))
            return Attachment(replace(ticket, primary=False), tags=found.tags)
        before = "finished" if found.state == "finished" else "failed"
        _write_note(ticket, before)
    return Attachment(ticket, ends_as=cast("Status | None", before), tags=found.tags)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it was given to the SDK."""
    values = {key: value for key, value in config.items() if key != "_wandb" and isinstance(value, dict)}
    return {key: value["value"] for key, value in values.items() if "value" in value}


def _is_shared(found: RunState) -> bool:
    own = (found.config.get("_wandb") or {}).get("value") or {}
    features = (own.get("t") or {}).get("3") if isinstance(own, dict) else None
    return isinstance(features, list) and _SHARED_MODE in features


def _note(ticket: RunTicket) -> Path:
    """Says how the run was when this job opened it first: a later process finds it as this job has left it."""
    return ticket.directory / f"attached-{ticket.run_id}"


def _read_note(ticket: RunTicket) -> _Before | None:
    try:
        text = _note(ticket).read_text()
    except OSError:
        return None
    return cast("_Before", text) if text in ("made", "finished", "failed") else None


def _write_note(ticket: RunTicket, before: _Before) -> None:
    ticket.directory.mkdir(parents=True, exist_ok=True)
    _note(ticket).write_text(before)
