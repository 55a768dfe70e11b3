"""Opens runs with the SDK. Nothing here imports wandb before a run is opened: that takes more than a second."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rolecall import BackendRefused, RunTicket, Status, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.service import Service, with_own_service
from rolecall_wandb.situation import base_url, mode
from rolecall_wandb.surroundings import in_place_of_role, settings_of_role

if TYPE_CHECKING:
    import wandb

__all__ = ["TRANSMIT_EVERY", "WRITE_EVERY", "OpenRun", "init"]

TRANSMIT_EVERY: Final = 5.0
"""Seconds between transmissions of a run's rows. The SDK's own 15 would make every role's last rows wait as long."""
WRITE_EVERY: Final = 1.0
"""Seconds between writes of an offline run's file, where the SDK can be told."""
FINISH_TIMEOUT: Final = 60.0
GRACE: Final = 5.0
"""Seconds more after which a service that did not keep to that is killed: before 0.27 there was no such setting."""

_IDENTITY: Final = ("RUN_ID", "RESUME", "SWEEP_ID")
_NAMES: Final = ("NAME", "NOTES", "TAGS", "JOB_TYPE", "RUN_GROUP")
"""Variables from which the SDK names a run; those of a later joiner would overwrite the primary's."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run of the SDK, with a service process of its own."""

    run: wandb.Run
    service: Service
    ticket: RunTicket
    args: WandbArgs

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """While a table is logged: the SDK asks the process, not the run, for server, key and mode."""
        with self.service.at_hand(), _environment(self.ticket, self.args):
            yield

    @contextmanager
    def given_up_on_error(self) -> Iterator[None]:
        """If this fails, nobody will write the run: it leaves no process behind."""
        try:
            yield
        except BaseException:
            self.service.end()
            raise

    def finish(self, status: Status) -> None:
        """Upload what is left, tell the server the end if that is this writer's to tell, and end the service.

        Whatever comes of it, the service is gone then, and brings nothing later.
        """
        try:
            with self.service.within(FINISH_TIMEOUT + GRACE):
                self.run.finish(exit_code=0 if status == "finished" else 1)
        finally:
            self.service.end()


def init(ticket: RunTicket, args: WandbArgs) -> OpenRun:
    """Open, join or resume a run.

    Raises:
        Unavailable: not now; it may be tried again.
        BackendRefused: an argument that this SDK does not know, or credentials that it cannot use.
    """
    return OpenRun(*with_own_service(lambda: _init_here(ticket, args)), ticket, args)


def _init_here(ticket: RunTicket, args: WandbArgs) -> wandb.Run:
    with _environment(ticket, args), in_place_of_role(ticket):
        return _init(ticket, args)


def _init(ticket: RunTicket, args: WandbArgs) -> wandb.Run:
    import wandb

    settings = _settings(ticket, args)
    try:
        return wandb.init(**_arguments(ticket, args), settings=settings)
    except wandb.errors.AuthenticationError as error:
        raise BackendRefused(f"wandb cannot use these credentials: {error}") from error
    except wandb.errors.UsageError as error:
        raise BackendRefused(f"wandb refuses: {error}") from error
    except Exception as error:
        raise Unavailable(f"wandb.init failed: {_describe(error)}") from error


def _arguments(ticket: RunTicket, args: WandbArgs) -> dict[str, Any]:
    """What a run is called. In a shared run the primary alone says so: a later joiner's word would count instead."""
    directory = _directory(ticket, args)
    directory.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "project": ticket.project,
        "entity": args.entity,
        "id": ticket.run_id,
        "dir": str(directory),
        "config": dict(ticket.config),
        "save_code": False,
        "reinit": "create_new",
    }
    if ticket.shared and not ticket.primary:
        return common
    tags = [*([ticket.role] if ticket.role and not ticket.shared else []), *args.tags]
    return common | {
        "name": ticket.name,
        "group": ticket.group,
        "tags": tags or None,
        "notes": args.notes,
        "job_type": args.job_type,
        "resume": "allow" if not ticket.shared and mode(args).value == "online" else None,
    }


def _settings(ticket: RunTicket, args: WandbArgs) -> wandb.Settings:
    import wandb

    known = wandb.Settings.model_fields
    wanted = _ours(ticket, args) | settings_of_role(ticket)
    _require_known(args.settings, list(known))
    try:
        return wandb.Settings(
            **{name: value for name, value in wanted.items() if name in known} | args.settings
        )
    except ValueError as error:
        raise BackendRefused(f"monitor_args.settings: {_describe(error)}") from error


def _ours(ticket: RunTicket, args: WandbArgs) -> dict[str, Any]:
    key = args.api_key.get_secret_value() if args.api_key else None
    ours: dict[str, Any] = {
        "base_url": base_url(args),
        "mode": "shared" if ticket.shared else mode(args).value,
        "init_timeout": args.init_timeout,
        "x_file_stream_transmit_interval": TRANSMIT_EVERY,
        "finish_timeout": FINISH_TIMEOUT,  # since 0.27; all rows are confirmed by then
    }
    if ours["mode"] == "offline":
        ours["x_transaction_log_flush_interval"] = WRITE_EVERY
    if ticket.shared:
        ours |= {
            "x_label": ticket.writer or "@launcher",
            "x_primary": ticket.primary,
            "x_update_finish_state": ticket.primary,
        }
    return ours | ({"api_key": key} if key else {})


def _require_known(given: Mapping[str, Any], known: list[str]) -> None:
    import wandb

    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BackendRefused(
                f"monitor_args.settings.{name}: wandb {wandb.__version__} has no such setting{hint}"
            )


def _directory(ticket: RunTicket, args: WandbArgs) -> Path:
    """Each writer's own: before 0.22.1 two writers that start in one second would share a file."""
    said = args.dir or os.environ.get("WANDB_DIR")
    base = Path(said).expanduser() if said else ticket.directory / "wandb"
    return base / (ticket.writer or "@launcher").replace("/", "@")


@contextmanager
def _environment(ticket: RunTicket, args: WandbArgs) -> Iterator[None]:
    """Hide from the SDK what is not meant for this run, and tell it what it takes from nowhere else.

    That is the key for 0.19, and for whatever is no matter of the run, such as a table's artifact, also the server.
    """
    names = [f"WANDB_{name}" for name in _IDENTITY + (() if ticket.primary else _NAMES)]
    told = {"WANDB_BASE_URL": base_url(args), "WANDB_MODE": mode(args).value}
    if args.api_key is not None:
        told["WANDB_API_KEY"] = args.api_key.get_secret_value()
    before = {name: os.environ.pop(name, None) for name in (*names, *told)}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _describe(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
