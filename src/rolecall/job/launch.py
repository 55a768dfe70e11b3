"""Launch a job, join it as a role, or do both at once."""

import itertools
import logging
import os
import random
import sys
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from rolecall import timings
from rolecall.backends.builtin import LOCAL
from rolecall.config.commands import command
from rolecall.config.model import MonitorConfig, directory_name
from rolecall.config.plain import public_args
from rolecall.config.plan import Plan
from rolecall.config.resolve import resolve
from rolecall.config.spec import HandOver
from rolecall.errors import ConfigError, DirectoryError, WriterConflict
from rolecall.job.monitor import Monitor, close_forgotten
from rolecall.job.session import WriterSession, usable
from rolecall.job.status import WriterState, read_writers, wait_for_writers
from rolecall.states import State, Status, status_of
from rolecall.store.acks import is_carried
from rolecall.store.layout import LAUNCH, SINGLE, Layout, RunRecord, read_record, write_record, writer_name
from rolecall.store.lease import Session, claim, end, is_held, newest, proves_alive, this_process

logger = logging.getLogger("rolecall")

# What backends wrote goes with the job, or a new one's curves would run on from the old one's. The record goes last:
# while it is there, a launcher that dies half-way is followed by one that goes on with this.
_OURS: Final = ("journal", "axes", "delivery", "courier", "backends", "run.json")
_ADJECTIVES: Final = ("bold", "brisk", "calm", "clear", "deft", "eager", "fair", "keen", "lucid", "mild", "quiet")
_NOUNS: Final = ("basin", "birch", "cliff", "crane", "delta", "ember", "fjord", "grove", "heron", "larch")


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
        if not self._forgotten.detach() or self._session is None:
            return
        states = wait_for_writers(Layout(self.config.monitor_dir), wait)
        if open_roles := [str(each) for each in states if not each.closed]:
            logger.warning("closing the job with roles that did not close: %s", "; ".join(open_roles))
        self._session.close(status, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error))


def init(
    project: str | None = None,
    config: object = None,
    name: str | None = None,
    *,
    monitor_type: str | list[str] | None = None,
    monitor_args: Mapping[str, Any] | None = None,
    monitor_dir: str | os.PathLike[str] | None = None,
) -> Monitor:
    """Launch a job of one process, and open its only role, `main`. Close it with `finish`.

    Prints one line on standard error that says where to look; `ROLECALL_LOG=error` silences it.

    Args:
        project: where backends file the run; by default the name of the working directory.
        config: the run's config, of any kind, as `run_config` of `launch`.
        name: the run's display name; generated if not given.
        monitor_type: the backend, or several; by default `ROLECALL_MONITOR_TYPE`, or else `local`.
        monitor_args: the arguments of the backend.
        monitor_dir: where the journal is; by default `{project}/{name}` below `ROLECALL_DIR`, or else below
            `rolecall` in the working directory.

    Raises:
        ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `launch` does.
    """
    # With a generator of its own: the job's random state is not touched.
    chance = random.Random()
    name = name or f"{chance.choice(_ADJECTIVES)}-{chance.choice(_NOUNS)}-{chance.randrange(1000):03}"
    backends = [backend.strip() for backend in os.environ.get("ROLECALL_MONITOR_TYPE", "").split(",")]
    project = project or Path.cwd().name or "rolecall"
    if monitor_dir is None and (parent := os.environ.get("ROLECALL_DIR")):
        monitor_dir = Path(parent, directory_name(project), directory_name(name))
    loaded = MonitorConfig(
        project=project,
        name=name,
        monitor_type=monitor_type or [backend for backend in backends if backend] or LOCAL,
        monitor_args=monitor_args,
        monitor_dir=monitor_dir,
        resume="never",
    )
    monitor = open_monitor(loaded, SINGLE, primary=True, run_config=config)
    if not loaded.disabled and os.environ.get("ROLECALL_LOG") != "error":
        root = loaded.monitor_dir
        # A path that a person recognises, where the run is below the working directory.
        shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
        where = monitor.url or command("show", shown)
        print(f"rolecall: {project}/{name} -> {where}", file=sys.stderr)  # noqa: T201 - a notebook shows it too
    return monitor


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
    with usable(Layout(config.monitor_dir)):
        config, session = _begin(config, plan, run_config)
    session.wait_opened()
    return Job(config, plan, session)


def open_monitor(
    config: object, role: str, rank: int | None = None, primary: bool = False, run_config: object = None
) -> Monitor:
    """Join a job as a role.

    Args:
        config: `job.config` of the launcher. A role that has only the user's config, as under torchrun, finds the
            job in `monitor_dir` and waits for its primary.
        role: letters, digits, `.`, `_` and `-`.
        rank: tells processes of one role apart; in a shared run their keys and axes are then `{role}/{rank}/...`.
        primary: also do what `launch` does, for jobs without a launcher.
        run_config: this role's config, as in `launch`.

    Raises:
        ConfigError: the role's name, or the config.
        DirectoryError: `monitor_dir` is not the launcher's, or cannot be written.
        WriterConflict: a live process has this role and rank.
        BackendError: a backend is not installed where this role runs.
        BackendRefused: a backend said no.
    """
    writer = writer_name(role, rank)
    config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
    if config.disabled:
        return Monitor(writer)
    job = launch(config) if primary else None
    try:
        return _join(job.config if job else config, writer, run_config, job)
    except BaseException:
        if job is not None:
            job.close("failed")
        raise


def _join(config: MonitorConfig, writer: str, run_config: object, job: Job | None) -> Monitor:
    with usable(Layout(config.monitor_dir)):
        record = _meet(config)
    plan = _plan_here(config, record.plan)
    config = config.handed(HandOver(run_id=record.run_id, nonce=record.nonce, plan=plan))
    session = WriterSession(config, writer, run_config)
    session.wait_opened()
    return Monitor(
        writer,
        session.journal,
        session.events,
        run_id=record.run_id,
        raises=config.on_backend_error == "raise",
        closing=[session.close] if job is None else [session.close, job.close],
    )


def _meet(config: MonitorConfig) -> RunRecord:
    """The record that the launcher left."""
    layout = Layout(config.monitor_dir)
    if config.hand_over is not None:
        record = read_record(layout)
        if record is None or record.nonce != config.hand_over.nonce:
            what = "this is not the directory that the launcher wrote to. Put it on a filesystem that all roles share"
            raise DirectoryError(f"monitor_dir {layout.root}: {what}")
        return record
    # Under torchrun all ranks start at once: rank 0 launches, the others find its record.
    deadline = time.monotonic() + timings.JOIN_TIMEOUT
    while time.monotonic() < deadline:
        if is_held(layout.journal(LAUNCH)) and (record := read_record(layout)) is not None:
            return record
        time.sleep(timings.POLL_INTERVAL)
    advice = "start it with rolecall.launch and pass on job.config, or open one role with primary=True"
    raise ConfigError(f"no job runs in monitor_dir {layout.root} (waited {timings.JOIN_TIMEOUT:.0f} s): {advice}")


def _plan_here(config: MonitorConfig, plan: Plan) -> Plan:
    """The launcher's plan, less what the node of this role lacks."""
    here = resolve(config)
    for downgrade in here.downgrades:
        if downgrade not in plan.downgrades:
            logger.warning("on this node: %s", downgrade)
    couriers = {each.backend: each.courier for each in here.backends}
    backends = tuple(
        replace(each, shared=each.shared and here.shared(each.backend), courier=couriers[each.backend])
        for each in plan.backends
        if each.backend in couriers
    )
    return Plan(backends=backends, downgrades=here.downgrades)


def _begin(config: MonitorConfig, plan: Plan, run_config: object) -> tuple[MonitorConfig, WriterSession]:
    """Take the launcher's place. Other launchers are kept out until it is clear which job goes on."""
    layout = Layout(config.monitor_dir)
    launching = claim(layout.launching, {}, "the launcher's place")
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
        return config, WriterSession(config, LAUNCH, run_config)
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
