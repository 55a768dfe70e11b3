"""Launch a job, join it as a role, or do both at once."""

from __future__ import annotations

import itertools
import logging
import os
import random
import sys
import time
import uuid
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rolecall.backends.builtin import LOCAL
from rolecall.config.commands import command
from rolecall.config.model import MonitorConfig, directory_name
from rolecall.config.plan import BackendPlan, Plan
from rolecall.config.redact import public_args
from rolecall.config.resolve import resolve
from rolecall.config.spec import HandOver
from rolecall.errors import ConfigError, DirectoryError, WriterConflict
from rolecall.job.monitor import Monitor
from rolecall.job.session import WriterSession
from rolecall.job.status import WriterState, read_writers, run_with_timeout, wait_for_writers
from rolecall.states import State, Status, status_at_exit, status_of
from rolecall.store.acks import is_carried
from rolecall.store.layout import LAUNCH, SINGLE, Layout, RunRecord, read_record, write_record, writer_name
from rolecall.store.lease import claim, end, newest
from rolecall.timings import (
    CLOSE_TIMEOUT,
    DIRECTORY_TIMEOUT,
    FORGOTTEN_TIMEOUT,
    JOIN_TIMEOUT,
    POLL_INTERVAL,
    QUIET_TIMEOUT,
)

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
        self._forgotten = weakref.finalize(self, _close_forgotten, session)

    def __repr__(self) -> str:
        names = ", ".join(each.backend for each in self.plan.backends) or "off"
        return f"<Job {self.config.name!r} of project {self.config.project!r}, run {self.run_id!r}: {names}>"

    @property
    def run_id(self) -> str | None:
        """rolecall's name of the run; `None` if monitoring is off."""
        return self.config.run_id

    @property
    def urls(self) -> Mapping[str, str | None]:
        """Where a person looks at the shared runs, for each backend that has opened by now."""
        return dict(self._session.events.urls) if self._session else {}

    @property
    def writers(self) -> list[WriterState]:
        """What became of every role that has opened by now, on any node."""
        return read_writers(Layout(self.config.monitor_dir)) if self._session else []

    def close(self, status: Status = "finished", timeout: float = CLOSE_TIMEOUT, wait: float = 0.0) -> None:
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
        layout = Layout(self.config.monitor_dir)
        states = run_with_timeout(wait + DIRECTORY_TIMEOUT, lambda: wait_for_writers(layout, wait)) or []
        open_roles = [str(each) for each in states if not each.closed]
        if open_roles:
            logger.warning("closing the job with roles that did not close: %s", "; ".join(open_roles))
        self._session.close(status, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(status_of(error))


def init(
    project: str | None = None,
    config: Mapping[str, Any] | None = None,
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
        config: the run's config, kept with it; secrets are scrubbed.
        name: the run's display name; generated if not given.
        monitor_type: the backend, or several; by default `ROLECALL_MONITOR_TYPE`, or else `local`.
        monitor_args: the arguments of the backend.
        monitor_dir: where the journal is; by default `{project}/{name}` below `ROLECALL_DIR`, or else below
            `rolecall` in the working directory.

    Raises:
        ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `launch` does.
    """
    name = name or _memorable_name()
    project = project or Path.cwd().name or "rolecall"
    settings: dict[str, Any] = {
        "project": project,
        "name": name,
        "monitor_type": monitor_type or _monitor_types() or LOCAL,
        "monitor_args": dict(monitor_args or {}),
        "resume": "never",
    }
    parent = os.environ.get("ROLECALL_DIR")
    if monitor_dir is not None:
        settings["monitor_dir"] = os.fspath(monitor_dir)
    elif parent:
        settings["monitor_dir"] = Path(parent, directory_name(project), directory_name(name))
    loaded = MonitorConfig.load(settings)
    monitor = open_monitor(loaded, SINGLE, primary=True, run_config=config)
    if not loaded.disabled and os.environ.get("ROLECALL_LOG") != "error":
        root = loaded.monitor_dir
        # A path that a person recognises, where the run is below the working directory.
        shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
        where = monitor.url or command("show", shown)
        print(f"rolecall: {project}/{name} -> {where}", file=sys.stderr)  # noqa: T201 - a notebook shows it too
    return monitor


def launch(config: object, run_config: Mapping[str, Any] | None = None) -> Job:
    """Check a config, open the primary runs, and make the config that roles need.

    Args:
        config: what the user wrote: a `MonitorConfig`, or what `MonitorConfig.load` takes.
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
    config, session = _begin(config, plan, run_config)
    session.wait_opened()
    return Job(config, plan, session)


def open_monitor(
    config: object,
    role: str,
    rank: int | None = None,
    primary: bool = False,
    run_config: Mapping[str, Any] | None = None,
) -> Monitor:
    """Join a job as a role.

    Args:
        config: `job.config` of the launcher. A role that has only the user's config, as under torchrun, finds the
            job in `monitor_dir` and waits for its primary.
        role: letters, digits, `.`, `_` and `-`.
        rank: tells processes of one role apart; in a shared run their keys and axes are then `{role}/{rank}/...`.
        primary: also do what `launch` does, for jobs without a launcher.
        run_config: this role's config, kept with the run; secrets are scrubbed.

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


def _join(config: MonitorConfig, writer: str, run_config: Mapping[str, Any] | None, job: Job | None) -> Monitor:
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
        closing=[session] if job is None else [session, job],
    )


def _meet(config: MonitorConfig) -> RunRecord:
    """The record that the launcher left."""
    layout = Layout(config.monitor_dir)
    if config.hand_over is None:
        return _await_primary(layout)
    record = read_record(layout)
    if record is None or record.nonce != config.hand_over.nonce:
        raise DirectoryError(
            f"monitor_dir {layout.root}: the launcher's mark is not here, so this is not the directory that the "
            f"launcher wrote to. Put monitor_dir on a filesystem that all roles share"
        )
    return record


def _await_primary(layout: Layout) -> RunRecord:
    """Under torchrun all ranks start at once: rank 0 launches, the others find its record."""
    deadline = time.monotonic() + JOIN_TIMEOUT
    while time.monotonic() < deadline:
        launcher = newest(layout.journal(LAUNCH))
        if launcher is not None and launcher.is_live() and (record := read_record(layout)) is not None:
            return record
        time.sleep(POLL_INTERVAL)
    raise ConfigError(
        f"no job is running in monitor_dir {layout.root} (waited {JOIN_TIMEOUT:.0f} s): start it with "
        f"rolecall.launch and pass on job.config, or open one role with primary=True"
    )


def _plan_here(config: MonitorConfig, plan: Plan) -> Plan:
    """The launcher's plan, less what the node of this role lacks."""
    here = resolve(config)
    for downgrade in here.downgrades:
        if downgrade not in plan.downgrades:
            logger.warning("on this node: %s", downgrade)
    couriers = {each.backend: each.courier for each in here.backends}
    backends = tuple(
        BackendPlan(
            backend=each.backend, shared=each.shared and here.shared(each.backend), courier=couriers[each.backend]
        )
        for each in plan.backends
        if each.backend in couriers
    )
    return Plan(backends=backends, downgrades=here.downgrades)


def _monitor_types() -> list[str]:
    """The backends that the environment names."""
    given = os.environ.get("ROLECALL_MONITOR_TYPE", "").split(",")
    return [name.strip() for name in given if name.strip()]


def _memorable_name() -> str:
    # The job's own random state is not touched.
    chance = random.Random()
    return f"{chance.choice(_ADJECTIVES)}-{chance.choice(_NOUNS)}-{chance.randrange(1000):03}"


def _begin(
    config: MonitorConfig, plan: Plan, run_config: Mapping[str, Any] | None
) -> tuple[MonitorConfig, WriterSession]:
    """Take the launcher's place. Other launchers are kept out until it is clear which job goes on."""
    layout = Layout(config.monitor_dir)
    try:
        launching = claim(layout.launching, {}, "the launcher's place")
    except OSError as error:
        raise DirectoryError(
            f"monitor_dir {layout.root}: cannot be written: {error.strerror}; choose one that can"
        ) from error
    try:
        launcher = newest(layout.journal(LAUNCH))
        if launcher is not None and launcher.is_live():
            raise WriterConflict(
                f"monitor_dir {layout.root}: a launcher is alive there ({launcher.owner() or 'another process'}). Stop "
                f"it, or use another monitor_dir"
            )
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


def _goes_on(config: MonitorConfig, before: RunRecord | None, *, is_finished: bool) -> bool:
    """Whether the job that was in the directory before goes on."""
    if config.resume == "must" and (before is None or is_finished):
        what = "the job there is finished" if before else "no job is there"
        raise DirectoryError(
            f"resume: must: {what} (monitor_dir {config.monitor_dir}); use resume: auto to start a new one"
        )
    if before is None or config.resume == "never" or (config.resume == "auto" and is_finished):
        return False
    for setting, value, there in (
        ("project", config.project, before.project),
        ("run_id", config.run_id or before.run_id, before.run_id),
    ):
        if value != there:
            raise ConfigError(
                f"{setting}: monitor_dir {config.monitor_dir} holds an unfinished job with {setting} {there!r}, not "
                f"{value!r}. Use {setting} {there!r} to go on with it, or another monitor_dir (or resume: never) to "
                f"start a new one"
            )
    return True


def _set_aside(layout: Layout, before: RunRecord) -> None:
    """Move what is ours below `previous/`, where it stays a monitor_dir of its own."""
    # A courier that still drains would go on below the new job: give it a moment to end.
    deadline = time.monotonic() + QUIET_TIMEOUT
    while (busy := next(_busy(layout, before), None)) is not None:
        if time.monotonic() >= deadline:
            raise WriterConflict(
                f"monitor_dir {layout.root}: {busy} of the earlier job {before.run_id} is still at work. Wait for it "
                f"to end, stop it, or use another monitor_dir"
            )
        time.sleep(POLL_INTERVAL)
    path = layout.previous(before.run_id)
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    target = next(free for free in itertools.chain((path,), numbered) if not free.exists())
    target.mkdir(parents=True)
    for name in _OURS:
        if (layout.root / name).exists():
            (layout.root / name).rename(target / name)


def _busy(layout: Layout, before: RunRecord) -> Iterator[str]:
    """The live roles and couriers of an earlier job."""
    for writer in layout.writers():
        session = newest(layout.journal(writer))
        if session is not None and session.is_live():
            yield f"role {writer}"
    for writer, plan in itertools.product((*layout.writers(), LAUNCH), before.plan.backends):
        if is_carried(layout, plan.backend, writer):
            yield f"the courier of {writer} to {plan.backend}"


def _close_forgotten(session: WriterSession | None) -> None:
    """Nobody closed it: the interpreter ends, or the job was dropped."""
    if session is not None:
        warnings.warn("the job of rolecall.launch was never closed", ResourceWarning, stacklevel=2)
        session.close(status_at_exit(), FORGOTTEN_TIMEOUT)
