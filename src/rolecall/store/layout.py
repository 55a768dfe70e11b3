"""The paths in `monitor_dir`, and its manifest, `run.json`.

::

    run.json                             the run's record, by the launcher
    journal/explorer@0/1.jsonl           rows: one directory for each writer, one file for each session
    journal/explorer@0/1.header.json     the first line once more, in case it gets damaged
    journal/explorer@0/1.files/7.json    the content of the row with seq 7, if it is over 4 MiB
    journal/@launch/1.jsonl              the launcher's place: opened and ended, without rows
    journal/node@gpu17/1.jsonl           what the agent of a node measured
    axes/explorer@0.jsonl                bindings of keys to axes, and the config, by this writer
    delivery/mlflow/explorer@0/1.jsonl   what the backend acknowledged, by this writer's courier
    delivery/mlflow/explorer@0/run.json  what the backend calls the run that these rows went to
    delivery/acme/@launch/steps.json     the highest step that a relay may have given out, for backends that need it
    launching/1.jsonl                    held by a launcher while it decides what to go on with
    hub/1.jsonl                          held by the hub of a job over Ray
    courier/explorer@0.log               what the courier's process and its SDKs printed
    courier/mlflow.NONCE.away            empty: somebody has warned that this backend is away
    backends/tensorboard/                what a backend itself writes, each in a folder of its own
    previous/RUN_ID/                     a finished job that stood here before, laid out like this
"""

import json
import operator
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from rolecall.config.plan import Name, Plan, Slug
from rolecall.config.redact import shown
from rolecall.errors import ConfigError, DirectoryError, describe_os_error
from rolecall.store.codec import put_whole, refuse_link

_LARGEST_RECORD: Final = 1 << 20
VERSION: Final = 2
"""Of everything in the directory."""
LAUNCH = "@launch"
"""The launcher's name among writers; no role can have it."""
SINGLE = "main"
"""The role of a job of one process, as `rolecall.init` makes it."""

NODE: Final = "node/"
"""What the name of a node's agent among writers begins with; a role `node` has ranks, and a host is no number."""

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SLUG = re.compile(rf"{_ROLE.pattern}(@[0-9]+)?|node@(?![0-9]+$){_ROLE.pattern}")


def writer_name(role: object, rank: Any) -> str:
    """`"explorer"`, or `"explorer/0"` with a rank.

    Raises:
        ConfigError: the role or the rank cannot name a writer.
    """
    if not isinstance(role, str) or _ROLE.fullmatch(role) is None:
        raise ConfigError(
            f"role {shown(role)}: must start with a letter or digit and consist of at most 64 letters, digits, '.', "
            f"'_' and '-'; pass a number as rank"
        )
    if rank is None:
        return role
    try:
        number = -1 if isinstance(rank, bool) else operator.index(rank)  # numpy's ints are written otherwise
    except TypeError:
        number = -1
    if number < 0:
        hint = f"; pass int({shown(rank)})" if isinstance(rank, str) and rank.isdecimal() else ""
        raise ConfigError(f"rank {shown(rank)} of role {role!r}: must be None or a whole number from 0{hint}")
    return f"{role}/{number}"


def node_name(host: str | None = None) -> str:
    """The agent of a node among writers: `node/gpu17`.

    Args:
        host: its name; that of this machine by default.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]", "-", host or socket.gethostname()).lstrip("._-")[:64] or "unnamed"
    return f"{NODE}host-{slug[:59]}" if slug.isdecimal() else f"{NODE}{slug}"


def is_node(writer: str) -> bool:
    """Whether a writer is the agent of a node, and no role."""
    return writer.startswith(NODE) and not writer[len(NODE) :].isdecimal()


def slug_of(writer: str) -> str:
    """The writer's name in file names; no role has an `@`, so two writers never share one."""
    return writer.replace("/", "@")


def writer_of(slug: str) -> str:
    """The writer that a file name means."""
    return slug if slug == LAUNCH else slug.replace("@", "/")


class Layout:
    """The paths below one `monitor_dir`, which itself may be a symlink.

    No directory below it may be one: somebody else may have put it there, to have this user's files read or written
    elsewhere. Whoever asks for a path that leads through one gets an `OSError`.

    Attributes:
        root: the `monitor_dir`.
        record: the run's record.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "run.json"

    @property
    def launching(self) -> Path:
        """The claim of a launcher that is deciding what to go on with."""
        return self._folder("launching")

    @property
    def hub(self) -> Path:
        """The claim of the process that writes the journals of other nodes here."""
        return self._folder("hub")

    @property
    def axes(self) -> Path:
        """The folder of all writers' bindings."""
        return self._folder("axes")

    def journal(self, writer: str) -> Path:
        """The folder of a writer's sessions."""
        return self._folder("journal", slug_of(writer))

    def bindings(self, writer: str) -> Path:
        """A writer's own file of bindings."""
        return self.axes / f"{slug_of(writer)}.jsonl"

    def delivery(self, backend: str, writer: str) -> Path:
        """The claim, and the acknowledgements, of carrying a writer to a backend."""
        return self._folder("delivery", backend, slug_of(writer))

    def run(self, backend: str, writer: str) -> Path:
        """What the backend calls the run of a writer."""
        return self.delivery(backend, writer) / "run.json"

    def courier_log(self, writer: str) -> Path:
        """What the courier's process and its SDKs printed."""
        return self._folder("courier") / f"{slug_of(writer)}.log"

    def outage(self, backend: str, nonce: str) -> Path:
        """A file that is there once somebody has warned that a backend is away; `nonce` tells launches apart."""
        return self._folder("courier") / f"{backend}.{nonce}.away"

    def backend(self, name: str) -> Path:
        """The folder that a backend may write to."""
        return self._folder("backends", name)

    def previous(self, run_id: str) -> Path:
        """Where a finished job of this directory is kept."""
        return self._folder("previous", run_id)

    def earlier(self) -> list[Path]:
        """The jobs that were set aside, each a `monitor_dir` of its own."""
        folder = self._folder("previous")
        return [folder / name for name in _folders_in(folder) if not (folder / name).is_symlink()]

    def writers(self) -> list[str]:
        """Every role and node with a journal; the launcher is left out, and what lies there and can be neither."""
        return [writer_of(slug) for slug in _folders_in(self._folder("journal")) if _SLUG.fullmatch(slug)]

    def roles(self) -> list[str]:
        """Every role with a journal."""
        return [writer for writer in self.writers() if not is_node(writer)]

    def backends(self) -> list[str]:
        """Every backend that rows were delivered to."""
        return _folders_in(self._folder("delivery"))

    def _folder(self, *names: str) -> Path:
        path = self.root
        for name in names:
            path = refuse_link(path / name)
        return path


def _folders_in(folder: Path) -> list[str]:
    """The names of the directories in one; those of symlinks, too, which are refused when they are used."""
    try:
        with os.scandir(folder) as found:
            return sorted(each.name for each in found if each.is_dir(follow_symlinks=False) or each.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One job in one `monitor_dir`.

    Attributes:
        version: of everything in the directory.
        nonce: new with each launch. A role whose config has another one is in another directory than its launcher.
        created: when the job was launched, in seconds since the epoch.
        args: the backends' arguments, without secrets.
    """

    version: Literal[2] = 2
    run_id: Slug
    nonce: Slug
    project: Name
    name: Name
    group: Name | None
    created: float
    spool_dir: str | None = None
    plan: Plan
    args: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    # Made when the first record is read: it takes a while, and `import rolecall` should not.
    return TypeAdapter(RunRecord)


def read_record(layout: Layout) -> RunRecord | None:
    """The record, `None` if no launcher has been here.

    Raises:
        DirectoryError: it cannot be read, is damaged, or is of another version.
    """
    found = judge_record(layout)
    return found and found[0]


def judge_record(layout: Layout) -> tuple[RunRecord, str] | None:
    """The record, and why it cannot be trusted: the bytes that are judged are those that are read.

    A record names servers. It is trusted if it belongs to this user and nobody else can write it.

    Raises:
        DirectoryError: as for `read_record`.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that somebody put there would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(layout.record, flags), "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_LARGEST_RECORD + 1) if stat.S_ISREG(found.st_mode) else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DirectoryError(
            f"{layout.record}: cannot be read: {error.strerror}; give the monitor_dir of a job"
        ) from error
    if len(data) > _LARGEST_RECORD:
        raise DirectoryError(f"{layout.record}: is too large to be a record; use another monitor_dir")
    distrust = ""
    if found.st_uid != os.geteuid():
        distrust = f"it belongs to user {found.st_uid}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        distrust = "others can write it"
    try:
        return _adapter().validate_json(data), distrust
    except ValidationError as error:
        # A record that names no version has no problem there, and counts as damaged.
        versions = [problem["input"] for problem in error.errors() if problem["loc"] == ("version",)]
        fault = "is damaged; use another monitor_dir, or move this one away"
        if versions:
            fault = f"is of version {versions[0]!r}, and this rolecall reads version {VERSION}. Use another "
            fault += "monitor_dir, or read it with the rolecall that wrote it"
        raise DirectoryError(f"{layout.record}: {fault}") from error


def job_record(layout: Layout) -> tuple[RunRecord, str]:
    """The record of a job that was launched, and why it cannot be trusted; see `judge_record`.

    Raises:
        DirectoryError: there is none, or as for `read_record`.
    """
    if found := judge_record(layout):
        return found
    what = "not a monitor_dir (no run.json); give the monitor_dir of a job that was launched"
    raise DirectoryError(f"{layout.root}: {what}")


def write_record(layout: Layout, record: RunRecord) -> None:
    """Leave the record; readers see the old one or the new."""
    layout.root.mkdir(parents=True, exist_ok=True)
    # Never for others to write, whatever the umask: see `judge_record`.
    put_whole(layout.record, json.dumps(asdict(record), indent=1).encode() + b"\n", 0o644)


@contextmanager
def usable(layout: Layout) -> Iterator[None]:
    """Where a `monitor_dir` that cannot be read or written is the user's to fix: the block raises `DirectoryError`."""
    try:
        yield
    except OSError as error:
        what = f"monitor_dir {layout.root}: cannot be used: {describe_os_error(error)}"
        raise DirectoryError(f"{what}; use another monitor_dir") from error
