"""Sends what a job's backends do not hold yet, or copies a whole job to another backend.

These are the job's own couriers once more, all in this process: the launcher's, which opens the primary runs and ends
them last, and each writer's. A lease lets one courier at a time deliver the same rows, so it is safe beside a job that
still runs, and to run twice.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.backends.builtin import LOCAL
from rolecall.backends.registry import Registry
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, Plan
from rolecall.config.spec import HandOver, JobSpec
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.group import Assignment, CourierGroup
from rolecall.errors import DirectoryError
from rolecall.store.acks import acknowledged, is_left, leases, undelivered, waiting
from rolecall.store.layout import LAUNCH, Layout, RunRecord, job_record
from rolecall.store.lease import held_now
from rolecall.store.spool import Mirror


@dataclass(frozen=True, slots=True)
class Left:
    """What a backend does not hold of one writer.

    Attributes:
        rows: how many rows it does not hold yet.
        missing: how many rows it cannot get, because the journal could not be written or was damaged.
        lacks_changes: whether it lacks no row, but the last changes of the config, the summary or the tags.
    """

    backend: str
    writer: str
    rows: int
    missing: int = 0
    lacks_changes: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """How many rows of all writers a backend holds, and how many there were when the delivery began."""

    backend: str
    rows: int
    total: int


def deliver(  # noqa: PLR0913 - the last three by name
    root: Path,
    to: str | None,
    args: Mapping[str, Any],
    timeout: float,
    *,
    trust: bool = False,
    on_event: Callable[[CourierEvent], None] = lambda _: None,
    on_progress: Callable[[Sequence[Held]], None] = lambda _: None,
    registry: Registry | None = None,
) -> list[Left]:
    """Deliver the job in a `monitor_dir`; returns what could not be delivered within `timeout` seconds.

    Args:
        root: the `monitor_dir`.
        to: a backend; by default those of the job.
        args: arguments that differ from the job's, or that it kept no copy of: secrets. Keyed by backend.
        timeout: seconds.
        trust: whether servers that only the directory names may be asked, with this user's credentials.
        on_event: gets each event, from any thread.
        on_progress: gets how far each backend is, a few times a second.
        registry: where backends are found.

    Raises:
        DirectoryError: no job is there, or its record may be somebody else's and names a server.
        ConfigError, BackendError: the backend, or its arguments.
    """
    spec = open_job(root, to, args, trust=trust, registry=registry)
    layout = Layout(spec.monitor_dir)
    backends = [plan.backend for plan in spec.plan.backends]
    writers = layout.writers()
    for writer in writers:
        # What is spooled on this node comes first: it may hold rows that nobody has seen yet.
        Mirror(spec, writer).copy()
    assignments = list(_assignments(layout, spec.plan.backends, writers))
    names = dict.fromkeys(each.writer for each in assignments)

    def held(backend: str) -> int:
        return sum(acknowledged(layout, backend, writer).rows for writer in layout.writers())

    totals = {name: held(name) + sum(waiting(layout, name, writer) for writer in writers) for name in backends}
    _run(
        CourierGroup(spec, names, assignments, on_event),
        timeout,
        lambda: on_progress([Held(name, held(name), total) for name, total in totals.items()]),
    )
    return left_of(spec)


def left_of(spec: JobSpec) -> list[Left]:
    """What the backends of a job do not hold of each writer; those left out of which they hold all."""
    layout = Layout(spec.monitor_dir)
    found = [_left(layout, plan.backend, writer) for plan in spec.plan.backends for writer in layout.writers()]
    return [each for each in found if each.rows or each.missing or each.lacks_changes]


def _left(layout: Layout, backend: str, writer: str) -> Left:
    rows, missing = waiting(layout, backend, writer), acknowledged(layout, backend, writer).missing
    return Left(backend, writer, rows, missing, not rows and undelivered(layout, backend, writer) > 0)


def open_job(  # noqa: PLR0913 - the last four by name
    root: Path,
    to: str | None,
    args: Mapping[str, Any],
    *,
    trust: bool = False,
    option: str = "--to",
    delivered: bool = False,
    registry: Registry | None = None,
) -> JobSpec:
    """The settings of the job in a `monitor_dir`, as far as they were kept, with the backends that are asked for.

    Args:
        root: the `monitor_dir`.
        to: as in `deliver`, and so are `args`, `trust` and `registry`.
        args: as there.
        trust: as there.
        option: what a user names a backend with.
        delivered: whether rows must have been delivered there before.
        registry: as there.

    Raises:
        DirectoryError: no job is there, or its record may be somebody else's and names a server.
        ConfigError, BackendError: the backend, or its arguments.
    """
    record, distrust = job_record(Layout(root))
    layout = Layout(root.absolute())
    if distrust and not trust:
        record = _trusted_part(layout, record, distrust, to, args)
    planned = [plan.backend for plan in record.plan.backends]
    if delivered and to is not None and to not in (*planned, *layout.backends()):
        known = ", ".join(planned)
        raise DirectoryError(f"{option}: {layout.root}: nothing was delivered to {to}; the job has {known}")
    names = [to] if to else [name for name in planned if name != LOCAL]
    if not names:
        raise DirectoryError(
            f"{layout.root}: the job's only backend is local, so all of it is here; name a backend with {option}"
        )
    return _spec(layout, record, names, args, registry)


def _run(group: CourierGroup, timeout: float, on_progress: Callable[[], None]) -> None:
    """Let the couriers deliver, for at most `timeout` seconds."""
    # On a thread: a backend that hangs must not keep this one from ending in time.
    thread = threading.Thread(target=group.run, name="rolecall-deliver", daemon=True)
    thread.start()
    deadline = time.monotonic() + timeout
    while True:
        is_alive, left = thread.is_alive(), deadline - time.monotonic()
        on_progress()
        if not is_alive or left <= 0:
            return
        thread.join(min(timings.STATUS_INTERVAL, left))


def _trusted_part(
    layout: Layout, record: RunRecord, distrust: str, to: str | None, args: Mapping[str, Any]
) -> RunRecord:
    """The record of somebody else: it must not choose where this user's credentials go, or which files are read.

    Raises:
        DirectoryError: it names a server, a file or an option of a backend that the user has not given.
    """
    for name in [to] if to else [plan.backend for plan in record.plan.backends]:
        given = args.get(name, {})
        if unknown := sorted(record.args.get(name, {}).keys() - given.keys()):
            raise DirectoryError(
                f"{layout.record}: {distrust}, so its arguments of {name} ({', '.join(unknown)}) are not used: your "
                "credentials would go where it says. Give them with --args, or use --trust if you know who wrote it"
            )
    return replace(record, args={}, spool_dir=None)


def _spec(
    layout: Layout, record: RunRecord, names: Sequence[str], args: Mapping[str, Any], registry: Registry | None
) -> JobSpec:
    planned = {plan.backend: (plan.shared, plan.relayed) for plan in record.plan.backends}
    is_relayed = any(plan.relayed for plan in record.plan.backends)
    attached = {plan.backend for plan in record.plan.backends if plan.attaches}
    data = {
        **{setting: getattr(record, setting) for setting in ("project", "name", "group", "spool_dir")},
        "monitor_dir": layout.root,
        "monitor_type": names,
        "monitor_args": {name: {**record.args.get(name, {}), **args.get(name, {})} for name in names},
        "shared_run": "relay" if is_relayed else any(shared for shared, _ in planned.values()),
        "courier": "thread",
    }
    config = MonitorConfig.load(data, registry=registry)
    for name in names:
        if name not in planned:  # as it would have been planned
            backend, backend_args = config.registry.load(name), config.monitor_args[name]
            shares = config.shared_run is True and backend.supports_shared_run(backend_args).supported
            planned[name] = shares, is_relayed
    backends = tuple(
        BackendPlan(backend=name, shared=shared, courier="thread", attaches=name in attached, relayed=relayed)
        for name, (shared, relayed) in ((name, planned[name]) for name in names)
    )
    return config.handed(HandOver(run_id=record.run_id, nonce=record.nonce, plan=Plan(backends=backends))).spec()


def _assignments(layout: Layout, plans: Sequence[BackendPlan], writers: Sequence[str]) -> Iterator[Assignment]:
    """What backends lack and nobody delivers; the launcher's first, as it opens the runs that roles join."""
    held = held_now(leases(layout, [plan.backend for plan in plans]))

    def is_lacking(writer: str, backend: str) -> bool:
        # A live role has a courier of its own. One of a role that ended may still drain: the group waits for it.
        has_courier = layout.journal(writer) in held and layout.delivery(backend, writer) in held
        return is_left(layout, backend, writer) and not has_courier

    for plan in plans:
        lacking = [writer for writer in writers if is_lacking(writer, plan.backend)]
        is_wanted = bool(lacking) or is_lacking(LAUNCH, plan.backend)
        if plan.relayed:
            # One courier for all. A live one is enough, whatever it has not delivered yet.
            if is_wanted and layout.delivery(plan.backend, LAUNCH) not in held:
                yield Assignment(LAUNCH, plan)
            continue
        # A live launcher has couriers of its own.
        if plan.shared and is_wanted and layout.journal(LAUNCH) not in held:
            yield Assignment(LAUNCH, plan)
        yield from (Assignment(writer, plan) for writer in lacking)
