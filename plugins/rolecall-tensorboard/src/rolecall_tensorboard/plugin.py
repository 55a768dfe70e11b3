"""The hooks of the backend `tensorboard`."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from pydantic import BaseModel

from rolecall import BackendRefused, RunGone, RunTicket, SharedRunSupport, Unavailable, hookimpl
from rolecall_tensorboard import sdk
from rolecall_tensorboard.args import TensorBoardArgs
from rolecall_tensorboard.ledger import event_files, owned_files, owner, read_ledger
from rolecall_tensorboard.readback import TensorBoardReadback
from rolecall_tensorboard.records.encode import Encoder
from rolecall_tensorboard.repair import TensorBoardRepair
from rolecall_tensorboard.run import RunPlace, TensorBoardRun, file_suffix

__all__ = ["ROLECALL_HOOKS", "backend_args", "open_readback", "open_run", "prepare", "supports_shared_run"]

ROLECALL_HOOKS = 2

NOT_SHARED = (
    "TensorBoard shows each directory as one run, and it cannot read a directory that several processes write to. "
    "So each writer gets a sub-directory and is a run of its own; `tensorboard --logdir` on the parent directory shows "
    "them together. Set shared_run: relay for one run, which one process writes"
)
NO_REPAIR = (
    "event files that hold the rows of several roles take none between those that they hold; all rows can go to new "
    "files"
)

# What a file system reports when it is full or unreachable for a while: worth another try. Anything else is an error
# that the user has to fix.
TEMPORARY = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE})


@hookimpl
def backend_args() -> type[BaseModel]:
    """The model of `monitor_args`."""
    return TensorBoardArgs


@hookimpl
def supports_shared_run(args: TensorBoardArgs) -> SharedRunSupport:
    """Never, whatever the arguments."""
    return SharedRunSupport(supported=False, reason=NOT_SHARED)


@hookimpl
def prepare(ticket: RunTicket, args: TensorBoardArgs) -> None:
    """Check that tensorboardX is installed and that event files can be written.

    Raises:
        Unavailable: the file system is full or unreachable at the moment.
        BackendRefused: tensorboardX is missing or too old, or the directory is not writable.
    """
    sdk.installed()
    base = args.base(ticket.directory)
    try:
        base.mkdir(parents=True, exist_ok=True)
        # An anonymous file: the check leaves nothing in the directory, even if this process is killed in between.
        with tempfile.TemporaryFile(dir=base) as probe:
            probe.write(b"rolecall")
    except OSError as error:
        raise _not_writable(base, error) from error


@hookimpl
def open_run(ticket: RunTicket, args: TensorBoardArgs) -> TensorBoardRun | TensorBoardRepair:
    """Open or resume the run of one writer, or that of all writers whose rows come through this process.

    Raises:
        Unavailable: the file system is full or unreachable at the moment.
        BackendRefused: tensorboardX is missing, too old or broken, or the directory is not writable.
    """
    parts = sdk.load()
    is_one = ticket.writers == "one"
    if ticket.repair and not is_one:
        raise BackendRefused(NO_REPAIR)
    writer = ticket.writer or ("launcher" if is_one else "relay")
    try:
        directory = _directory(ticket, args, parts)
        place = RunPlace(
            base=args.base(ticket.directory),
            directory=directory,
            suffix=file_suffix(writer, ticket.pid),
            run_id=ticket.run_id,
            config=ticket.config,
            tags=ticket.tags,
            many=ticket.writers == "many",
            labels={"job": _job(ticket), **({"role": writer} if is_one else {})},
        )
        ledger = read_ledger(directory, ticket.run_id, parts)
        if ticket.repair:
            return TensorBoardRepair(place, parts, ledger)
        return TensorBoardRun(place, Encoder(parts), ledger)
    except OSError as error:
        raise _not_writable(args.base(ticket.directory), error) from error


@hookimpl
def open_readback(ticket: RunTicket, args: TensorBoardArgs) -> TensorBoardReadback:
    """Read the event files of one writer's run.

    Raises:
        RunGone: there are none.
        BackendRefused: tensorboardX is missing, too old or broken, or the files cannot be read.
    """
    parts = sdk.load()
    try:
        directory = _directory(ticket, args, parts)
        files = owned_files(directory, ticket.run_id, parts)
    except OSError as error:
        raise BackendRefused(f"cannot read event files: {error.filename}: {error.strerror}") from error
    if not files:
        raise RunGone(f"{directory} has no event file of this run")
    return TensorBoardReadback(files, parts)


def _directory(ticket: RunTicket, args: TensorBoardArgs, parts: sdk.Sdk) -> Path:
    """The writer's directory, or `run_id` in it if another rolecall run has written to it."""
    base, writer = args.base(ticket.directory), ticket.writer or "launcher"
    role = writer if ticket.writers == "one" else None
    place = args.place(project=ticket.project, name=_job(ticket), role=role)
    directory = _below(base, place, writer)
    owners = {owner(path, parts) for path in event_files(directory)}
    # TensorBoard joins all files of a directory: two runs there would be drawn as one line that jumps back and forth.
    return directory if owners <= {None, ticket.run_id} else _below(base, f"{place}/{ticket.run_id}", writer)


def _job(ticket: RunTicket) -> str:
    return ticket.job or ticket.name


def _below(base: Path, place: str, writer: str) -> Path:
    path = Path(os.path.normpath(base / place))
    # Not beside the other writers' directories either: one that is above them would be theirs, too.
    depth = len(Path(place).parts)
    if not path.is_relative_to(base) or len(path.relative_to(base).parts) != depth:
        raise BackendRefused(f"the writer name {writer!r} is not a directory below {base}; rename the role")
    return path


def _not_writable(base: Path, error: OSError) -> BackendRefused | Unavailable:
    detail = f"{error.filename or base}: {error.strerror}"
    if error.errno in TEMPORARY:
        return Unavailable(f"tensorboard: cannot write event files at the moment: {detail}")
    return BackendRefused(f"cannot write event files: {detail}; set monitor_args.log_dir to a writable directory")
