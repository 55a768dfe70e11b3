"""Compares every run of a job with its journals, and repairs them if asked to."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rolecall import timings
from rolecall.config.redact import scrub_text
from rolecall.config.spec import JobSpec
from rolecall.delivery.check.compare import RunReport, compare, in_words, report_on
from rolecall.delivery.check.leases import Leases, refuse_live
from rolecall.delivery.check.points import PointTable
from rolecall.delivery.check.repair import open_new_run, put_back
from rolecall.delivery.check.target import Target
from rolecall.delivery.group import make_ticket
from rolecall.errors import BackendError, BackendRefused, WriterConflict
from rolecall.protocol import RunTicket
from rolecall.store.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What to do about runs that lack something.

    Attributes:
        deliver: sends the job's rows to a backend, with a timeout in seconds; called once a new run is open.
        new_run: whether everything goes to a new run where the old one is gone, or takes no points in place.
    """

    deliver: Callable[[str, float], object]
    new_run: bool = False


@dataclass(frozen=True, slots=True)
class Comparing:
    """Which run is compared now.

    Attributes:
        backend: where it is.
        done: how many runs were compared.
        total: how many there are.
    """

    backend: str
    done: int
    total: int


def verify(
    spec: JobSpec,
    timeout: float,
    repair: Repair | None = None,
    on_progress: Callable[[Comparing], None] = lambda _: None,
) -> list[RunReport]:
    """Compare the runs of a job with its journals; returns a report of each.

    Args:
        spec: the job, with the backends that are asked for (see `rolecall.delivery.redeliver.open_job`).
        timeout: seconds; runs that were not compared by then are unreadable.
        repair: whether, and how, to send what is missing. Runs are then compared once more.
        on_progress: gets each run before it is compared, on a thread.

    Raises:
        BackendError: no backend can be read back.
        WriterConflict: a run is to be repaired, and a courier still sends rows to it.
    """
    found = list(targets(spec))
    work = _Work(found=found, repair=repair, deadline=time.monotonic() + timeout, on_progress=on_progress)
    work.run()
    late = f"it was not compared within {timeout:g} s"
    return [work.reports.get(index) or report_on(each, "unreadable", late) for index, each in enumerate(found)]


def targets(spec: JobSpec) -> Iterator[Target]:
    """Every run of the backends that can be read back."""
    backends = [(spec.registry.load(plan.backend), plan) for plan in spec.plan.backends]
    if not any(backend.reads_back for backend, _ in backends):
        names = ", ".join(backend.name for backend, _ in backends)
        raise BackendError(f"{names}: what it holds cannot be read back, as it has no hook open_readback")
    layout = Layout(spec.monitor_dir)
    writers = tuple(layout.writers())
    for backend, plan in backends:
        is_one = plan.has_one_run and bool(writers)
        for group in ([writers] if is_one else [(writer,) for writer in writers]) if backend.reads_back else ():
            yield Target(
                layout=layout,
                backend=backend,
                args=spec.monitor_args[backend.name],
                secrets=spec.secrets,
                shared=is_one,
                writers=group,
                ticket_of=partial(_ticket, spec, backend.name, plan.shared and is_one),
            )


def _ticket(spec: JobSpec, backend: str, shared: bool, writer: str) -> RunTicket:
    return make_ticket(spec, writer, backend, shared=shared)


@dataclass(eq=False, kw_only=True)
class _Work:
    """The runs, one after the other, on a thread: a backend that hangs must not keep the command from ending in time.

    Attributes:
        found: the runs.
        repair: as in `verify`.
        deadline: when to give up, by the monotonic clock.
        on_progress: as in `verify`.
        reports: of the runs that are done, by their place among `found`.
    """

    found: Sequence[Target]
    repair: Repair | None
    deadline: float
    on_progress: Callable[[Comparing], None]
    reports: dict[int, RunReport] = field(default_factory=dict)
    _leases: Leases | None = None
    _conflict: WriterConflict | None = None

    def run(self) -> None:
        """Return when all is done, or at the deadline.

        Raises:
            WriterConflict: a courier still sends rows.
        """
        if self.repair is not None:
            for target in self.found:
                refuse_live(target.layout, target.backend.name, target.carriers)
        thread = threading.Thread(target=self._run, name="rolecall-verify", daemon=True)
        thread.start()
        while thread.is_alive() and (left := self.deadline - time.monotonic()) > 0:
            thread.join(min(left, timings.HEARTBEAT))
            if self._leases is not None:
                self._leases.touch()
        if self._conflict is not None:
            raise self._conflict

    def _run(self) -> None:
        for index, target in enumerate(self.found):
            self.on_progress(Comparing(target.backend.name, index, len(self.found)))
            try:
                self.reports[index] = self._verify(target)
            except WriterConflict as conflict:  # a courier came in between
                self._conflict = conflict
                return
            except Exception as error:  # noqa: BLE001 - a full disk, for one; other runs can still be read
                self.reports[index] = report_on(target, "unreadable", in_words(error, target))

    def _verify(self, target: Target) -> RunReport:
        if self.repair is None:
            with PointTable() as table:
                return compare(target, table)
        with Leases(target.layout, target.backend.name, target.carriers) as leases, PointTable() as table:
            self._leases = leases
            report = compare(target, table)
            if report.state != "gone" and not report.total().missing:
                return report
            done = _repaired(target, table, report, leases, self.repair)
        self._leases = None
        if done.new_run:
            self.repair.deliver(target.backend.name, self.deadline - time.monotonic())
        with PointTable() as table:
            again = compare(target, table)
        return replace(again, sent=done.sent, problem=done.problem or again.problem, new_run=done.new_run)


def _repaired(target: Target, table: PointTable, report: RunReport, leases: Leases, repair: Repair) -> RunReport:
    """The report, with what was sent, or why nothing was."""
    if report.state == "different":
        try:
            sent = put_back(target, table, leases)
        except BackendRefused as error:  # not between the points that it holds
            report = replace(report, problem=in_words(error, target))
        except Exception as error:  # noqa: BLE001 - see `compare`
            return replace(report, problem=in_words(error, target))
        else:
            return replace(report, sent=sent.rows, problem=scrub_text(sent.reason, target.secrets))
    if not repair.new_run:
        return report
    if report.cleaned:
        gone = f"{report.cleaned} rows were removed by `rolecall clean`, so a new run would lack them"
        return replace(report, problem=f"{report.problem}; {gone}" if report.problem else gone)
    try:
        open_new_run(target, leases)
    except Exception as error:  # noqa: BLE001 - see `compare`
        return replace(report, problem=in_words(error, target))
    return replace(report, new_run=True, problem="")
