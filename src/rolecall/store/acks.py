"""What a backend acknowledged of one writer's rows.

The delivery of one writer's rows to one backend has one live owner (see `rolecall.store.lease`): a courier. Its session
is a file of lines, each of which says how far the backend holds the rows::

    {"rolecall":2,"owner":{...},"session":1,"ack":[1,0,0],"rows":0,"sum":"..."}
    {"ack":[1,5120,40],"rows":40,"sum":"..."}
    {"ack":[1,5248,41],"rows":41,"rejected":{"session":1,"seq":41,"step":41,"reason":"..."},"sum":"..."}
    {"ack":[1,5248,41],"rows":41,"why":"cannot reach http://...","sum":"..."}   and one without it when that is over
    {"ack":[1,5320,42],"rows":42,"end":"finished","sum":"..."}                  or "unfinished"
    {"ack":[1,0,0],"rows":0,"again":true,"sum":"..."}                           all goes to a new run

`ack` is the writer's session, the offset in its file and the number of the last row before that. `rows` counts those
that this backend was to get and that are done with, and `missing`, if it is there, those that should be in the journal
before that place and are not. Rows that the backend will never take are listed under `rejected`; they stay in the
journal. `why` says why rows wait. What comes after `ack` is undelivered, so an acknowledgement that is lost costs a
repetition and no row.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

from rolecall.rows import Row
from rolecall.states import State, Status
from rolecall.store.codec import (
    append_line,
    end_of_lines,
    last_line,
    last_seq,
    lines_from_end,
    make_folder,
    open_own,
    put_whole,
    read_small,
)
from rolecall.store.layout import LAUNCH, Layout, is_node
from rolecall.store.lease import Session, claim, is_held, newest, sessions

logger = logging.getLogger("rolecall.courier")

_INT64: Final = 1 << 63
_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
_LONGEST_REFERENCE: Final = 1 << 16


class Position(NamedTuple):
    """Where a reader of a writer's journal is.

    Attributes:
        session: the session.
        offset: where the next line begins in its file.
        seq: the number of the last row before that.
    """

    session: int
    offset: int
    seq: int


START: Final = Position(1, 0, 0)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How far a backend holds a writer's rows.

    Attributes:
        position: behind the last row that is done with.
        rows: how many that the backend was to get are done with: held, or rejected for good.
        missing: how many should be before that place and are not, as the journal is damaged.
    """

    position: Position
    rows: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class RunReference:
    """What a backend calls the run that a writer's rows went to.

    Attributes:
        id: the backend's id.
        url: where you look at it.
        run_id: rolecall's id, which it was opened with; `None` in files that an earlier version wrote.
    """

    id: str
    url: str | None
    run_id: str | None = None


class Acknowledgements:
    """The courier's side: holds the lease of the delivery, and writes down what was acknowledged.

    Raises:
        WriterConflict: another courier delivers these rows.
    """

    def __init__(self, layout: Layout, backend: str, writer: str) -> None:
        directory = layout.delivery(backend, writer)
        holder = f"the delivery of {writer} to {backend}"
        self._session = claim(directory, _line(acknowledged(layout, backend, writer)), holder)
        self._reference = layout.run(backend, writer)
        self._descriptor = open_own(self._session.path)
        self._why: dict[str, str] = {}
        # A predecessor may have acknowledged more between our look and its death.
        self.done = acknowledged(layout, backend, writer, before=self._session.number)

    def acknowledge(self, position: Position, rows: int, missing: int = 0) -> None:
        """The backend holds `rows` more of its own, up to `position`; `missing` more should be before that."""
        if missing or position != self.done.position:
            # First in memory: the backend holds them, whether or not the disk takes the line.
            self.done = Acknowledged(position, self.done.rows + rows, self.done.missing + missing)
            self._append()

    def start_again(self) -> None:
        """Go back to the first row, as all of them go to a new run: it holds none, and has rejected none."""
        self.done = Acknowledged(START, 0)
        self._append(again=True)

    def set_aside(self, rows: Sequence[Row], reason: str) -> None:
        """The backend will never take these rows."""
        for row in rows:
            self._append(rejected={"session": row.session, "seq": row.seq, "step": row.step, "reason": reason})

    def explain(self, why: str | None) -> None:
        """Why rows wait, for people who look; `None` when they wait no more. A full disk keeps nothing of it."""
        self._why = {"why": why} if why else {}
        with suppress(OSError):
            self._append(**self._why)

    def refer(self, reference: RunReference) -> None:
        """Keep what the backend calls the run, for later sessions and for roles that join it."""
        make_folder(self._reference.parent)
        put_whole(self._reference, json.dumps(asdict(reference), indent=1).encode() + b"\n")

    def release(self, closed: Status | None) -> None:
        """Give the lease up, with the status that the run was closed with, if it was closed."""
        if self._descriptor < 0:
            return
        try:
            self._append(**self._why, end=closed or State.UNFINISHED)
        except OSError as error:  # a full disk: the lease is then free once this process has ended
            logger.warning("%s: its end could not be written: %s", self._session.path, error)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_taken_over(self) -> bool:
        """Whether another courier counted this one as dead, and holds the lease now."""
        last = newest(self._session.path.parent)
        return last is not None and last.number > self._session.number

    def touch(self) -> None:
        """Show other hosts that this courier is alive."""
        with suppress(OSError):
            os.utime(self._session.path, follow_symlinks=False)

    def _append(self, **more: Any) -> None:
        append_line(self._descriptor, {**_line(self.done), **more}, self._session.seed)


def acknowledged(layout: Layout, backend: str, writer: str, before: int | None = None) -> Acknowledged:
    """How far a backend holds a writer's rows, by the newest session that says so."""
    for session in reversed(sessions(layout.delivery(backend, writer))):
        if before is None or session.number < before:
            for value in lines_from_end(session.path, session.seed):
                if done := _done(value):
                    return done
    return Acknowledged(START, 0)


def undelivered(layout: Layout, backend: str, writer: str) -> int:
    """How many numbers of a writer's journal are behind what the backend acknowledged, those of changes too.

    By the numbers of the last rows, so 1,000,000 rows take no longer than one. Rows that are damaged count too, until
    the courier has passed them. A backend that does not get the writer's rows lacks none.
    """
    if not is_meant_for(layout, backend, writer):
        return 0
    return rows_behind(layout.journal(writer), acknowledged(layout, backend, writer).position)[0]


def waiting(layout: Layout, backend: str, writer: str) -> int:
    """How many rows of a writer's journal a backend is to get, and does not hold yet."""
    if not is_meant_for(layout, backend, writer):
        return 0
    return logged(layout.journal(writer), acknowledged(layout, backend, writer).position, backend)


def rows_behind(journal: Path, position: Position, last: int = _INT64) -> tuple[int, int]:
    """How many numbers of a journal are behind a position, up to the `last` session, and the number of the last row."""
    spans = list(_spans(journal, position, last))
    return sum(span.rows for span in spans), spans[-1].seq if spans else position.seq


def logged(journal: Path, position: Position = START, backend: str | None = None) -> int:
    """How many rows are behind a position, which changes of the details are not; of a backend, those that it gets.

    It reads at most 1,000 lines at either end of each session.
    """
    rows, apart = 0, 0
    for span in _spans(journal, position):
        # A session that continues an earlier one counts on from there, here too.
        before = _apart(span.session, backend, position.offset) if span.is_first else apart if span.continues else 0
        apart = _apart(span.session, backend) if span.rows else before
        rows += max(0, span.rows - max(0, apart - before))
    return rows


class _Span(NamedTuple):
    """What of a session is behind a position.

    Attributes:
        session: the session.
        rows: how many numbers of rows are there.
        seq: the last of them.
        is_first: whether the position is in this session.
        continues: whether it goes on with an earlier one.
    """

    session: Session
    rows: int
    seq: int
    is_first: bool
    continues: bool


def _spans(journal: Path, position: Position, last: int = _INT64) -> Iterator[_Span]:
    seq = position.seq
    for session in sessions(journal):
        if position.session <= session.number <= last:
            is_here, continues = session.number == position.session, "continues" in session.header()
            before = seq if is_here or continues else 0
            seq = max(before, last_seq(last_line(session.path, session.seed)))
            # An offset behind the end means that the file was cut short; what came after the cut still counts.
            has_more = not is_here or position.offset != end_of_lines(session.path)
            yield _Span(session, seq - before if has_more else 0, seq, is_here, continues)


def only_of(session: Session, stop: int | None = None) -> dict[str, int]:
    """What `only` is at the end of a session, or before an offset; see `rolecall.store.journal`."""
    for line in lines_from_end(session.path, session.seed, (b'"only"', b'"steps"'), stop):
        if isinstance(only := line.get("only"), dict):
            return {name: count for name, count in only.items() if isinstance(count, int) and count > 0}
        if "steps" in line:  # it would be here if there were any
            break
    return {}


def _apart(session: Session, backend: str | None, stop: int | None = None) -> int:
    """How many numbers of a session are no rows that a backend gets; without a backend, how many are changes."""
    return sum(
        count
        for names, count in only_of(session, stop).items()
        if not names or (backend is not None and backend not in names.split(","))
    )


def is_meant_for(layout: Layout, backend: str, writer: str) -> bool:
    """Whether a backend gets the rows of a writer at all: its SDK may measure nodes by itself."""
    session = newest(layout.journal(writer)) if is_node(writer) else None
    return session is None or backend not in session.header().get("without", ())


def read_reference(layout: Layout, backend: str, writer: str) -> RunReference | None:
    """What a backend calls the run of a writer; `None` if it was never opened."""
    try:
        value = json.loads(read_small(layout.run(backend, writer), _LONGEST_REFERENCE))
        url, run_id = value["url"], value.get("run_id")
        # It becomes a part of paths.
        is_ours = isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)
        return RunReference(str(value["id"]), None if url is None else str(url), run_id if is_ours else None)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def rejections(layout: Layout, backend: str, writer: str) -> set[tuple[int, int]]:
    """The session and number of each row that a backend will never take."""
    found: set[tuple[int, int]] = set()
    for session in reversed(sessions(layout.delivery(backend, writer))):
        # There is a line for each second of the job, and next to none of them is of these.
        for value in lines_from_end(session.path, session.seed, (b'"rejected"', b'"again"')):
            match value:
                case {"again": True}:  # what comes before that is about another run
                    return found
                case {"rejected": {"session": int(number), "seq": int(seq)}}:
                    found.add((number, seq))
                case _:
                    pass
    return found


def is_left(layout: Layout, backend: str, writer: str) -> bool:
    """Whether rows are undelivered, or a run is not closed, or was closed for an earlier session of the writer."""
    if not is_meant_for(layout, backend, writer):
        return False
    session, last = newest(layout.delivery(backend, writer)), newest(layout.journal(writer))
    is_unclosed = session is not None and session.status() in {None, State.UNFINISHED}
    # A launcher has no rows: its place is all that tells which of its sessions the run was closed for.
    is_earlier = last is not None and acknowledged(layout, backend, writer).position.session < last.number
    return is_unclosed or is_earlier or undelivered(layout, backend, writer) > 0


def is_opening(layout: Layout, backend: str, patience: float) -> bool:
    """Whether the launcher's courier is about to open a run that roles join, and nothing has kept it from that yet.

    Args:
        layout: the job's.
        backend: the backend.
        patience: how many seconds after the launch it may still be about to.
    """
    launcher = newest(layout.journal(LAUNCH))
    if launcher is None or not launcher.is_live() or read_reference(layout, backend, LAUNCH) is not None:
        return False
    # A launcher on another node may have another clock.
    opened = launcher.header().get("opened", 0.0)
    session = newest(layout.delivery(backend, LAUNCH))
    is_hindered = session is not None and "why" in (last_line(session.path, session.seed) or {})
    return not is_hindered and abs(time.time() - opened) < patience


def leases(layout: Layout, backends: Iterable[str]) -> dict[Path, str]:
    """What the processes of a job hold while they are at work, in words: the launcher, roles and couriers."""
    writers = layout.writers()
    couriers = {
        layout.delivery(backend, writer): f"the courier of {writer} to {backend}"
        for writer, backend in product((LAUNCH, *writers), backends)
    }
    return {
        layout.journal(LAUNCH): "the launcher",
        **{layout.journal(each): f"the agent of {each}" if is_node(each) else f"role {each}" for each in writers},
        **couriers,
    }


def is_carried(layout: Layout, backend: str, writer: str) -> bool:
    """Whether a live courier delivers this writer's rows to this backend."""
    return is_held(layout.delivery(backend, writer))


def _line(done: Acknowledged) -> dict[str, Any]:
    return {"ack": list(done.position), "rows": done.rows, **({"missing": done.missing} if done.missing else {})}


def _done(value: Mapping[str, Any]) -> Acknowledged | None:
    match value:
        case {"ack": [int(session), int(offset), int(seq)], "rows": int(rows)} if all(
            0 <= number < _INT64 for number in (session, offset, seq, rows)
        ):
            missing = value.get("missing", 0)
            return Acknowledged(Position(session, offset, seq), rows, missing if isinstance(missing, int) else 0)
        case _:
            return None
