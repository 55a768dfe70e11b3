"""Sends what a job's backends do not hold yet, or copies a whole job to another backend.

It is the job's own couriers once more, all in this process: the launcher's, which opens the primary runs and ends
them last, and each writer's. One carrier at a time is held by `rolecall.claims`, so it is safe beside a job that
still runs, and to run twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecall.builtin import LOCAL
from rolecall.config import MonitorConfig
from rolecall.courier import POLL, News
from rolecall.crew import Crew
from rolecall.delivery import is_carried, undelivered
from rolecall.errors import DirectoryError
from rolecall.layout import LAUNCH, Layout
from rolecall.plan import BackendPlan, Plan
from rolecall.record import RunRecord, read_record
from rolecall.registry import Registry
from rolecall.resolve import resolve

__all__ = ["Left", "deliver"]


@dataclass(frozen=True, slots=True)
class Left:
    """What a backend does not hold yet of one writer."""

    backend: str
    writer: str
    rows: int


def deliver(
    root: Path,
    to: str | None,
    args: Mapping[str, Any],
    tell: Callable[[str, News], None],
    timeout: float,
    registry: Registry | None = None,
) -> list[Left]:
    """Deliver the job in a `monitor_dir`; returns what could not be delivered within so many seconds.

    Args:
        root: the `monitor_dir`.
        to: a backend; by default those of the job.
        args: arguments that differ from the job's, or that it kept no copy of: secrets. Keyed by backend.
        tell: gets each writer's news.
        timeout: seconds.
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
    _carry(config, layout, [(writer, name) for writer in layout.writers() for name in names], tell, timeout)
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


def _carry(
    config: MonitorConfig,
    layout: Layout,
    pairs: list[tuple[str, str]],
    tell: Callable[[str, News], None],
    timeout: float,
) -> None:
    """A crew for each writer that lacks something, then the launcher's, which waits for them."""
    deadline = time.monotonic() + timeout
    lacking = [
        (writer, name)
        for writer, name in pairs
        if undelivered(layout, name, writer) and not is_carried(layout, name, writer)
    ]
    threads = [
        _start(config, writer, {name for who, name in lacking if who == writer}, tell)
        for writer in dict.fromkeys(writer for writer, _ in lacking)
    ]
    while any(thread.is_alive() for thread in threads) and not all(
        is_carried(layout, name, writer) for writer, name in lacking
    ):
        time.sleep(POLL)
    shared = {name for _, name in lacking if config.plan and config.plan.shared(name)}
    free = {name for name in shared if not is_carried(layout, name, LAUNCH)}
    threads += [_start(config, LAUNCH, free, tell)] if free else []
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _start(
    config: MonitorConfig, writer: str, names: set[str], tell: Callable[[str, News], None]
) -> threading.Thread:
    plans = [plan for plan in (config.plan.backends if config.plan else ()) if plan.backend in names]
    crew = Crew(config, writer, plans, lambda news: tell(writer, news))
    thread = threading.Thread(target=crew.run, daemon=True)
    thread.start()
    return thread
