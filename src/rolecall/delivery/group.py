"""The couriers that one process runs: one thread for each run, so that a slow or dead backend delays no other.

The launcher's couriers open the primary runs of shared backends and end them after the roles; for the other backends
they prepare what the roles' own runs need. With `shared_run: relay` they deliver the rows of all roles.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.backends.registry import Backend
from rolecall.config.plan import BackendPlan
from rolecall.config.redact import scrub_text, scrub_trace
from rolecall.config.spec import JobSpec
from rolecall.delivery.courier import Courier
from rolecall.delivery.cursor import Cursor, ended_as
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.relay.roster import Roster
from rolecall.errors import BackendError, BackendRefused, Unavailable, WriterConflict, describe_os_error
from rolecall.protocol import RunTicket
from rolecall.rows import Details
from rolecall.source import source_in
from rolecall.states import Status
from rolecall.store.acks import (
    Acknowledgements,
    Position,
    acknowledged,
    is_carried,
    is_left,
    is_opening,
    read_reference,
)
from rolecall.store.axes import AxisBook
from rolecall.store.codec import end_of_lines, make_folder
from rolecall.store.details import config_now, config_of, details_of
from rolecall.store.layout import LAUNCH, SINGLE, Layout, slug_of
from rolecall.store.lease import Session, is_held, newest, sessions
from rolecall.store.spool import Mirror

logger = logging.getLogger("rolecall.courier")

Report = Callable[[CourierEvent], None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The rows of one writer, for one backend."""

    writer: str
    plan: BackendPlan


class CourierGroup:
    """Couriers, and what their writers need beside them: mirrors, syncs and heartbeats.

    Args:
        spec: the job.
        writers: whose rows; `LAUNCH` for the launcher.
        assignments: what to deliver.
        report: gets every event, from any thread.
        interval: seconds between looks at journals that had nothing new.
    """

    def __init__(
        self,
        spec: JobSpec,
        writers: Iterable[str],
        assignments: Iterable[Assignment],
        report: Report,
        interval: float = timings.POLL_INTERVAL,
    ) -> None:
        self._spec = spec
        self._layout = Layout(spec.monitor_dir)
        self._listener = report
        self._names = writers
        self._interval = interval
        self._writers: dict[str, TendedWriter] = {}
        # Of other nodes, over Ray: their forwarder is what shows that they are alive.
        self._away: dict[str, TendedWriter] = {}
        self._meeting = threading.Lock()
        self._couriers: list[Courier] = []
        self._threads = {
            assignment: threading.Thread(target=self._serve, args=(assignment,), daemon=True)
            for assignment in assignments
        }
        # Shared runs are opened by the launcher's courier; a role's joins it, and need not try before that.
        self._heard = {
            assignment.plan.backend: threading.Event()
            for assignment in self._threads
            if assignment.writer == LAUNCH and assignment.plan.shared
        }

    def run(self) -> bool:
        """Deliver until all is done; `False` if a backend hung and was left behind."""
        # Here and not when it is made: a directory may not answer, and the role must not wait for it.
        try:
            self._writers = {name: TendedWriter(self._spec, name, self._report) for name in self._names}
        except OSError as error:
            for each in self._threads:
                self._report(CourierEvent(each.plan.backend, "refused", describe_os_error(error), each.writer))
            return True
        return self._tend()

    def _tend(self) -> bool:
        """Let every courier work, and do beside them what writers need."""
        writers = self._writers.values()
        for thread in self._threads.values():
            thread.start()
        threads = self._threads.values()
        beat, alive = 0.0, time.monotonic()
        while any(thread.is_alive() for thread in threads) or any(each.must_stay and each.live() for each in writers):
            for writer in writers:
                writer.mirror()
            if (now := time.monotonic()) - beat >= timings.HEARTBEAT:
                beat = now
                # Lists, as `any` would stop at the first.
                if any([writer.touch() for writer in writers] + [courier.touch() for courier in self._couriers]):
                    alive = now
                # The writers have ended, and no courier gave a sign of life for as long as it may drain.
                if now - max([alive, *(courier.last_sign for courier in self._couriers)]) > timings.DRAIN_TIMEOUT:
                    return False
            time.sleep(self._interval)
        for writer in writers:
            writer.stop()
        return True

    def hurry(self, seconds: float) -> None:
        """Leave every courier at most this much time."""
        for courier in self._couriers:
            courier.hurry(seconds)

    # ------------------------------------------------------------ one courier

    def _serve(self, assignment: Assignment) -> None:
        """One assignment, from opening the run to its end; nothing that it raises reaches another's thread."""
        writer, plan = assignment.writer, assignment.plan
        event = partial(CourierEvent, plan.backend, writer=writer)
        try:
            backend = self._spec.registry.load(plan.backend)
            if writer == LAUNCH and not plan.has_one_run:
                ticket = make_ticket(self._spec, LAUNCH, plan.backend, shared=False)
                backend.prepare(ticket, self._spec.monitor_args[plan.backend])
                self._report(event("prepared"))
                if self._spec.hub is not None and plan.courier != "none":
                    self._carry_all(plan)
            else:
                if writer != LAUNCH and plan.shared:
                    self._await_primary(plan.backend)
                self._deliver(assignment, backend)
        except Unavailable as error:
            self._report(event("unavailable", str(error)))
        except (BackendRefused, BackendError) as error:
            self._report(event("refused", str(error)))
        except OSError as error:  # a directory that cannot be written, for one
            self._report(event("refused", describe_os_error(error)))
        except Exception as error:  # noqa: BLE001 - it is reported, and only this backend is lost
            # Not logger.exception: the traceback may hold secrets.
            logger.error("%s: %s", plan.backend, scrub_trace(error, self._spec.secrets))  # noqa: TRY400
            self._report(event("refused", f"{type(error).__name__}: {error}"))

    def _carry_all(self, plan: BackendPlan) -> None:
        """Over Ray, deliver also the rows of each role on another node, to a run of its own, until the job is over."""
        launcher = self._writers[LAUNCH]
        begun: dict[Session, threading.Thread] = {}

        def look() -> None:
            for writer in self._layout.writers():
                session = newest(self._layout.journal(writer))
                if session is not None and session not in begun and "node" in session.header():
                    # A restarted role has a thread of its own, which waits for that of its predecessor.
                    with self._meeting:  # the couriers of several backends share what they know of a writer
                        if writer not in self._away or self._away[writer].is_followed():
                            self._away[writer] = TendedWriter(self._spec, writer, self._report)
                    begun[session] = threading.Thread(target=self._serve, args=(Assignment(writer, plan),), daemon=True)
                    begun[session].start()

        at_work = self._roles_at_work(launcher, plan.backend)
        while launcher.live() or next(at_work, self) is not self:
            with suppress(OSError):  # a directory that does not answer is asked again
                look()
            time.sleep(timings.RELAY_INTERVAL)
        with suppress(OSError):
            look()
        for thread in begun.values():
            thread.join()

    def _await_primary(self, backend: str) -> None:
        """Let the launcher's courier open the run first: a role that came earlier would report it as not available."""
        # It may take as long as `launch` waits for it, or longer where that waits for less than is usual.
        patience = max(timings.OPEN_TIMEOUT, self._spec.open_timeout)
        if (primary := self._heard.get(backend)) is not None:
            primary.wait(patience)
            return
        deadline = time.monotonic() + patience
        while is_opening(self._layout, backend, patience) and time.monotonic() < deadline:
            time.sleep(timings.POLL_INTERVAL)

    def _deliver(self, assignment: Assignment, backend: Backend) -> None:
        name, writer, plan = backend.name, assignment.writer, assignment.plan
        place = self._writers.get(writer) or self._away[writer]
        acks = self._claim(name, place)
        if acks is None:
            return
        patience = timings.LIVENESS_INTERVAL if plan.relayed else 0.0
        cursor = Cursor(self._layout, writer, acks, place.mirror, patience)
        courier = Courier(
            backend=backend,
            args=self._spec.monitor_args[name],
            shared=plan.has_one_run,
            ticket=lambda: make_ticket(self._spec, writer, name, shared=plan.shared),
            cursors=[cursor],
            book=place.book,
            report=self._report,
            prepares=plan.relayed or self._spec.plan.is_single,
            roster=Roster(self._spec, name, cursor, place.is_followed) if plan.relayed else None,
            interval=timings.RELAY_INTERVAL if plan.relayed else self._interval,
        )
        self._couriers.append(courier)
        if courier.roster is not None:
            roster = courier.roster
            courier.run(is_own=lambda: not roster.is_relieved)
        elif writer == LAUNCH:
            ends_with_last = "ends" in place.header()
            others = self._ends if ends_with_last else tuple
            courier.run(self._roles_at_work(place, name), lambda: not place.is_followed(), others)
        else:
            courier.run()

    def _claim(self, backend: str, writer: "TendedWriter") -> Acknowledgements | None:
        """The lease of the delivery; `None` if a predecessor's courier left nothing to do."""
        while True:
            try:
                return Acknowledgements(self._layout, backend, writer.name)
            except WriterConflict:  # the predecessor's courier may still drain
                why = "an earlier courier still sends this role's rows; this one goes on when that has ended"
                self._report(CourierEvent(backend, "waiting", why, writer.name))
                while is_carried(self._layout, backend, writer.name):
                    time.sleep(timings.POLL_INTERVAL)
                if not writer.live() and not is_left(self._layout, backend, writer.name):
                    return None

    def _roles_at_work(self, launcher: "TendedWriter", backend: str) -> Iterator[None]:
        """An item for each look that finds a role, or the courier of one, at work, unless it gets nowhere.

        A launcher that came after this one has the run from then on, so this one waits no longer.
        """
        moved = time.monotonic()
        held: list[Position] = []
        while time.monotonic() - moved < timings.DRAIN_TIMEOUT:
            with suppress(OSError):  # a directory that does not answer says nothing about the roles
                writers = self._layout.writers()
                are_live = any(is_held(self._layout.journal(writer)) for writer in writers)
                if launcher.is_followed() or not (are_live or self._is_carried(backend, writers)):
                    return
                # Up to where the backend holds the rows of each role: that grows as long as any courier gets anywhere.
                before, held = held, [acknowledged(self._layout, backend, writer).position for writer in writers]
                if held != before or are_live:
                    moved = time.monotonic()
            yield

    def _ends(self) -> Iterable[Status]:
        """How each role ended."""
        found = (newest(self._layout.journal(writer)) for writer in self._layout.roles())
        return [ended_as(session.state()) for session in found if session is not None]

    def _is_carried(self, backend: str, writers: Sequence[str]) -> bool:
        """Whether a courier of a role is at work for this backend, here or in another process."""
        own = (
            thread.ident is None or thread.is_alive()  # started a moment later than the launcher's
            for assignment, thread in self._threads.items()
            if assignment.plan.backend == backend and assignment.writer != LAUNCH
        )
        return any(own) or any(is_carried(self._layout, backend, writer) for writer in writers)

    def _report(self, event: CourierEvent) -> None:
        if (
            event.writer == LAUNCH
            and event.kind not in ("waiting", "warning", "progress")
            and event.backend in self._heard
        ):
            self._heard[event.backend].set()
        is_known = event.kind == "unavailable" and not self._is_news(event)
        message = scrub_text(event.message, self._spec.secrets)
        self._listener(replace(event, message=message, is_known=is_known))

    def _is_news(self, event: CourierEvent) -> bool:
        """Whether no other courier of the job has reported yet that this backend is away, or will."""
        backend = event.backend
        try:
            is_joining = event.writer != LAUNCH and self._spec.plan.shared(backend)
            if is_joining and read_reference(self._layout, backend, LAUNCH) is None:
                return False  # the launcher's courier still opens the run, or says itself why it cannot
            mark = self._layout.outage(backend, self._spec.nonce)
            make_folder(mark.parent)
            # One process makes the file, whoever else tries at the same moment.
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            return False
        except OSError:  # a full disk: rather one warning too many
            pass
        return True


class TendedWriter:
    """One writer: its session, and what is done for it beside delivering.

    Attributes:
        must_stay: whether there is a journal to mirror, to sync or to touch as long as the writer lives, even without a
            backend.
    """

    def __init__(self, spec: JobSpec, name: str, report: Report) -> None:
        self.name = name
        layout = Layout(spec.monitor_dir)
        self.book = AxisBook(layout, name)
        self._journal = layout.journal(name)
        self._session = session = newest(self._journal)
        self._owner = session.owner() if session else None
        self._mirror = Mirror(spec, name)
        self._is_spooled = session is not None and self._mirror.spool_of(session) is not None
        with suppress(OSError):  # a directory that does not answer is tried again
            self._mirror.copy()
            if name != LAUNCH:
                self.book.publish_config(config_now(layout, name))
        self._report = report
        self._over = threading.Event()
        self._syncing: threading.Thread | None = None
        if spec.sync_every is not None and name != LAUNCH:
            # On a thread: a busy disk may take seconds. Also for a role that has ended by now: its last rows count too.
            self._syncing = threading.Thread(target=self._keep_synced, args=(spec.sync_every,), daemon=True)
            self._syncing.start()
        # With a relay elsewhere, the process beside a role is all that shows that the role lives.
        is_relayed = name != LAUNCH and any(plan.relayed for plan in spec.plan.backends)
        self.must_stay = self._is_spooled or self._syncing is not None or is_relayed

    def header(self) -> Mapping[str, Any]:
        """What the first line of its session says."""
        return self._session.header() if self._session else {}

    def stop(self) -> None:
        """What comes after the couriers."""
        self.mirror()
        self._over.set()
        if self._syncing is not None:
            self._syncing.join(timings.SYNC_TIMEOUT)
        with suppress(OSError):  # as above; what was spooled is removed now that it was synced
            self._mirror.copy()

    def mirror(self) -> None:
        """Copy what is spooled, however the backends fare."""
        if self._is_spooled:
            with suppress(OSError):  # as above
                self._mirror.copy(newest_only=True)

    def is_mirrored(self) -> bool:
        """Whether nothing that is spooled here waits to be copied."""
        with suppress(OSError):  # as above
            return self._mirror.is_whole()
        return False

    def touch(self) -> bool:
        """Show other hosts that the writer is alive, if it is."""
        if (session := self.live()) is None:
            return False
        with suppress(OSError):
            os.utime(session.path, follow_symlinks=False)
        return True

    def live(self) -> Session | None:
        """The newest session, while its owner lives and this group delivers it."""
        session = newest(self._journal)
        return session if session is not None and session.is_live() and not self.is_followed() else None

    def is_followed(self) -> bool:
        """Whether a restarted process has taken over the writer's name."""
        session = newest(self._journal)
        if session is None or session == self._session:
            return False
        # A session that continues ours is ours too: its file was changed from outside.
        return "continues" not in session.header() or session.owner() != self._owner

    def _keep_synced(self, every: float) -> None:
        """Sync what is written, `every` few seconds and at the end, for jobs that must survive a power cut.

        A row that was logged is in the kernel and survives the death of its process; Linux writes it to the disk
        within about 30 s. `fsync` is about a file and not about who wrote it (POSIX; fsync(2)), so the courier can ask
        for it earlier, and the training process never waits for the disk.
        """
        synced: dict[Path, int] = {}
        is_over = False
        while not is_over:
            is_over = self._over.wait(every)
            with suppress(OSError):  # as above
                if (session := newest(self._journal)) is None:
                    continue
                # Where rows are written now, which may be on the node.
                place = Session(self._mirror.spool_of(session) or session.path, session.number)
                if synced.get(place.path) == (end := end_of_lines(place.path)):
                    continue
                # The directories above the journal first, or its name could be lost with the power; then attachments,
                # before the rows that refer to them.
                once = [*list(place.path.parents)[:4], *place.attachments.glob("[!.]*")]
                for path in (*(each for each in once if each not in synced), place.attachments, place.path):
                    synced[path] = end  # also if it fails: Linux reports a failure once
                    self._sync(path)

    def _sync(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:  # there are no attachments, or the job was deleted, and its rows with it
            pass
        except OSError as error:
            message = f"{path} could not be synced: {error.strerror}"
            self._report(CourierEvent("journal", "warning", message))


def make_ticket(spec: JobSpec, writer: str, backend: str, *, shared: bool) -> RunTicket:
    """The ticket of one writer for one backend, with what is known by now of an earlier opening.

    Args:
        spec: the job.
        writer: whose rows they are; `LAUNCH` for the launcher, which logs none but opens and ends shared runs.
        backend: the backend.
        shared: whether all roles write one run.
    """
    layout = Layout(spec.monitor_dir)
    is_relayed = any(plan.relayed for plan in spec.plan.backends if plan.backend == backend)
    if is_relayed:  # whoever's rows they are, the run is one and nobody else writes it
        writer = LAUNCH
    is_launcher = writer == LAUNCH
    is_own = not shared and not is_launcher
    reference = read_reference(layout, backend, LAUNCH if shared else writer)
    launches, session = sessions(layout.journal(LAUNCH)), newest(layout.journal(writer))
    first, job = (launches[0].header(), launches[-1].header()) if launches else ({}, {})
    own = session.header() if session else {}
    said = details_of(session) if session and not shared else Details()
    run_id = f"{spec.run_id}-{slug_of(writer).replace('@', '-')}" if is_own else spec.run_id
    attaches = any(plan.attaches for plan in spec.plan.backends if plan.backend == backend)
    attached = getattr(spec.monitor_args[backend], "run_id", None) if attaches else None
    # `verify --new-run` opens runs under ids of their own.
    run_id = (reference.run_id if reference else None) or attached or run_id
    return RunTicket(
        project=spec.project,
        # The only role of `rolecall.init` needs no name beside the job's.
        name=f"{spec.name}_{writer.replace('/', '_')}" if is_own and writer != SINGLE else spec.name,
        group=spec.group if shared or is_relayed else spec.group or spec.name,
        run_id=run_id,
        backend_run_id=reference.id if reference else None,
        shared=shared,
        primary=not shared or is_launcher,
        writer=None if is_launcher else writer,
        role=None if is_launcher else writer.partition("/")[0],
        # A shared run gets the roles' configs through `SupportsConfig`.
        config={**(job.get("config") or {}), **({} if shared else config_of(own, said))},
        directory=layout.backend(backend),
        pid=int(own.get("owner", {}).get("pid", 0)),
        tags=said.tags if is_own else (),
        created=float(first.get("opened", 0.0)),
        attached=run_id == attached,
        job=spec.name,
        source=source_in(own if is_own else job),
        ended=_ended(layout, [writer] if is_own else [LAUNCH, *layout.roles()]),
        writers="many" if is_relayed else "one",
        has_axes=is_relayed or (is_own and AxisBook(layout, writer, writes=False).has_axes),
    )


def _ended(layout: Layout, writers: Iterable[str]) -> float | None:
    """When the last of these writers ended, or wrote its last line before it died; `None` while one lives."""
    times: list[float] = []
    for writer in writers:
        session = newest(layout.journal(writer))
        if session is not None and session.is_live():
            return None
        if session is not None and (last := session.last_time()) is not None:
            times.append(last)
    return max(times, default=None)
