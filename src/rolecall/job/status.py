"""What became of each writer, and how far each backend holds its rows, as `monitor_dir` shows it from any node."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from rolecall import timings
from rolecall.backends.builtin import LOCAL
from rolecall.config.plan import Plan
from rolecall.states import State
from rolecall.store.acks import RunReference, acknowledged, is_meant_for, logged, read_reference, rejections, waiting
from rolecall.store.codec import last_line
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Session, is_held, newest, this_process

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class WriterState:
    """The state of a writer's newest session.

    Attributes:
        writer: the writer.
        state: `running`, or how it ended. `killed` also if it ended without a word: on this host its process is gone,
            on another host its file did not change for 60 s, by the time of the file and the clock of this host.
        silence: seconds since it, or its courier, last gave a sign of life; the courier does that every 5 s.
        place: its process and host, for people.
        closed: whether it ended its session itself.
        unseen: over Ray, for how many seconds nothing had been heard of its node when that was found to be lost. What
            it logged in that time may be lost too.
    """

    writer: str
    state: State
    silence: float
    place: str
    closed: bool = False
    unseen: float | None = None

    def __str__(self) -> str:
        silent = f", silent for {self.silence:.0f} s" if self.state is State.RUNNING else ""
        if self.unseen is not None:
            silent = f"; its node was lost, and with it rows of up to {self.unseen:.0f} s"
        return f"{self.writer} {self.state} ({self.place}{silent})"


def read_writers(layout: Layout) -> list[WriterState]:
    """The state of every role that has opened in the job's directory."""
    return read_states(layout, layout.roles())


def read_states(layout: Layout, writers: Iterable[str]) -> list[WriterState]:
    """The state of each of these writers that has opened."""
    found = []
    for writer in writers:
        if session := newest(layout.journal(writer)):
            place = str(session.owner() or "its process is not known")
            last = last_line(session.path, session.seed) or {}
            # Over Ray, a session whose process or node is gone is ended by the hub.
            is_closed = "end" in last and last.get("by") != "hub"
            unseen = float(seconds) if isinstance(seconds := last.get("unseen"), int | float) else None
            found.append(WriterState(writer, session.state(), session.silence(), place, is_closed, unseen))
    return found


def wait_for_writers(layout: Layout, timeout: float) -> list[WriterState]:
    """The same, once none runs any more or `timeout` seconds have passed; nothing if the directory does not answer."""
    deadline = time.monotonic() + timeout
    states: list[WriterState] | None = None

    def look() -> None:
        nonlocal states
        is_running = True
        while True:
            with suppress(OSError):  # a directory that does not answer is asked again
                # Not by their state, which compares the clocks of two machines. Each is looked at, so each is watched.
                live = [writer for writer in layout.roles() if is_held(layout.journal(writer))]
                is_running, states = bool(live), read_writers(layout)
            if not is_running or time.monotonic() >= deadline:
                return
            time.sleep(min(timings.STATUS_INTERVAL, max(0.0, deadline - time.monotonic())))

    _leave_after(timeout + timings.DIRECTORY_TIMEOUT, look)
    return states or []


def look_within(seconds: float, look: Callable[[], Found]) -> Found | None:
    """What `look` finds in a `monitor_dir`; `None` if that takes longer, or fails."""
    found: list[Found] = []

    def keep() -> None:
        with suppress(OSError):
            found.append(look())

    _leave_after(seconds, keep)
    return found[0] if found else None


def _leave_after(seconds: float, look: Callable[[], None]) -> None:
    """Wait that long for a look at files, and then leave it to its thread.

    On a network filesystem whose server is frozen, a look can be given up in no other way.
    """
    thread = threading.Thread(target=look, name="rolecall-look", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # A function of `atexit` can start no thread in some versions (measured: Python 3.12.1; 3.13.0 can).
        look()
    else:
        thread.join(seconds)


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One writer's rows in one backend, those that were logged for others alone not counted.

    Attributes:
        backend: the backend.
        writer: the writer.
        delivered: how many rows the backend holds.
        waiting: how many it does not hold yet; they are in the journal.
        rejected: how many it will never take; they stay in the journal.
        missing: how many it cannot get, because the journal could not be written or was damaged.
        courier: the state of the courier. `finished` if it is done, however the writer ended; `killed` if it died.
        why: why rows wait, as far as the courier said.
        run: what the backend calls the run.
    """

    backend: str
    writer: str
    delivered: int
    waiting: int
    rejected: int
    missing: int
    courier: State
    why: str | None
    run: RunReference | None


def read_deliveries(layout: Layout, plan: Plan) -> list[DeliveryStatus]:
    """Of every writer in each backend of the job's plan, and in those that it was delivered to later."""
    found = ((backend, writer) for backend in _backends(layout, plan) for writer in layout.writers())
    return [_delivery(layout, *each) for each in found if is_meant_for(layout, *each)]


@dataclass(frozen=True, slots=True)
class DeliveryTotal:
    """The rows of all roles in one backend; the numbers are those of `DeliveryStatus`.

    Attributes:
        is_carried: whether a courier that outlives this process is at work for each writer whose rows wait.
    """

    backend: str
    delivered: int
    waiting: int = 0
    rejected: int = 0
    missing: int = 0
    is_carried: bool = False


def read_totals(layout: Layout, plan: Plan) -> tuple[int, list[DeliveryTotal]]:
    """How many rows there are in the job's journals, and what each backend of its plan holds of them."""
    # Without what nodes measured: nobody logged that.
    rows = sum(logged(layout.journal(writer)) for writer in layout.roles())
    return rows, [
        # The journals are all that `local` is.
        _total(each.backend, layout) if each.backend != LOCAL else DeliveryTotal(each.backend, rows)
        for each in plan.backends
    ]


def _total(backend: str, layout: Layout) -> DeliveryTotal:
    found = [_delivery(layout, backend, writer) for writer in layout.roles()]
    return DeliveryTotal(
        backend=backend,
        delivered=sum(each.delivered for each in found),
        waiting=sum(each.waiting for each in found),
        rejected=sum(each.rejected for each in found),
        missing=sum(each.missing for each in found),
        is_carried=all(_outlives_this(newest(layout.delivery(backend, each.writer))) for each in found if each.waiting),
    )


def _outlives_this(courier: Session | None) -> bool:
    """Whether a courier is at work, and is no thread of this process, which may end now."""
    return courier is not None and courier.is_live() and courier.owner() != this_process()


def unended(layout: Layout, plan: Plan) -> list[str]:
    """The backends with a run that nobody will end, as its courier died or gave up: `rolecall deliver` ends it."""
    found = []
    for backend in _backends(layout, plan):
        # The launcher's courier ends a run of all roles; it has none where each role's ends its own.
        is_shared = newest(layout.delivery(backend, LAUNCH)) is not None
        owners = [LAUNCH] if is_shared else layout.writers()
        opened = [owner for owner in owners if read_reference(layout, backend, owner) is not None]
        states = [_courier(newest(layout.delivery(backend, owner))) for owner in opened]
        if State.KILLED in states or State.UNFINISHED in states:
            found.append(backend)
    return found


def _backends(layout: Layout, plan: Plan) -> list[str]:
    planned = [each.backend for each in plan.backends if each.backend != LOCAL]
    return list(dict.fromkeys([*planned, *layout.backends()]))


def _courier(session: Session | None) -> State:
    if session is None:
        return State.NONE
    state = session.state()
    # It ends its session with the status that the run got, which is the writer's and not its own.
    is_done = state in (State.FAILED, State.KILLED) and session.status() is not None
    return State.FINISHED if is_done else state


def _delivery(layout: Layout, backend: str, writer: str) -> DeliveryStatus:
    session = newest(layout.delivery(backend, writer))
    rejected = len(rejections(layout, backend, writer))
    left = waiting(layout, backend, writer)
    done = acknowledged(layout, backend, writer)
    last = last_line(session.path, session.seed) if session and left else None
    return DeliveryStatus(
        backend=backend,
        writer=writer,
        delivered=max(0, done.rows - rejected),
        waiting=left,
        rejected=rejected,
        missing=done.missing,
        courier=_courier(session),
        why=str(why) if (why := (last or {}).get("why")) is not None else None,
        run=read_reference(layout, backend, writer),
    )
