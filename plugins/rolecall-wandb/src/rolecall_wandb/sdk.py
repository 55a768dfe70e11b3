"""Opens runs with the SDK.

Only `init` imports wandb, which takes more than a second.
"""

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
from rolecall_wandb.server import Denied
from rolecall_wandb.service import Service, await_orphans, with_own_service
from rolecall_wandb.situation import base_url, mode, takes_key
from rolecall_wandb.surroundings import in_place_of_role, settings_of_role

if TYPE_CHECKING:
    import wandb

__all__ = ["TRANSMIT_EVERY", "WRITE_EVERY", "OpenRun", "fixed_tags", "init"]

TRANSMIT_EVERY: Final = 5.0
"""Seconds between transmissions of a run's rows. With the SDK's default of 15 each role's last rows wait for 15 s."""
WRITE_EVERY: Final = 1.0
"""Seconds between writes of an offline run's file, in versions that have a setting for it."""
FINISH_TIMEOUT: Final = 60.0
"""Seconds that the end of a run may take."""
GRACE: Final = 5.0
"""More seconds until the service is killed. Versions before 0.27 have no setting for the time-out."""

_IDENTITY: Final = ("RUN_ID", "RESUME", "SWEEP_ID")
# The SDK names a run by these variables. Those of a writer that joins later would replace what the primary has set.
_NAMES: Final = ("NAME", "NOTES", "TAGS", "JOB_TYPE", "RUN_GROUP")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """An open run of the SDK and its own service process."""

    run: wandb.Run
    service: Service
    ticket: RunTicket
    args: WandbArgs

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Make this run's service and settings those of the process, while a table is logged."""
        # For a table the SDK takes server, key and mode from the process and not from the run.
        with (
            self.service.at_hand(),
            _environment(self.ticket, self.args, has_key=True),
            _staging(self.ticket, self.args),
        ):
            yield

    @contextmanager
    def given_up_on_error(self) -> Iterator[None]:
        """End the service if the block raises, so that no process is left behind."""
        try:
            yield
        except BaseException:
            self.service.end()
            raise

    def finish(self, status: Status) -> None:
        """Upload what is left, report the end to the server if this is the primary, and end the service.

        The service is ended also if this raises, so it uploads nothing afterwards.
        """
        try:
            with self.service.within(FINISH_TIMEOUT + GRACE):
                self.run.finish(exit_code=0 if status == "finished" else 1)
        finally:
            self.service.end()


def init(ticket: RunTicket, args: WandbArgs) -> OpenRun:
    """Open, join or resume a run.

    Raises:
        Unavailable: the run cannot be opened at the moment.
        Denied: it cannot use the credentials or the arguments; at launch that is final.
        BackendRefused: this SDK version does not have a setting.
    """

    def start() -> wandb.Run:
        # The service that starts here inherits the environment, where every process of this user can read it.
        with _environment(ticket, args, has_key=not takes_key()), _variables(_cores()), in_place_of_role(ticket):
            return _init(ticket, args)

    await_orphans()
    return OpenRun(*with_own_service(start), ticket, args)


def _init(ticket: RunTicket, args: WandbArgs) -> wandb.Run:
    import wandb

    settings = _settings(ticket, args)
    try:
        return wandb.init(**_arguments(ticket, args), settings=settings)
    except wandb.errors.AuthenticationError as error:
        raise Denied(
            f"wandb cannot use these credentials: {error}. Set WANDB_API_KEY or monitor_args.api_key"
        ) from error
    except wandb.errors.UsageError as error:
        raise Denied(f"wandb.init refuses the arguments: {error}") from error
    except Exception as error:
        raise Unavailable(f"wandb.init failed: {_describe(error)}") from error


def _arguments(ticket: RunTicket, args: WandbArgs) -> dict[str, Any]:
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
    if not ticket.shared and mode(args).value == "online":
        common["resume"] = "allow"
    # Only the primary of a shared run names it: what a writer that joins later says would replace it.
    if not _names(ticket):
        return common
    return common | {
        "name": ticket.name,
        "group": _group(ticket),
        "tags": [*fixed_tags(ticket, args), *ticket.tags] or None,
        "notes": args.notes,
        "job_type": args.job_type,
    }


def _names(ticket: RunTicket) -> bool:
    """Whether this writer gives the run its name, and what else describes it. Nobody does if somebody else made it."""
    return not ticket.attached and (ticket.primary or not ticket.shared)


def fixed_tags(ticket: RunTicket, args: WandbArgs) -> tuple[str, ...]:
    """The tags of a run that come from its role and from the arguments."""
    return (*([ticket.role] if ticket.role and not ticket.shared else []), *args.tags)


def _group(ticket: RunTicket) -> str | None:
    # What the SDK would take; what the user wrote as `group` counts more, and the job's name, its default, less.
    is_default = ticket.name in (ticket.group, f"{ticket.group}_{(ticket.writer or '').replace('/', '_')}")
    return (os.environ.get("WANDB_RUN_GROUP") if is_default else None) or ticket.group


def _settings(ticket: RunTicket, args: WandbArgs) -> wandb.Settings:
    import wandb

    known = wandb.Settings.model_fields
    wanted = _ours(ticket, args) | settings_of_role(ticket)
    _require_known(args.settings, list(known))
    try:
        return wandb.Settings(**{name: value for name, value in wanted.items() if name in known} | args.settings)
    except ValueError as error:
        raise BackendRefused(f"monitor_args.settings: {_describe(error)}") from error


def _ours(ticket: RunTicket, args: WandbArgs) -> dict[str, Any]:
    key = args.api_key.get_secret_value() if args.api_key else None
    ours: dict[str, Any] = {
        "base_url": base_url(args),
        "mode": "shared" if ticket.shared else mode(args).value,
        "init_timeout": args.init_timeout,
        "x_file_stream_transmit_interval": TRANSMIT_EVERY,
        "finish_timeout": FINISH_TIMEOUT,  # since 0.27
    }
    if ours["mode"] == "offline":
        ours["x_transaction_log_flush_interval"] = WRITE_EVERY
    if ticket.shared:
        ours |= {
            "x_label": ticket.writer or "@launcher",
            "x_primary": ticket.primary,
            # A repair opens a run that has ended, and joining it makes it a running one.
            "x_update_finish_state": ticket.primary or ticket.repair,
        }
    return ours | ({"api_key": key} if key else {})


def _require_known(given: Mapping[str, Any], known: list[str]) -> None:
    import wandb

    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BackendRefused(f"monitor_args.settings.{name}: unknown setting of wandb {wandb.__version__}{hint}")


def _directory(ticket: RunTicket, args: WandbArgs) -> Path:
    named = args.dir or os.environ.get("WANDB_DIR")
    base = Path(named).expanduser() if named else ticket.directory
    # A directory for each writer: before 0.22.1 two writers that start in the same second would share a file.
    return base / (ticket.writer or "@launcher").replace("/", "@")


@contextmanager
def _environment(ticket: RunTicket, args: WandbArgs, *, has_key: bool) -> Iterator[None]:
    """Hide variables that are not meant for this run, and set those that the SDK reads from nowhere else."""
    names = [f"WANDB_{name}" for name in _IDENTITY + (() if _names(ticket) else _NAMES)]
    # In all versions, what does not belong to the run, such as a table's artifact, takes server and key from here.
    wanted: dict[str, str | None] = {"WANDB_BASE_URL": base_url(args), "WANDB_MODE": mode(args).value}
    if args.api_key is not None and has_key:
        wanted["WANDB_API_KEY"] = args.api_key.get_secret_value()
    with _variables(dict.fromkeys(names) | wanted):
        yield


def _cores() -> Mapping[str, str]:
    """How many cores the service, a Go program, may use at a time: one, unless the user has said."""
    # With more, it passes each row from thread to thread, which takes a tenth more CPU (0.31.0).
    return {"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1")}


@contextmanager
def _staging(ticket: RunTicket, args: WandbArgs) -> Iterator[None]:
    """Let the SDK stage tables in the writer's own directory, where the home directory cannot be written."""
    import wandb.env

    wanted: dict[str, str | None] = {}
    try:
        Path(wandb.env.get_data_dir(), "artifacts", "staging").mkdir(parents=True, exist_ok=True)
    except OSError:
        wanted = {"WANDB_DATA_DIR": str(_directory(ticket, args))}
    with _variables(wanted):
        yield


@contextmanager
def _variables(wanted: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables of the environment, or hide those that are `None`; afterwards they are as before."""
    before = {name: os.environ.pop(name, None) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _describe(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
