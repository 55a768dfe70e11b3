"""The launcher's end of a job without a shared disk: files again, of what `rolecall.delivery.relay.forward` sends.

A position is a file and the offset up to which it is on the disk. Bytes are written at the end of a file only: what
leaves a gap is refused, and what comes twice is skipped. A forwarder has a generation, from the last time that it asked
what is held; a batch of an older one is refused.

Who has a writer's name is decided here, as for all roles of a job: `open` claims it. A session lives while the
forwarder of its node says so. If that says that its process is gone, or the node is, the session is ended here::

    {"end": "killed", "seq": 41, "time": 1764000002.0, "by": "hub", "unseen": 7.5, "sum": "..."}

`unseen` is there if the node was lost: the seconds for which nothing was heard of it. Rows of that time may be gone.
"""

import logging
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rolecall.delivery.relay.forward import Batch, Piece, Reply, is_journal, name_of, on_node
from rolecall.errors import WriterConflict
from rolecall.rows import Details
from rolecall.states import State
from rolecall.store.codec import append_line, decode, last_line, last_seq, make_folder, open_own, put_whole, refuse_link
from rolecall.store.details import begin
from rolecall.store.layout import LAUNCH, Layout, writer_of
from rolecall.store.lease import Owner, Session, claim, newest, sessions
from rolecall.timings import HEARTBEAT

logger = logging.getLogger("rolecall")

_FILE: Final = re.compile(
    r"(?P<slug>[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:@[0-9]+)?)/"
    r"(?:[1-9][0-9]{0,17}\.(?:jsonl|header\.json)|(?P<folder>[1-9][0-9]{0,17}\.files)/[A-Za-z0-9_-][A-Za-z0-9._-]{0,254})",
    re.ASCII,
)

Answer = Literal["alive", "dead", "lost", "unknown"]
"""What a node says of a session: its process lives; it is gone, and all that it wrote is here; the node is gone, too;
or there was no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A role that asks for its name.

    Attributes:
        node: where its journal will be.
        token: tells this question from others: the answer may be lost, and the question comes again.
        owner: its process.
        header: what the first line of its session says beside what the hub knows.
    """

    writer: str
    node: str
    token: str
    owner: Owner
    header: Mapping[str, Any]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a role needs to write its journal.

    Attributes:
        number: of its session.
        line: the first line of the session.
        header: what that line says, less what each process says of itself.
        steps: the last step on each axis.
        details: what holds of the config, summary and tags.
        warning: what the role's user is to know.
    """

    number: int
    line: bytes
    header: Mapping[str, Any]
    steps: Mapping[str, int]
    details: Details
    warning: str = ""


class _Node:
    """What is known of one node; times are by the monotonic clock."""

    def __init__(self) -> None:
        self.generation = 0
        self.heard = self.up_to_date = time.monotonic()
        self.touched = float("-inf")
        self.lock = threading.Lock()


class Inbox:
    """The journals of all nodes, in the job's `monitor_dir`. Threads may share it.

    Args:
        layout: the `monitor_dir`.
        incarnation: greater than that of any earlier one there.
    """

    def __init__(self, layout: Layout, incarnation: int = 0) -> None:
        self._layout = layout
        self._root = layout.journal(LAUNCH).parent
        self._greetings = incarnation << 32
        self._nodes: dict[str, _Node] = {}
        self._lock = threading.Lock()
        self._ended: set[Path] = set()
        self._opening: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    # ------------------------------------------------------------- the bytes

    def greet(self, node: str, files: Iterable[str]) -> tuple[int, dict[str, int]]:
        """A forwarder begins: its generation, and what is held of its files."""
        with self._of(node) as known:
            with self._lock:
                self._greetings += 1
                known.generation = self._greetings
            held = {}
            for file in files:
                path = self._path(file)
                # It may be that only the answer was lost that a file was whole. What was not whole is sent again.
                _draft_of(path).unlink(missing_ok=True)
                if path.exists():
                    held[file] = _sync(path)
            return known.generation, held

    def take(self, node: str, batch: Batch) -> Reply:
        """Write a batch down.

        Raises:
            OSError: it could not be written, or not all of it.
        """
        with self._of(node) as known:
            if batch.generation != known.generation:
                return Reply(is_refused=True)
            files = dict.fromkeys(piece.file for piece in batch.pieces)
            for piece in batch.pieces:
                self._write(piece)
            held = {file: size for file in files if (size := self._settle(file)) >= 0}
            over = [file for file, size in batch.over.items() if self._end_over(file, size)]
            # Somebody removed what was here: it is sent again.
            held |= {file: max(0, self._settle(file)) for file in batch.over if file not in over}
            known.heard = time.monotonic()
            if batch.is_all:
                known.up_to_date = known.heard
            if known.heard - known.touched >= HEARTBEAT:
                known.touched = known.heard
                self._touch(batch.live)
            return Reply(held=held, over=over)

    def _write(self, piece: Piece) -> None:
        path = self._path(piece.file)
        grows, is_here = is_journal(piece.file), path.exists()
        make_folder(path.parent)
        if grows and not is_here and piece.offset == 0:
            self._adopt_attachments(path, piece)
            put_whole(path, piece.data)  # a reader finds the first line, or nothing
        elif grows or not is_here:
            self._append(piece, path, grows=grows)

    def _append(self, piece: Piece, path: Path, *, grows: bool) -> None:
        """Write what is new of a piece behind what is held of its file."""
        target = path if grows else _draft_of(path)
        descriptor = open_own(target, create=True)
        try:
            size = os.fstat(descriptor).st_size
            # Whatever is held already is not written over: somebody may read it now.
            if piece.offset <= size < piece.offset + len(piece.data) and not (grows and self._is_ended_here(path)):
                _write_all(descriptor, piece.data[size - piece.offset :])
            if piece.is_last and os.fstat(descriptor).st_size == piece.offset + len(piece.data):
                os.fsync(descriptor)
                os.rename(target, path)
        finally:
            os.close(descriptor)

    def _adopt_attachments(self, path: Path, piece: Piece) -> None:
        """A session that continues another one, as its file was changed from outside, has the attachments of that."""
        session = Session(path, int(path.stem))
        with suppress(OSError, ValueError):
            number = decode(piece.data.partition(b"\n")[0], session.seed).get("continues")
            before = refuse_link(path.with_name(f"{number}.files"))
            for name in os.listdir(before):
                make_folder(session.attachments)
                with suppress(FileExistsError):
                    os.link(before / name, session.attachments / name)

    def _settle(self, file: str) -> int:
        """How much of a file is on the disk; -1 if nothing."""
        path = self._path(file)
        found = path if is_journal(file) or path.exists() else _draft_of(path)
        return _sync(found) if found.exists() else -1

    def _touch(self, live: Iterable[str]) -> None:
        """Show other processes that sessions are alive."""
        for file in live:
            with suppress(OSError):
                os.utime(self._path(file), follow_symlinks=False)

    # ---------------------------------------------------------- the sessions

    def open(self, opening: Opening, ask: Callable[[str, Session], Answer]) -> Opened:
        """Claim a writer's name.

        Args:
            opening: who asks.
            ask: asks the node of an earlier session how that is.

        Raises:
            WriterConflict: a live process has it.
        """
        writer = opening.writer
        with self._lock:
            one = self._opening[writer]
        with one:
            journal = self._layout.journal(writer)
            session, warning = newest(journal), ""
            is_again = session is not None and session.header().get("token") == opening.token
            if not is_again:
                warning = self._end_earlier(session, writer, ask)
            beginning = begin(self._layout, writer, opening.header, opening.tags)
            header = {**beginning.header, "node": opening.node, "token": opening.token}
            if session is None or not is_again:
                owner = on_node(opening.owner, opening.node)
                session = claim(journal, header, f"writer {writer!r}", owner=owner)
            return Opened(
                number=session.number,
                line=session.path.read_bytes(),
                header=header,
                steps=beginning.steps,
                details=beginning.details,
                warning=warning,
            )

    def give_up(self, writer: str, number: int) -> None:
        """A role could not write on its node after all: its session is over."""
        session = Session(self._path(name_of(writer, number)), number)
        if session.status() is None:
            self._end(session, {})

    def lose(self, node: str) -> dict[str, float]:
        """A node is gone: its sessions are over; the writers, and seconds whose rows may be gone with it."""
        with self._of(node) as known:
            unseen = time.monotonic() - known.up_to_date
            lost = [session for session in self._unended() if session.header().get("node") == node]
            for session in lost:
                self._end(session, {"unseen": round(unseen, 1)})
            known.generation = 0
        return {writer_of(session.path.parent.name): unseen for session in lost}

    def silent(self, seconds: float) -> list[str]:
        """The nodes of live sessions of which nothing was heard for so long."""
        nodes = {node for session in self._unended() if isinstance(node := session.header().get("node"), str)}
        return [node for node in sorted(nodes) if time.monotonic() - self._known(node).heard > seconds]

    def is_done(self) -> bool:
        """Whether every session has ended and is here as a whole: its last line is the last that is sent."""
        return not any(True for _ in self._unended())

    def _end_earlier(self, before: Session | None, writer: str, ask: Callable[[str, Session], Answer]) -> str:
        """See to it that an earlier session of a writer is over; what its user is to know, if rows may be missing."""
        if before is None or before.status() is not None:
            return ""
        node, owner = before.header().get("node"), before.owner()
        if not isinstance(node, str) or owner is None:
            return ""  # not of ours: `claim` finds out
        answer = ask(node, before)
        if answer == "alive":
            who = f"writer {writer!r} is held by {owner} ({before.path})"
            raise WriterConflict(f"{who}. Stop that process, or use another role or rank for this one.")
        if answer == "unknown":
            return ""  # `claim` waits for a sign of life
        unseen = time.monotonic() - self._known(node).up_to_date
        if before.status() is None:
            self._end(before, {"unseen": round(unseen, 1)} if answer == "lost" else {})
        if answer == "dead":
            return ""
        return (
            f"{writer}: the node of its earlier process was lost, with the rows of its last {unseen:.0f} s; steps go "
            "on after the last row that is here"
        )

    def _end_over(self, file: str, size: int) -> bool:
        """Whether a session is over here too, now that its node says so; one without an end gets it here."""
        path = self._path(file)
        session = Session(path, int(path.stem))
        if not path.exists() or path.stat().st_size < size:
            return False
        if session.status() is None:
            self._end(session, {})
        return True

    def _end(self, session: Session, more: Mapping[str, Any]) -> None:
        """End a session whose process cannot do it any more."""
        end = {"end": str(State.KILLED), "seq": last_seq(last_line(session.path, session.seed)), "time": time.time()}
        descriptor = open_own(session.path)
        try:
            append_line(descriptor, {**end, "by": "hub", **more}, session.seed)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _is_ended_here(self, path: Path) -> bool:
        """Whether the last line of a journal was written here, so that nothing of the node belongs behind it."""
        return (last_line(path, Session(path, int(path.stem)).seed) or {}).get("by") == "hub"

    def _unended(self) -> Iterator[Session]:
        """The sessions of nodes that nobody has ended yet."""
        for writer in self._layout.writers():
            for session in sessions(self._layout.journal(writer)):
                if session.path in self._ended:
                    continue
                if session.status() is not None or "node" not in session.header():
                    self._ended.add(session.path)  # so that each is looked at once a second only while it is needed
                else:
                    yield session

    # ----------------------------------------------------------------- paths

    def _known(self, node: str) -> _Node:
        with self._lock:
            return self._nodes.setdefault(node, _Node())

    @contextmanager
    def _of(self, node: str) -> Iterator[_Node]:
        """What is known of a node, which no other thread changes meanwhile."""
        known = self._known(node)
        with known.lock:
            yield known

    def _path(self, file: str) -> Path:
        """Where a file of a node is here.

        Raises:
            OSError: its name leads elsewhere.
        """
        match = _FILE.fullmatch(file)
        if match is None:
            raise OSError(f"{file!r} is no file of a journal")
        folder = self._layout.journal(writer_of(match["slug"]))
        if match["folder"]:
            refuse_link(folder / match["folder"])
        return self._root / file


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> int:
    """Have a file on the disk; its length."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fdatasync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
