"""launch: what a launcher holds."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rolecall.config.model import MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.redact import public_args
from rolecall.config.resolve import resolve
from rolecall.errors import ConfigError, DirectoryError, WriterConflict
from rolecall.job.patience import within
from rolecall.job.session import LOOKING, Station, status_at_exit, status_of
from rolecall.job.writers import WriterState, read_writers, wait_for_writers
from rolecall.states import Status
from rolecall.store.acks import is_carried
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Session, claim, end, newest
from rolecall.store.manifest import RunRecord, read_record, write_record

__all__ = ["Job", "launch"]

logger = logging.getLogger("rolecall")

CLOSING = 30.0
QUIET = 10.0
"""Seconds that a launcher waits for the couriers of a job that it is about to set aside."""
# What backends wrote goes with the job, or a new one's curves would run on from the old one's.
# The record goes last: while it is there, a launcher that dies half-way is followed by one that goes on with this.
_OURS = ("journal", "axes", "delivery", "courier", "backends", "run.json")


class Job:
    """A running job, as its launcher holds it. Made by `launch`.

    Attributes:
        config: for the roles: with the run's id and the plan; picklable, and `to_env` makes it an environment.
        plan: what will happen, and where it is less than asked for.
    """

    def __init__(self, config: MonitorConfig, plan: Plan, station: Station | None) -> None:
        self.config = config
        self.plan = plan
        self._station = station
        self._forgotten = weakref.finalize(self, _close_forgotten, station)

    @property
    def run_id(self) -> str | None:
        """rolecall's name of the run; `None` if monitoring is off."""
        return self.config.run_id

    @property
    def urls(self) -> Mapping[str, str | None]:
        """Where a person looks at the shared runs, for each backend that has opened by now."""
        return dict(self._station.desk.urls) if self._station else {}

    @property
    def writers(self) -> list[WriterState]:
        """What became of every role that has opened by now, on any node."""
        return read_writers(Layout(self.config.monitor_dir)) if self._station else []

    def close(self, status: Status = "finished", timeout: float = CLOSING, wait: float = 0.0) -> None:
        """End the job: wait for the roles and their couriers, then end the shared runs with this status.

        Roles that died without a word, and roles that still run, are told. A second call does nothing. Where roles
        are still running after `wait` and `timeout` seconds, the couriers' process waits for them and ends the runs.

        Args:
            status: how the job ended.
            timeout: seconds that the couriers may take.
            wait: seconds to wait for the roles before that, until each has closed or died.

        Raises:
            Undelivered: with `on_backend_error: raise`, if rows are left; several in an `ExceptionGroup`.
        """
        if self._forgotten.detach() and self._station is not None:
            layout = Layout(self.config.monitor_dir)
            self._tell_of(within(wait + LOOKING, lambda: wait_for_writers(layout, wait)) or [])
            self._station.close(status, timeout)

    def _tell_of(self, states: list[WriterState]) -> None:
        astray = [str(one) for one in states if one.state in ("died", "running")]
        if astray:
            logger.warning("the job ends, but not each of its roles has closed: %s", "; ".join(astray))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(status_of(error))


def launch(config: MonitorConfig | Mapping[str, Any], run_config: Mapping[str, Any] | None = None) -> Job:
    """Check a config, open the primary runs, and make the config that roles need.

    Args:
        config: what the user wrote.
        run_config: the job's config, kept with the run; secrets are scrubbed.

    Raises:
        ConfigError, BackendError: the config, or a backend that it names.
        DirectoryError: `monitor_dir` cannot be used, or `resume: must` finds nothing to go on with.
        WriterConflict: a launcher is alive in this `monitor_dir`.
        BackendRefused: a backend said no: credentials, arguments. One that cannot be reached does not stop a job.
    """
    config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
    plan = resolve(config)
    if plan.disabled:
        return Job(config, plan, None)
    for downgrade in plan.downgrades:
        logger.warning("%s", downgrade)
    config, station = _begin(config, plan, run_config)
    station.wait_opened()
    return Job(config, plan, station)


def _begin(
    config: MonitorConfig, plan: Plan, run_config: Mapping[str, Any] | None
) -> tuple[MonitorConfig, Station]:
    """Take the launcher's place; other launchers are kept out while it is decided what to go on with."""
    layout = Layout(config.monitor_dir)
    launching = _keep_others_out(layout)
    try:
        record = _record(config, plan, _predecessor(layout))
        write_record(layout, record)
        config = config.model_copy(update={"run_id": record.run_id, "plan": plan, "nonce": record.nonce})
        return config, Station(config, plan, LAUNCH, run_config)
    finally:
        end(launching, "finished")


def _keep_others_out(layout: Layout) -> Session:
    try:
        return claim(layout.launching, {}, "the launcher's place")
    except OSError as error:
        raise DirectoryError(
            f"monitor_dir {layout.root}: cannot be written: {error.strerror}; choose one that can"
        ) from error


@dataclass(frozen=True, slots=True)
class _Predecessor:
    """The job that stood in the same directory before."""

    layout: Layout
    record: RunRecord
    finished: bool


def _predecessor(layout: Layout) -> _Predecessor | None:
    place = newest(layout.journal(LAUNCH))
    if place is not None and place.is_live():
        owner = place.owner()
        where = f"process {owner.pid} on {owner.host}" if owner else "another process"
        raise WriterConflict(
            f"monitor_dir {layout.root}: a launcher is alive there ({where}). Stop it, or use another monitor_dir"
        )
    record = read_record(layout)
    return (
        _Predecessor(layout, record, place is not None and place.status() == "finished") if record else None
    )


def _record(config: MonitorConfig, plan: Plan, before: _Predecessor | None) -> RunRecord:
    """The record of the job to go on with, or of a new one."""
    goes_on = _goes_on(config, before)
    if before is not None and not goes_on:
        _set_aside(before)
    run_id = (
        before.record.run_id if before is not None and goes_on else config.run_id or uuid.uuid4().hex[:12]
    )
    return RunRecord(
        run_id=run_id,
        nonce=uuid.uuid4().hex,
        project=config.project,
        name=config.name,
        group=config.group,
        created=time.time(),
        spool_dir=str(config.spool_dir) if config.spool_dir else None,
        plan=plan,
        args={name: public_args(model) for name, model in config.monitor_args.items()},
    )


def _goes_on(config: MonitorConfig, before: _Predecessor | None) -> bool:
    if config.resume == "must" and (before is None or before.finished):
        what = "the job there is finished" if before else "no job is there"
        raise DirectoryError(
            f"resume: must: {what} (monitor_dir {config.monitor_dir}); use resume: auto to start anew"
        )
    if before is None or config.resume == "never" or (config.resume == "auto" and before.finished):
        return False
    _check_same(config, before.record)
    return True


def _check_same(config: MonitorConfig, record: RunRecord) -> None:
    asked = {"project": config.project, "run_id": config.run_id or record.run_id}
    there = {"project": record.project, "run_id": record.run_id}
    for setting, value in asked.items():
        if value != there[setting]:
            raise ConfigError(
                f"{setting}: monitor_dir {config.monitor_dir} holds an unfinished job with {setting} "
                f"{there[setting]!r}, not {value!r}. Use {setting} {there[setting]!r} to go on with it, or another "
                f"monitor_dir (or resume: never) to start anew"
            )


def _set_aside(before: _Predecessor) -> None:
    """Move what is ours below `previous/`, where it stays a whole directory of its own."""
    _wait_for_quiet(before)
    target = _free(before.layout.previous(before.record.run_id))
    target.mkdir(parents=True)
    for name in _OURS:
        if (before.layout.root / name).exists():
            (before.layout.root / name).rename(target / name)


def _wait_for_quiet(before: _Predecessor) -> None:
    """A courier that still drains would go on below the new job: give it a moment to end."""
    deadline = time.monotonic() + QUIET
    while (busy := _busy(before)) is not None:
        if time.monotonic() >= deadline:
            raise WriterConflict(
                f"monitor_dir {before.layout.root}: {busy} of the earlier job {before.record.run_id} is still at work. "
                f"Wait for it to end, stop it, or use another monitor_dir"
            )
        time.sleep(0.1)


def _busy(before: _Predecessor) -> str | None:
    """A live role or courier of an earlier job; `None` if there is none."""
    layout, backends = before.layout, [plan.backend for plan in before.record.plan.backends]
    for writer in layout.writers():
        session = newest(layout.journal(writer))
        if session is not None and session.is_live():
            return f"role {writer}"
    carried = ((writer, name) for writer in (*layout.writers(), LAUNCH) for name in backends)
    return next(
        (f"the courier of {who} to {name}" for who, name in carried if is_carried(layout, name, who)), None
    )


def _free(path: Path) -> Path:
    """The path, numbered if there is one already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain((path,), numbered) if not candidate.exists())


def _close_forgotten(station: Station | None) -> None:
    """Nobody closed it: the interpreter ends, or the job was dropped."""
    if station is not None:
        warnings.warn("the job of rolecall.launch was never closed", ResourceWarning, stacklevel=2)
        station.close(status_at_exit(), 5.0)
