"""The couriers that one process runs: one thread for each run, so that a slow or dead backend delays no other.

The launcher's couriers open the primary runs of shared backends and end them after the roles; for the other backends
they prepare what the roles' own runs need.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rolecall.backends.registry import Backend
from rolecall.config.plan import BackendPlan
from rolecall.config.redact import scrub_text, scrub_trace
from rolecall.config.spec import JobSpec
from rolecall.delivery.courier import Courier, Destination
from rolecall.delivery.cursor import Cursor
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.sync import Syncer
from rolecall.errors import BackendError, BackendRefused, Unavailable, WriterConflict
from rolecall.protocol import RunTicket
from rolecall.store.acks import Acknowledgements, acknowledged, is_carried, is_left, read_reference
from rolecall.store.axes import AxisBook
from rolecall.store.layout import LAUNCH, SINGLE, Layout, slug_of
from rolecall.store.lease import Session, newest
from rolecall.store.spool import Mirror
from rolecall.timings import DRAIN_TIMEOUT, HEARTBEAT, OPEN_TIMEOUT, POLL_INTERVAL, STATUS_INTERVAL

logger = logging.getLogger("rolecall.courier")

Tell = Callable[[CourierEvent], None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The rows of one writer, for one backend."""

    writer: str
    plan: BackendPlan


class CourierGroup:
    """Couriers, and what their writers need beside them: mirrors, syncs and heartbeats.

    Args:
        spec: the job.
        writers: whose rows; `LAUNCH` for the launcher, which must be the first if it is among others.
        assignments: what to deliver.
        tell: gets every event, from any thread.
    """

    def __init__(self, spec: JobSpec, writers: Sequence[str], assignments: Iterable[Assignment], tell: Tell) -> None:
        self._spec = spec
        self._layout = Layout(spec.monitor_dir)
        self._listener = tell
        self._writers = [_Writer(spec, writer, self._warn) for writer in writers]
        self._assignments = list(assignments)
        self._couriers: list[Courier] = []
        self._acks: list[Acknowledgements] = []
        # Shared runs are opened by the launcher's courier; a role's joins it, and need not try before that.
        self._heard = {
            assignment.plan.backend: threading.Event()
            for assignment in self._assignments
            if assignment.writer == LAUNCH and assignment.plan.shared
        }
        self._alive = time.monotonic()
        self._threads = {
            assignment: threading.Thread(target=self._serve, args=(assignment,), daemon=True)
            for assignment in self._assignments
        }

    def start(self) -> None:
        """Start the couriers. What a dead session left on the node is copied first."""
        for writer in self._writers:
            writer.start()
        for thread in self._threads.values():
            thread.start()

    def run(self) -> bool:
        """Deliver until all is done; `False` if a backend hung and was left behind."""
        self.start()
        beat = 0.0
        while self.is_at_work() or any(writer.must_stay() for writer in self._writers):
            for writer in self._writers:
                writer.mirror()
            if time.monotonic() - beat >= HEARTBEAT:
                beat = time.monotonic()
                for writer in self._writers:
                    writer.touch()
                for acks in self._acks:
                    acks.touch()
                if self._is_hung():
                    return False
            time.sleep(POLL_INTERVAL)
        for writer in self._writers:
            writer.stop()
        return True

    def is_at_work(self) -> bool:
        """Whether a courier is still delivering."""
        return any(thread.is_alive() for thread in self._threads.values())

    def hurry(self, seconds: float) -> None:
        """Leave every courier at most this much time."""
        for courier in self._couriers:
            courier.hurry(seconds)

    # ------------------------------------------------------------ one courier

    def _serve(self, assignment: Assignment) -> None:
        """One assignment, from opening the run to its end; nothing that it raises reaches another's thread."""
        writer, plan = assignment.writer, assignment.plan
        try:
            backend = self._spec.registry.load(plan.backend)
            if writer == LAUNCH and not plan.shared:
                self._prepare(backend)
            else:
                if writer != LAUNCH and (primary := self._heard.get(plan.backend)) is not None:
                    primary.wait(OPEN_TIMEOUT)
                self._deliver(assignment, backend)
        except Exception as error:  # noqa: BLE001 - it is reported, and only this backend is lost
            # Not logger.exception: the traceback may hold secrets.
            logger.error("%s: %s", plan.backend, scrub_trace(error, self._spec.secrets))  # noqa: TRY400
            self._tell(CourierEvent(plan.backend, "refused", f"{type(error).__name__}: {error}", writer))

    def _prepare(self, backend: Backend) -> None:
        ticket = make_ticket(self._spec, LAUNCH, backend.name, shared=False)
        try:
            backend.prepare(ticket, self._spec.args[backend.name])
        except Unavailable as error:
            self._tell(CourierEvent(backend.name, "unavailable", str(error), LAUNCH))
        except (BackendRefused, BackendError) as error:
            self._tell(CourierEvent(backend.name, "refused", str(error), LAUNCH))
        else:
            self._tell(CourierEvent(backend.name, "prepared", writer=LAUNCH))

    def _deliver(self, assignment: Assignment, backend: Backend) -> None:
        name, writer, shared = backend.name, assignment.writer, assignment.plan.shared
        place = next(found for found in self._writers if found.name == writer)
        acks = self._claim(name, place)
        if acks is None:
            return
        self._acks.append(acks)
        courier = Courier(
            destination=Destination(
                backend, self._spec.args[name], lambda: make_ticket(self._spec, writer, name, shared=shared)
            ),
            cursors=[Cursor(self._layout, writer, acks, place.mirror)],
            book=place.book,
            tell=self._tell,
            drain=DRAIN_TIMEOUT,
        )
        self._couriers.append(courier)
        courier.run(self._wait_for_roles(place, name) if writer == LAUNCH else None)

    def _claim(self, backend: str, writer: _Writer) -> Acknowledgements | None:
        """The lease of the delivery; `None` if a predecessor's courier left nothing to do."""
        while True:
            try:
                return Acknowledgements(self._layout, backend, writer.name)
            except WriterConflict as error:  # the predecessor's courier may still drain
                self._tell(CourierEvent(backend, "warning", f"waiting: {error}", writer.name))
                while is_carried(self._layout, backend, writer.name):
                    time.sleep(POLL_INTERVAL)
                if not writer.is_live() and not is_left(self._layout, backend, writer.name):
                    return None

    def _wait_for_roles(self, launcher: _Writer, backend: str) -> Callable[[Callable[[float], None]], bool]:
        def wait(stand_by: Callable[[float], None]) -> bool:
            """Until every role has ended and its courier too; one that gets nowhere is not waited for.

            A launcher that came after this one has the run from then on, so this one leaves it open.
            """
            moved, rows = time.monotonic(), -1
            while time.monotonic() - moved < DRAIN_TIMEOUT:
                with suppress(OSError):  # a directory that does not answer says nothing about the roles
                    writers = self._layout.writers()
                    are_live = any(
                        session is not None and session.is_live()
                        for session in (newest(self._layout.journal(writer)) for writer in writers)
                    )
                    if launcher.is_followed() or not (are_live or self._is_carried(backend, writers)):
                        break
                    # The rows of all roles that the backend holds: they grow as long as any courier gets anywhere.
                    held = sum(acknowledged(self._layout, backend, writer).rows for writer in writers)
                    before, rows = rows, -1 if are_live else held
                    if rows != before or are_live:
                        moved = time.monotonic()
                stand_by(STATUS_INTERVAL)
            return not launcher.is_followed()

        return wait

    def _is_carried(self, backend: str, writers: Sequence[str]) -> bool:
        """Whether a courier of a role is at work for this backend, here or in another process."""
        own = (
            thread.ident is None or thread.is_alive()  # started a moment later than the launcher's
            for assignment, thread in self._threads.items()
            if assignment.plan.backend == backend and assignment.writer != LAUNCH
        )
        return any(own) or any(is_carried(self._layout, backend, writer) for writer in writers)

    def _is_hung(self) -> bool:
        """Whether the writers have ended and no courier gave a sign of life for as long as it may drain."""
        if any(writer.is_live() for writer in self._writers):
            self._alive = time.monotonic()
        signs = [self._alive, *(courier.last_sign for courier in self._couriers)]
        return time.monotonic() - max(signs) > DRAIN_TIMEOUT

    def _warn(self, message: str) -> None:
        self._tell(CourierEvent("journal", "warning", message))

    def _tell(self, event: CourierEvent) -> None:
        if event.writer == LAUNCH and event.kind not in ("warning", "progress") and event.backend in self._heard:
            self._heard[event.backend].set()
        self._listener(replace(event, message=scrub_text(event.message, self._spec.secrets)))


class _Writer:
    """One writer of a group: its session, and what is done for it beside the couriers."""

    def __init__(self, spec: JobSpec, name: str, warn: Callable[[str], None]) -> None:
        self.name = name
        layout = Layout(spec.monitor_dir)
        self.book = AxisBook(layout, name)
        self._journal = layout.journal(name)
        self._session = newest(self._journal)
        self._owner = self._session.owner() if self._session else None
        self._mirror = Mirror(spec, name)
        self._is_spooled = self._session is not None and self._mirror.spool_of(self._session) is not None
        self._syncers = list(self._make_syncer(spec, warn))

    def start(self) -> None:
        """What comes before the couriers."""
        with suppress(OSError):
            self._mirror.copy()
        config = self._session.header().get("config") if self._session else None
        if config and self.name != LAUNCH:
            with suppress(OSError):
                self.book.publish_config(config)
        for syncer in self._syncers:
            syncer.start()

    def stop(self) -> None:
        """What comes after them."""
        self.mirror()
        for syncer in self._syncers:
            syncer.stop()

    def mirror(self) -> None:
        """Copy what is spooled, however the backends fare."""
        if self._is_spooled:
            with suppress(OSError):  # a directory that does not answer is tried again
                self._mirror.copy(newest_only=True)

    def touch(self) -> None:
        """Show other hosts that the writer is alive."""
        session = newest(self._journal)
        if session is not None and self.is_live():
            with suppress(OSError):
                os.utime(session.path)

    def is_live(self) -> bool:
        """Whether the session that this group delivers is its owner's still."""
        session = newest(self._journal)
        return session is not None and not self.is_followed() and session.is_live()

    def is_followed(self) -> bool:
        """Whether a restarted process has taken over the writer's name."""
        session = newest(self._journal)
        if session is None or session == self._session:
            return False
        # A session that continues ours is ours too: its file was changed from outside.
        return "continues" not in session.header() or session.owner() != self._owner

    def must_stay(self) -> bool:
        """With no backend, there is still the journal to mirror or sync, and its owner to vouch for."""
        return (self._is_spooled or bool(self._syncers)) and self.is_live()

    def _make_syncer(self, spec: JobSpec, warn: Callable[[str], None]) -> Iterator[Syncer]:
        session = self._session
        if spec.sync_every is None or self.name == LAUNCH or session is None or not session.is_live():
            return
        # Where it is written, which may be on the node.
        place = Session(self._mirror.spool_of(session) or session.path, session.number)
        yield Syncer(place, spec.sync_every, warn)


def make_ticket(spec: JobSpec, writer: str, backend: str, *, shared: bool) -> RunTicket:
    """The ticket of one writer for one backend, with what is known by now of an earlier opening.

    Args:
        spec: the job.
        writer: whose rows they are; `LAUNCH` for the launcher, which logs none but opens and ends shared runs.
        backend: the backend.
        shared: whether all roles write one run.
    """
    layout = Layout(spec.monitor_dir)
    is_launcher = writer == LAUNCH
    is_own = not shared and not is_launcher
    reference = read_reference(layout, backend, LAUNCH if shared else writer)
    job, own = _header(layout, LAUNCH), _header(layout, writer)
    config = job.get("config") or {}
    return RunTicket(
        project=spec.project,
        # The only role of `rolecall.init` needs no name beside the job's.
        name=f"{spec.name}_{writer.replace('/', '_')}" if is_own and writer != SINGLE else spec.name,
        group=spec.group if shared else spec.group or spec.name,
        run_id=f"{spec.run_id}-{slug_of(writer).replace('@', '-')}" if is_own else spec.run_id,
        backend_run_id=reference.id if reference else None,
        shared=shared,
        primary=not shared or is_launcher,
        writer=None if is_launcher else writer,
        role=None if is_launcher else writer.partition("/")[0],
        # A shared run gets the roles' configs through `SupportsConfig`.
        config=config if shared else {**config, **(own.get("config") or {})},
        directory=layout.backend(backend),
        pid=int(own.get("owner", {}).get("pid", 0)),
        created=float(job.get("opened", 0.0)),
    )


def _header(layout: Layout, writer: str) -> dict[str, Any]:
    session = newest(layout.journal(writer))
    return session.header() if session else {}
