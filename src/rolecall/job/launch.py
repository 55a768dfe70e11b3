"""Launch a job: settle what happens, and open the runs that its roles share."""

import itertools
import logging
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from rolecall import timings
from rolecall.config.model import MonitorConfig
from rolecall.config.plain import public_args
from rolecall.config.plan import Plan
from rolecall.config.resolve import resolve
from rolecall.config.spec import HandOver
from rolecall.errors import ConfigError, DirectoryError, WriterConflict
from rolecall.job.monitor import close_forgotten
from rolecall.job.session import WriterSession, claim_in
from rolecall.job.status import WriterState, read_writers, wait_for_writers
from rolecall.states import State, Status, status_of
from rolecall.store.acks import is_carried
from rolecall.store.layout import LAUNCH, Layout, RunRecord, read_record, write_record
from rolecall.store.lease import Session, end, is_held, newest, proves_alive, this_process

logger = logging.getLogger("rolecall")

# What backends wrote goes with the job, or a new one's curves would run on from the old one's. The record goes last:
# while it is there, a launcher that dies half-way is followed by one that goes on with this.
_OURS: Final = ("journal", "axes", "delivery", "courier", "backends", "run.json")


class Job:
    """A running job, as its launcher holds it. Made by `launch`.

    Attributes:
        config: for the roles: with the run's id and the plan. It can be pickled, and `to_env` makes it an environment.
        plan: what will happen, and where it is less than asked for.
    """

    def __init__(self, config: MonitorConfig, plan: Plan, session: WriterSession | None) -> None:
        self.config = config
        self.plan = plan
        self._session = session
        closing = [session.close] if session else []
        self._forgotten = weakref.finalize(self, close_forgotten, "the job of launch", closing)

    def __repr__(self) -> str:
        names = ", ".join(each.backend for each in self.plan.backends) or "off"
        return f"<Job {self.config.name!r} of project {self.config.project!r}, run {self.run_id!r}: {names}>"

    @property
    def run_id(self) -> str | None:
        """rolecall's name of the run; `None` if monitoring is off."""
        return self.config.run_id

    @property
    def urls(self) -> Mapping[str, str | None]:
        """Where you look at the shared runs, for each backend that has opened by now."""
        return dict(self._session.events.urls) if self._session else {}

    @property
    def writers(self) -> list[WriterState]:
        """What became of every role that has opened by now, on any node."""
        return read_writers(Layout(self.config.monitor_dir)) if self._session else []

    def close(self, status: Status = "finished", timeout: float = timings.CLOSE_TIMEOUT, wait: float = 0.0) -> None:
        """End the job: wait for the roles and their couriers, then end the shared runs with this status.

        Roles that died, and roles that still run, are reported. A second call does nothing. Where roles are still
        running after `wait` and `timeout` seconds, the couriers' process waits for them and ends the runs.

        Args:
            status: how the job ended.
            timeout: seconds that the couriers may take.
            wait: seconds to wait for the roles before that, until each has closed or died.

        Raises:
            Undelivered: with `on_backend_error: raise`, if rows are left; several in an `ExceptionGroup`.
        """
        if self._session is not None and self._forgotten.alive:
            states = wait_for_writers(Layout(self.config.monitor_dir), wait)
            if open_roles := [str(each) for each in states if not each.closed]:
                logger.warning("closing the job with roles that did not close: %s", "; ".join(open_roles))
        self.leave(status, timeout)

    def leave(self, status: Status, timeout: float) -> None:
        """Close the job, whatever the roles do; their couriers end the runs after them."""
        if self._forgotten.detach() and self._session is not None:
            self._session.close(status, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error))


def launch(config: object, run_config: object = None) -> Job:
    """Check a config, open the primary runs, and make the config that roles need.

    Args:
        config: what the user wrote: a `MonitorConfig`, or what `MonitorConfig.load` takes.
        run_config: the job's config, of any kind (a mapping, OmegaConf, a dataclass, a Namespace), kept with the
            run. Secrets are masked; what cannot be read is left out, with a warning.

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
    return begin(config, plan, run_config)


def begin(config: MonitorConfig, plan: Plan, run_config: object = None, *, by_any: bool = False) -> Job:
    """Take the launcher's place, and open the primary runs.

    Args:
        config: checked.
        plan: what will happen.
        run_config: as in `launch`.
        by_any: whether any role may have launched, and the last one to leave ends the runs.
    """
    config, session = _begin(config, plan, run_config, {"ends": "with the last role"} if by_any else {})
    session.wait_opened()
    return Job(config, plan, session)


def _begin(
    config: MonitorConfig, plan: Plan, run_config: object, header: Mapping[str, Any]
) -> tuple[MonitorConfig, WriterSession]:
    """Take the launcher's place. Other launchers are kept out until it is clear which job goes on."""
    layout = Layout(config.monitor_dir)
    launching = claim_in(layout, layout.launching, {}, "the launcher's place")
    try:
        launcher = newest(layout.journal(LAUNCH))
        if launcher is not None and proves_alive(launcher, "the launcher's place"):
            raise WriterConflict(_alive(layout, launcher))
        before = read_record(layout)
        goes_on = _goes_on(config, before, is_finished=launcher is not None and launcher.status() == State.FINISHED)
        if before is not None and not goes_on:
            _set_aside(layout, before)
        record = RunRecord(
            run_id=before.run_id if before is not None and goes_on else config.run_id or uuid.uuid4().hex[:12],
            nonce=uuid.uuid4().hex,
            project=config.project,
            name=config.name,
            group=config.group,
            created=time.time(),
            spool_dir=str(config.spool_dir) if config.spool_dir else None,
            plan=plan,
            args={name: public_args(model) for name, model in config.monitor_args.items()},
        )
        write_record(layout, record)
        config = config.handed(HandOver(run_id=record.run_id, nonce=record.nonce, plan=plan))
        return config, WriterSession(config, LAUNCH, run_config, header)
    finally:
        end(launching, "finished")


def _alive(layout: Layout, launcher: Session) -> str:
    """That a launcher is alive, and what to do."""
    owner = launcher.owner()
    if owner == this_process():  # the cell of a notebook that was run again
        return (
            f"monitor_dir {layout.root}: this process has launched a job there and not closed it. Close that first "
            "(`close` of the job, or `finish` of what rolecall.init returned), or use another monitor_dir"
        )
    return (
        f"monitor_dir {layout.root}: a launcher is alive there ({owner or 'another process'}). Stop it, or use another "
        "monitor_dir"
    )


def _goes_on(config: MonitorConfig, before: RunRecord | None, *, is_finished: bool) -> bool:
    """Whether the job that was in the directory before goes on."""
    if config.resume == "must" and (before is None or is_finished):
        what = "the job there is finished" if before else "no job is there"
        raise DirectoryError(f"resume: must: {what} ({config.monitor_dir}); use resume: auto to start a new one")
    if before is None or config.resume == "never" or (config.resume == "auto" and is_finished):
        return False
    for setting in ("project", "run_id"):
        value, there = getattr(config, setting), getattr(before, setting)
        if value not in (None, there):
            what = f"monitor_dir {config.monitor_dir} holds a job with {setting} {there!r}, not {value!r}"
            advice = "to go on with it, or another monitor_dir (or resume: never) to start a new one"
            raise ConfigError(f"{setting}: {what}. Use {setting} {there!r} {advice}")
    return True


def _set_aside(layout: Layout, before: RunRecord) -> None:
    """Move what is ours below `previous/`, where it stays a monitor_dir of its own."""
    # A courier that still drains would go on below the new job: give it a moment to end.
    deadline = time.monotonic() + timings.QUIET_TIMEOUT
    while (busy := next(_busy(layout, before), None)) is not None:
        if time.monotonic() >= deadline:
            what = f"monitor_dir {layout.root}: {busy} of the earlier job {before.run_id} is still at work"
            raise WriterConflict(f"{what}. Wait for it to end, stop it, or use another monitor_dir")
        time.sleep(timings.POLL_INTERVAL)
    path = layout.previous(before.run_id)
    names = (f"{path.name}-{number}" if number > 1 else path.name for number in itertools.count(1))
    target = next(free for free in map(path.with_name, names) if not free.exists())
    target.mkdir(parents=True)
    for name in _OURS:
        if (layout.root / name).exists():
            (layout.root / name).rename(target / name)


def _busy(layout: Layout, before: RunRecord) -> Iterator[str]:
    """The live roles and couriers of an earlier job."""
    yield from (f"role {writer}" for writer in layout.writers() if is_held(layout.journal(writer)))
    for writer, plan in itertools.product((*layout.writers(), LAUNCH), before.plan.backends):
        if is_carried(layout, plan.backend, writer):
            yield f"the courier of {writer} to {plan.backend}"
