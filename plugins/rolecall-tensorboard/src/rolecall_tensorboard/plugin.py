"""The hooks of the backend `tensorboard`."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from pydantic import BaseModel

from rolecall import BackendRefused, RunTicket, SharedRunSupport, Unavailable, hookimpl
from rolecall_tensorboard import sdk
from rolecall_tensorboard.args import TensorBoardArgs
from rolecall_tensorboard.encode import Encoder
from rolecall_tensorboard.ledger import event_files, owner, read_ledger
from rolecall_tensorboard.run import Place, TensorBoardRun, file_suffix

__all__ = ["backend_args", "open_run", "prepare", "supports_shared_run"]

NOT_SHARED = (
    "one directory is one run in TensorBoard, and several processes that write into it do not add up to a readable "
    "one; so each writer gets a sub-directory and is a run of its own, and `tensorboard --logdir` on the directory "
    "above shows them together. Leave shared_run off, or add a backend that shares runs"
)

MAY_PASS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE})
"""What a file system says when it is full or away for now."""


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
    """Check that tensorboardX is there and that event files can be written.

    Raises:
        Unavailable: the directory is on a file system that is full or does not answer now.
        BackendRefused: tensorboardX is missing or too old, or the directory cannot be written.
    """
    sdk.installed()
    base = args.base(ticket.directory)
    try:
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base) as probe:
            probe.write(b"rolecall")
    except OSError as error:
        raise _no_directory(base, error) from error


@hookimpl
def open_run(ticket: RunTicket, args: TensorBoardArgs) -> TensorBoardRun:
    """Open or resume the run of one writer.

    Raises:
        Unavailable: the directory is on a file system that is full or does not answer now.
        BackendRefused: tensorboardX is missing, too old or broken, or the directory cannot be written.
    """
    parts = sdk.load()
    writer = ticket.writer or "launcher"
    base = args.base(ticket.directory)
    try:
        directory = _directory(base, writer, ticket.run_id, parts)
        ledger = read_ledger(directory, ticket.run_id, parts)
        return TensorBoardRun(_place(ticket, base, directory, writer), Encoder(parts), ledger)
    except OSError as error:
        raise _no_directory(base, error) from error


def _directory(base: Path, writer: str, run_id: str, parts: sdk.Sdk) -> Path:
    """`base/writer`, or `base/writer/run_id` if another run of rolecall has written there.

    Two runs in one directory would be one zigzag line in TensorBoard.
    """
    owners = {owner(path, parts) for path in event_files(_below(base, writer))}
    return _below(base, writer) if owners <= {None, run_id} else _below(base, f"{writer}/{run_id}")


def _below(base: Path, name: str) -> Path:
    path = Path(os.path.normpath(base / name))
    if not path.is_relative_to(base) or path == base:
        raise BackendRefused(f"the writer {name!r} does not name a directory below {base}")
    return path


def _place(ticket: RunTicket, base: Path, directory: Path, writer: str) -> Place:
    return Place(
        base=base,
        directory=directory,
        suffix=file_suffix(writer, ticket.pid),
        run_id=ticket.run_id,
        config=ticket.config,
    )


def _no_directory(base: Path, error: OSError) -> BackendRefused | Unavailable:
    told = f"{error.filename or base}: {error.strerror}"
    if error.errno in MAY_PASS:
        return Unavailable(f"tensorboard: no event file can be written now: {told}")
    return BackendRefused(f"no event file can be written: {told}; give another monitor_args.log_dir")
