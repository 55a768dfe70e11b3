"""Sends what a job's backends do not hold yet, or copies a whole job to another backend.

It is the job's own couriers once more, all in this process: the launcher's, which opens the primary runs and ends
them last, and each writer's. One carrier at a time is held by `rolecall.store.lease`, so it is safe beside a job that
still runs, and to run twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecall.backends.builtin import LOCAL
from rolecall.backends.registry import Registry
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, Plan
from rolecall.config.resolve import resolve
from rolecall.delivery.courier import News
from rolecall.delivery.group import Crew
from rolecall.errors import DirectoryError
from rolecall.job.session import OPENING
from rolecall.store.acks import delivered, is_carried, is_left, undelivered
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest, sessions
from rolecall.store.manifest import RunRecord, read_record
from rolecall.store.spool import mirrors

__all__ = ["Held", "Left", "Listener", "deliver"]

LOOK = 0.5
"""Seconds between looks at how far the backends are."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a backend does not hold yet of one writer."""

    backend: str
    writer: str
    rows: int


@dataclass(frozen=True, slots=True)
class Held:
    """How many rows of all writers a backend holds, and how many there were when it began."""

    backend: str
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Listener:
    """What wants to know how a delivery goes.

    Attributes:
        news: gets each writer's news, from any thread.
        held: gets how far each backend is, about twice a second.
    """

    news: Callable[[str, News], None] = lambda _writer, _news: None
    held: Callable[[Sequence[Held]], None] = lambda _held: None


def deliver(
    root: Path,
    to: str | None,
    args: Mapping[str, Any],
    timeout: float,
    listener: Listener | None = None,
    registry: Registry | None = None,
) -> list[Left]:
    """Deliver the job in a `monitor_dir`; returns what could not be delivered within so many seconds.

    Args:
        root: the `monitor_dir`.
        to: a backend; by default those of the job.
        args: arguments that differ from the job's, or that it kept no copy of: secrets. Keyed by backend.
        timeout: seconds.
        listener: gets to know how it goes.
        registry: where backends are found.

    Raises:
        DirectoryError: no job is there.
        ConfigError, BackendError: the backend, or its arguments.
    """
    layout = Layout(root.absolute())
    record = read_record(layout)
    if record is None:
        raise DirectoryError(f"{root}: no run.json is here, so it is no monitor_dir; give one of a job")
    config = _config(layout, record, to, args, registry)
    names = [plan.backend for plan in config.plan.backends] if config.plan else []
    listener = listener or Listener()
    _fetch(config, layout)
    totals = {name: _held(layout, name) + _lacks(layout, name) for name in names}

    def look() -> None:
        listener.held([Held(name, _held(layout, name), rows) for name, rows in totals.items()])

    _join([_carry(config, layout, name, listener.news) for name in names], timeout, look)
    left = [
        Left(name, writer, undelivered(layout, name, writer)) for name in names for writer in layout.writers()
    ]
    return [one for one in left if one.rows]


def _config(
    layout: Layout, record: RunRecord, to: str | None, args: Mapping[str, Any], registry: Registry | None
) -> MonitorConfig:
    """The job's config as far as it was kept, with the backends that are asked for."""
    names = [to] if to else [plan.backend for plan in record.plan.backends if plan.backend != LOCAL]
    if not names:
        raise DirectoryError(
            f"{layout.root}: the job is local, so all of it is here; name a backend with --to"
        )
    kept = {name: {**record.args.get(name, {}), **args.get(name, {})} for name in names}
    shared = any(plan.shared for plan in record.plan.backends)
    data = {
        "project": record.project,
        "name": record.name,
        "group": record.group,
        "run_id": record.run_id,
        "monitor_dir": layout.root,
        "spool_dir": record.spool_dir,
        "monitor_type": names,
        "monitor_args": kept,
        "shared_run": shared,
        "courier": "thread",
        "nonce": record.nonce,
    }
    config = MonitorConfig.load(data, registry=registry)
    return config.model_copy(update={"plan": _plan(config, record)})


def _plan(config: MonitorConfig, record: RunRecord) -> Plan:
    """As the job was planned; a backend that it did not have, as it would have been."""
    planned = {plan.backend: plan.shared for plan in record.plan.backends}
    backends = tuple(
        BackendPlan(backend=one.backend, shared=planned.get(one.backend, one.shared), carrier="thread")
        for one in resolve(config).backends
    )
    return Plan(backends=backends)


def _held(layout: Layout, name: str) -> int:
    return sum(delivered(layout, name, writer).rows for writer in layout.writers())


def _lacks(layout: Layout, name: str) -> int:
    return sum(undelivered(layout, name, writer) for writer in layout.writers())


def _carry(
    config: MonitorConfig, layout: Layout, name: str, tell: Callable[[str, News], None]
) -> threading.Thread:
    """All crews of one backend, on a thread that waits as its run is opened: one that hangs there delays no other.

    The launcher's comes first, as in a job: a role joins the run that it opened. It ends that run after them.
    """
    lacking = [writer for writer in layout.writers() if _is_lacking(layout, writer, name)]
    heard = threading.Event()
    roles = [_crew(config, writer, name, tell) for writer in lacking]
    launcher = _launcher(config, layout, name, tell, heard, roles)

    def run() -> None:
        for crew in launcher:
            crew.start()
            heard.wait(OPENING)
        for crew in roles:
            crew.start()
        for crew in (*roles, *launcher):
            crew.join()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _join(crews: list[threading.Thread], timeout: float, look: Callable[[], None]) -> None:
    """Wait for the crews of all backends, and look what they do."""
    deadline = time.monotonic() + timeout
    for crew in crews:
        while crew.is_alive() and (left := deadline - time.monotonic()) > 0:
            look()
            crew.join(min(LOOK, left))
    look()


def _fetch(config: MonitorConfig, layout: Layout) -> None:
    """What is spooled on this node comes first: it may hold rows that nobody has seen yet."""
    for writer in layout.writers():
        for mirror in mirrors(config, writer, sessions(layout.journal(writer))):
            mirror.copy()


def _is_lacking(layout: Layout, writer: str, name: str) -> bool:
    """Whether a backend lacks something of a writer, and nobody is carrying it there."""
    return is_left(layout, name, writer) and not is_carried(layout, name, writer)


def _launcher(
    config: MonitorConfig,
    layout: Layout,
    name: str,
    tell: Callable[[str, News], None],
    heard: threading.Event,
    roles: Sequence[threading.Thread],
) -> list[threading.Thread]:
    """The launcher's crew, where a shared run lacks something; a live launcher has its own.

    `heard` is set once the run is open, or the backend has said why it is not.
    """
    place = newest(layout.journal(LAUNCH))
    is_live = place is not None and place.is_live()
    is_shared = config.plan is not None and config.plan.shared(name)
    is_wanted = bool(roles) or _is_lacking(layout, LAUNCH, name)
    if is_live or not is_shared or not is_wanted or is_carried(layout, name, LAUNCH):
        return []

    def hear(writer: str, news: News) -> None:
        if news.kind != "warning":
            heard.set()
        tell(writer, news)

    return [_crew(config, LAUNCH, name, hear, lambda: any(map(_is_at_work, roles)))]


def _is_at_work(role: threading.Thread) -> bool:
    """Whether it has yet to end, or even to start: the launcher's starts before it."""
    return role.ident is None or role.is_alive()


def _crew(
    config: MonitorConfig,
    writer: str,
    name: str,
    tell: Callable[[str, News], None],
    others: Callable[[], bool] = lambda: False,
) -> threading.Thread:
    plans = [plan for plan in (config.plan.backends if config.plan else ()) if plan.backend == name]
    crew = Crew(config, writer, plans, lambda news: tell(writer, news), others)
    return threading.Thread(target=crew.run, daemon=True)
