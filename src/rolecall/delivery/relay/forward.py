"""What a node's journals hold that the launcher's node does not have yet, whatever carries the bytes there.

On each node of a job without a shared disk there is a directory that is laid out like a `monitor_dir`, in which roles
write their journals. An `Outbox` cuts what is new in it into batches. On the launcher's node, an `Inbox`
(`rolecall.delivery.relay.hub`) writes them to files of the same names, with the same bytes. Each batch is answered with
how far each file is held; what was not acknowledged is sent again, and bytes that come twice are written once. So it
does not matter which of both sides dies, how often, and which answers are lost.

An attachment goes before the rows that refer to it, and is removed from the node once it is held. A journal is removed
once its session is over and all of it is held.
"""

import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from rolecall.store.codec import make_folder, open_regular, put_whole
from rolecall.store.layout import LAUNCH, Layout, slug_of
from rolecall.store.lease import Owner, Session, sessions

BATCH: Final = 1 << 20
"""Bytes in a batch. One is under way at a time, so that is all that a forwarder holds in memory."""
_PIECE: Final = 1 << 18
_JOURNAL: Final = re.compile(r"[^/]+/[1-9][0-9]{0,17}\.jsonl", re.ASCII)


class Piece(NamedTuple):
    """Some bytes of a file.

    Attributes:
        file: its path below the folder of all journals.
        offset: where they belong.
        data: the bytes.
        is_last: whether the file ends with them. Files that grow, the journals themselves, never do.
    """

    file: str
    offset: int
    data: bytes
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a node sends at once.

    Attributes:
        generation: of the forwarder, as it was greeted.
        pieces: in the order in which they are to be written.
        live: the journals of sessions whose owners are alive.
        over: those that nobody will append to, and how long they are. All of them is held.
        is_all: whether nothing that there was when the batch was made waits behind it.
    """

    generation: int
    pieces: Sequence[Piece] = ()
    live: Sequence[str] = ()
    over: Mapping[str, int] = field(default_factory=dict)
    is_all: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a batch.

    Attributes:
        held: how many bytes of each file of the batch are held, and on the disk.
        over: the sessions that are over there too.
        is_refused: whether the forwarder is to ask anew what is held, as the hub does not know this generation.
    """

    held: Mapping[str, int] = field(default_factory=dict)
    over: Sequence[str] = ()
    is_refused: bool = False


def is_journal(file: str) -> bool:
    """Whether a file grows; all others are whole when they get their name."""
    return _JOURNAL.fullmatch(file) is not None


class Outbox:
    """The journals of one node.

    Args:
        layout: the directory in which roles of this node write.
        node: the name of the node.
    """

    def __init__(self, layout: Layout, node: str) -> None:
        self._layout = layout
        self._node = node
        self._held: dict[str, int] = {}
        self._owners: dict[str, Owner | None] = {}
        self._unended: dict[str, int] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def files(self) -> list[str]:
        """Every file that there is to forward, or was forwarded and is not removed yet."""
        found = (path for session in self._sessions() for path in (*_whole_files(session), session.path))
        return [self._name(path) for path in found]

    def greet(self, held: Mapping[str, int]) -> None:
        """Go on from what is held of each file, as the hub says."""
        with self._lock:
            self._held = dict(held)
            self._drop_held(list(held))

    def batch(self, generation: int, limit: int = BATCH) -> Batch:
        """What to send next, about `limit` bytes of it."""
        with self._lock:
            found = list(self._sessions())
            # Each batch begins with another session, so that none has to wait behind one that logs more than fits.
            self._turn += 1
            turn = self._turn % len(found) if found else 0
            pieces: list[Piece] = []
            live: list[str] = []
            over: dict[str, int] = {}
            is_all = True
            for session in (*found[turn:], *found[:turn]):
                is_live = self._is_live(session)  # before its size: what a dead process wrote is all there by then
                end = _size_of(session.path)
                for piece in self._pieces(session, end):
                    if limit <= 0:
                        is_all = False
                        break
                    pieces.append(piece)
                    limit -= len(piece.data) or 1
                name = self._name(session.path)
                if is_live:
                    live.append(name)
                elif self._is_held(session, end):
                    over[name] = end
            return Batch(generation=generation, pieces=pieces, live=live, over=over, is_all=is_all)

    def take(self, reply: Reply) -> None:
        """What the answer to a batch says is held, and so need not stay on the node."""
        with self._lock:
            self._held.update(reply.held)
            self._drop_held(reply.held)
            for name in reply.over:
                self._remove(name)

    def is_empty(self) -> bool:
        """Whether there is no session on this node, running or not."""
        return not any(True for _ in self._sessions())

    def _sessions(self) -> Iterator[Session]:
        for writer in self._layout.writers():
            yield from sessions(self._layout.journal(writer))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._layout.journal(LAUNCH).parent).as_posix()

    def _pieces(self, session: Session, end: int) -> Iterator[Piece]:
        """What is to be sent of a session whose journal has `end` bytes."""
        # After a look at the length of the journal: the files of its rows were there before it had that length.
        for path in _whole_files(session):
            name, size = self._name(path), _size_of(path)
            if self._held.get(name, -1) < size:
                yield from _cut(path, name, max(0, self._held.get(name, 0)), size, is_whole=True)
        name = self._name(session.path)
        yield from _cut(session.path, name, self._held.get(name, 0), end, is_whole=False)

    def _is_held(self, session: Session, end: int) -> bool:
        """Whether the hub has all of a session that nobody appends to."""
        whole = ((self._name(path), _size_of(path)) for path in _whole_files(session))
        return all(self._held.get(name, -1) >= size for name, size in [*whole, (self._name(session.path), end)])

    def _is_live(self, session: Session) -> bool:
        """Whether somebody may append to a session."""
        name = self._name(session.path)
        if name not in self._owners:
            owner = session.owner()
            self._owners[name] = owner and from_node(owner, self._node)
        owner = self._owners[name]
        if owner is None or (owner.is_here() and not owner.is_running()):
            return False
        # A role in a container of its own is no process that could be seen from here: it lives until it says otherwise.
        size = _size_of(session.path)
        if self._unended.get(name) != size:  # looked at several times a second
            if session.status() is not None:
                return False
            self._unended[name] = size
        return True

    def _drop_held(self, names: Sequence[str] | Mapping[str, int]) -> None:
        """Remove attachments that are held: they may be many, and large."""
        for name in names:
            path = self._layout.journal(LAUNCH).parent / name
            if path.parent.suffix == ".files" and self._held[name] >= _size_of(path) >= 0:
                path.unlink(missing_ok=True)
                del self._held[name]

    def _remove(self, name: str) -> None:
        session = _session_of(self._layout, name)
        shutil.rmtree(session.attachments, ignore_errors=True)
        session.header_copy.unlink(missing_ok=True)
        session.path.unlink(missing_ok=True)
        with suppress(OSError):  # the writer has other sessions
            session.path.parent.rmdir()
        for path in (session.path, session.header_copy):
            self._held.pop(self._name(path), None)
        self._owners.pop(name, None)
        self._unended.pop(name, None)


def _session_of(layout: Layout, file: str) -> Session:
    path = layout.journal(LAUNCH).parent / file
    return Session(path, int(path.stem))


def on_node(owner: Owner, node: str) -> Owner:
    """A process as all others are to see it: one of a node, of which only the forwarder there says whether it lives.

    Also where they could see it themselves. What it wrote comes after its end, so it must not be over before.
    """
    return replace(owner, space=f"{node} {owner.space}")


def from_node(owner: Owner, node: str) -> Owner:
    """The same process, as it is seen on its node."""
    return replace(owner, space=owner.space.removeprefix(f"{node} "))


def begin_on_node(layout: Layout, writer: str, number: int, line: bytes) -> Session:
    """Make the journal of a session in the directory of a node, with its first line.

    Raises:
        OSError: it cannot be written.
    """
    session = Session(layout.journal(writer) / f"{number}.jsonl", number)
    make_folder(session.path.parent)
    put_whole(session.path, line)
    return session


def name_of(writer: str, number: int) -> str:
    """What pieces of a session's journal call it."""
    return f"{slug_of(writer)}/{number}.jsonl"


def _whole_files(session: Session) -> Iterator[Path]:
    """The files beside a journal that are there."""
    if session.header_copy.exists():
        yield session.header_copy
    # What begins with a dot is a draft.
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from (session.attachments / name for name in sorted(os.listdir(session.attachments)) if name[0] != ".")


def _cut(path: Path, name: str, start: int, end: int, *, is_whole: bool) -> Iterator[Piece]:
    """The bytes of a file from `start` to `end`."""
    if start >= end and not is_whole:
        return
    file = open_regular(path)
    if file is None:
        return
    with file:
        while True:
            data = os.pread(file.fileno(), min(_PIECE, end - start), start)
            is_last = is_whole and start + len(data) >= end
            # Nothing, where it was cut short since: the writer sees that too, and goes on in another session.
            if data or is_last:
                yield Piece(name, start, data, is_last)
            start += len(data)
            if not data or start >= end:
                return


def _size_of(path: Path) -> int:
    """In bytes; -1 if there is no such file."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return -1
