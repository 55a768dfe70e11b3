"""Compares one run with the journals, point by point."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from rolecall.config.redact import scrub_text, scrub_trace
from rolecall.delivery.check.points import Difference, PointTable, Side
from rolecall.delivery.check.target import Target
from rolecall.errors import RolecallError, RunGone
from rolecall.protocol import Point, SupportsReadback
from rolecall.store.acks import START, Position

logger = logging.getLogger("rolecall.verify")

RunState = Literal["equal", "different", "undelivered", "gone", "unreadable"]
_EXAMPLES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many points of a metric differ, and in which way."""

    missing: int = 0
    extra: int = 0
    different: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run holds, beside what the journals say.

    Attributes:
        backend: the backend.
        writers: whose rows it should hold.
        shared: whether it is the run of all writers.
        id: what the backend calls it; `None` if it was never opened.
        url: where you look at it.
        state: `equal`, `different`, `undelivered` if rows were logged and it holds none, `gone`, or `unreadable`.
        problem: why it is gone or unreadable, or why it could not be repaired.
        points: how many points it should hold.
        held: how many it holds.
        metrics: the metrics that differ, as the backend names them.
        examples: the first differences of each kind.
        waiting: how many rows were not delivered yet; they are not compared.
        cleaned: how many rows `rolecall clean` removed from the journals. Then no point counts as extra, and neither
            does one in a run that rolecall has not made.
        damages: what is wrong with the journals, so that points can seem to be extra.
        tables: how many tables were logged; they are not compared.
        sent: how many rows were sent to it, to repair it.
        new_run: whether it is a new run, to which everything was sent.
    """

    backend: str
    writers: tuple[str, ...]
    shared: bool
    id: str | None = None
    url: str | None = None
    state: RunState = "equal"
    problem: str = ""
    points: int = 0
    held: int = 0
    metrics: Mapping[str, Counts] = field(default_factory=dict)
    examples: tuple[Difference, ...] = ()
    waiting: int = 0
    cleaned: int = 0
    damages: tuple[str, ...] = ()
    tables: int = 0
    sent: int = 0
    new_run: bool = False

    def total(self) -> Counts:
        """Over all metrics."""
        found = self.metrics.values()
        sums = {kind: sum(getattr(each, kind) for each in found) for kind in ("missing", "extra", "different")}
        return Counts(**sums)


@dataclass(slots=True)
class _Beside:
    """What the journals hold beside points."""

    damages: list[str] = field(default_factory=list)
    tables: int = 0


def report_on(target: Target, state: RunState, problem: str = "") -> RunReport:
    """What can be said of a run that was not compared."""
    reference = target.reference()
    return RunReport(
        backend=target.backend.name,
        writers=target.writers,
        shared=target.shared,
        id=reference.id if reference else None,
        url=reference.url if reference else None,
        state=state,
        problem=problem,
        waiting=target.waiting(),
        cleaned=target.cleaned(),
    )


def compare(target: Target, table: PointTable) -> RunReport:
    """Compare a run with the journals; errors of the backend are in the report.

    Args:
        target: the run.
        table: takes the points; afterwards it knows what is missing.
    """
    until = target.positions()
    is_begun = any(position != START for position in until.values())
    if target.reference() is None and not is_begun:
        return report_on(target, "undelivered" if target.waiting() else "equal")  # there is no run to look at
    try:
        with closing(target.open_readback()) as readback:
            report = _compare(target, table, readback, until)
            # Nothing that it must hold is missing, and that is no comparison.
            is_empty = report.state == "equal" and not report.held and report.waiting and not is_begun
            return replace(report, state="undelivered") if is_empty else report
    except RunGone as error:
        return report_on(target, "gone", scrub_text(str(error), target.secrets))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and other runs can still be read
        return report_on(target, "unreadable", in_words(error, target))


def _compare(target: Target, table: PointTable, readback: SupportsReadback, until: Mapping[str, Position]) -> RunReport:
    beside = _Beside()
    # The run first: what it holds by then is in a journal by now, also if the job still runs.
    table.add((Side.HELD, key, point) for key, point in target.held(readback))
    for writer in target.writers:
        table.add(_logged(target, readback, writer, until[writer], beside))
    counts: dict[str, Counter[str]] = {}
    shown: Counter[str] = Counter()
    examples: list[Difference] = []
    # Whose rows were removed, and what others log into a run of the user's, seems to be extra.
    has_more = target.cleaned() > 0 or target.ticket(target.owner).attached
    for each in table.differences():
        if has_more and each.kind == "extra":
            continue
        counts.setdefault(each.key, Counter())[each.kind] += 1
        shown[each.kind] += 1
        if shown[each.kind] <= _EXAMPLES:
            examples.append(each)
    return replace(
        report_on(target, "different" if counts else "equal"),
        points=table.counts[Side.WANTED],
        held=table.counts[Side.HELD],
        metrics={key: Counts(**counts[key]) for key in sorted(counts)},
        examples=tuple(examples),
        damages=tuple(beside.damages[:_EXAMPLES]),
        tables=beside.tables,
    )


def _logged(
    target: Target, readback: SupportsReadback, writer: str, until: Position, beside: _Beside
) -> Iterator[tuple[Side, str, Point]]:
    for row, is_wanted in target.rows(writer, until, beside.damages):
        beside.tables += row.table is not None
        side = Side.WANTED if is_wanted else Side.ALLOWED
        for key, point in target.points(readback, row):
            yield side, key, point


def in_words(error: Exception, target: Target) -> str:
    """Why a backend could not be read or repaired; the traceback of what no plugin should raise goes to the log."""
    secrets = target.secrets
    if isinstance(error, RolecallError):
        return scrub_text(str(error), secrets)
    logger.error("%s: %s", target.backend.name, scrub_trace(error, secrets))
    return scrub_text(f"{type(error).__name__}: {error}", secrets)
