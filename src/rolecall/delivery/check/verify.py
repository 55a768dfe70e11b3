"""Compares every run of a job with its journals, and repairs them if asked to."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.backends.registry import Registry
from rolecall.config.redact import scrub_text
from rolecall.config.spec import JobSpec
from rolecall.delivery.check.compare import RunReport, compare, in_words, report_on
from rolecall.delivery.check.leases import Leases, refuse_live
from rolecall.delivery.check.points import PointTable
from rolecall.delivery.check.repair import open_new_run, put_back
from rolecall.delivery.check.target import Target, targets
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.redeliver import deliver, open_job
from rolecall.errors import BackendError, BackendRefused, WriterConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What to do about runs that lack something.

    Attributes:
        new_run: whether everything goes to a new run where the old one is gone, or takes no points in place.
        on_event: gets each event of the couriers that deliver to a new run, from any thread.
    """

    new_run: bool = False
    on_event: Callable[[CourierEvent], None] = lambda _: None


def verify(  # noqa: PLR0913 - the last four by name
    root: Path,
    backend: str | None,
    args: Mapping[str, Any],
    timeout: float,
    *,
    trust: bool = False,
    repair: Repair | None = None,
    registry: Registry | None = None,
) -> list[RunReport]:
    """Compare the runs of the job in a `monitor_dir` with its journals; returns a report of each.

    Args:
        root: the `monitor_dir`.
        backend: the backend; by default all of the job that can be read back.
        args: as for `deliver`, and so are `trust` and `registry`.
        timeout: seconds; runs that were not compared by then are unreadable.
        trust: as there.
        repair: whether, and how, to send what is missing. Runs are then compared once more.
        registry: as there.

    Raises:
        DirectoryError: no job is there, or its record may be somebody else's and names a server.
        ConfigError, BackendError: the backend, or its arguments.
        WriterConflict: a run is to be repaired, and a courier still sends rows to it.
    """
    spec = open_job(root, backend, args, trust=trust, option="--backend", registry=registry)
    work = _Work(
        found=_targets(spec),
        repair=repair,
        deadline=time.monotonic() + timeout,
        deliver=lambda name, left, on_event: deliver(
            *(root, name, args, left), trust=trust, on_event=on_event, registry=registry
        ),
    )
    work.run()
    late = f"it was not compared within {timeout:g} s"
    return [work.reports.get(index) or report_on(each, "unreadable", late) for index, each in enumerate(work.found)]


def _targets(spec: JobSpec) -> list[Target]:
    plans = [plan for plan in spec.plan.backends if spec.registry.load(plan.backend).reads_back]
    if not plans:
        names = ", ".join(plan.backend for plan in spec.plan.backends)
        raise BackendError(f"{names}: what it holds cannot be read back, as it has no hook open_readback")
    return list(targets(spec, plans))


@dataclass(eq=False, kw_only=True)
class _Work:
    """The runs, one after the other, on a thread: a backend that hangs must not keep the command from ending in time.

    Attributes:
        found: the runs.
        repair: as in `verify`.
        deadline: when to give up, by the monotonic clock.
        deliver: delivers to a backend within so many seconds.
        reports: of the runs that are done, by their place among `found`.
    """

    found: Sequence[Target]
    repair: Repair | None
    deadline: float
    deliver: Callable[[str, float, Callable[[CourierEvent], None]], object]
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
                refuse_live(target)
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
        with Leases(target) as leases, PointTable() as table:
            self._leases = leases
            report = compare(target, table)
            if report.state != "gone" and not report.total().missing:
                return report
            done = _repaired(target, table, report, leases, self.repair)
        self._leases = None
        if done.new_run:
            self.deliver(target.backend.name, self.deadline - time.monotonic(), self.repair.on_event)
        with PointTable() as table:
            again = compare(target, table)
        return replace(again, sent=done.sent, problem=again.problem or done.problem, new_run=done.new_run)


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
            return replace(report, sent=sent.rows, problem=scrub_text(sent.reason, target.spec.secrets))
    if not repair.new_run:
        return report
    try:
        open_new_run(target, leases)
    except Exception as error:  # noqa: BLE001 - see `compare`
        return replace(report, problem=in_words(error, target))
    return replace(report, new_run=True, problem="")
