"""Launch a job, join it as a role, or do both at once."""

import logging
import os
import random
import sys
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from rolecall import timings
from rolecall.backends.builtin import LOCAL
from rolecall.config.commands import command
from rolecall.config.model import MonitorConfig, directory_name
from rolecall.config.plan import Plan
from rolecall.config.redact import shown
from rolecall.config.resolve import resolve
from rolecall.config.spec import HandOver
from rolecall.errors import ConfigError, DirectoryError, RolecallError, WriterConflict
from rolecall.job.monitor import Close, Monitor, close_forgotten
from rolecall.job.normalize import LONGEST_TAG
from rolecall.job.place import launchers_place
from rolecall.job.session import WriterSession
from rolecall.job.status import WriterState, read_writers, wait_for_writers
from rolecall.states import Status, status_of
from rolecall.store.acks import is_carried, is_left
from rolecall.store.layout import LAUNCH, SINGLE, Layout, RunRecord, read_record, usable, writer_name
from rolecall.store.lease import is_held, is_shown_held

logger = logging.getLogger("rolecall")

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


def init(  # noqa: PLR0913 - one for each setting, all but three by name
    project: str | None = None,
    config: object = None,
    name: str | None = None,
    *,
    monitor_type: str | list[str] | None = None,
    monitor_args: Mapping[str, Any] | None = None,
    monitor_dir: str | os.PathLike[str] | None = None,
    tags: Sequence[str] = (),
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
        tags: labels of the run; `Monitor.tags` changes them.

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
    monitor = _open(loaded, SINGLE, config, _checked_tags(tags), primary=True, is_single=True)
    if not loaded.disabled and os.environ.get("ROLECALL_LOG") != "error":
        root = loaded.monitor_dir
        # A path that a person recognises, where the run is below the working directory.
        shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
        where = monitor.url or command("show", shown)
        print(f"rolecall: {project}/{name} -> {where}", file=sys.stderr)  # noqa: T201 - a notebook shows it too
    return monitor


def _checked_tags(tags: object) -> tuple[str, ...]:
    given = (tags,) if isinstance(tags, str) else tuple(tags) if isinstance(tags, Iterable) else (tags,)
    for tag in given:
        if not isinstance(tag, str) or not 0 < len(tag) <= LONGEST_TAG or not tag.isprintable() or tag.isspace():
            raise ConfigError(f"tags: {shown(tag)}: must be strings of 1 to {LONGEST_TAG} printable characters")
    return given


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
    return _launch(config, run_config)


def _launch(config: object, run_config: object = None, *, is_single: bool = False) -> Job:
    config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
    plan = resolve(config, is_single=is_single)
    if plan.disabled:
        return Job(config, plan, None)
    for downgrade in plan.downgrades:
        logger.warning("%s", downgrade)
    return _begin(config, plan, run_config)


def _begin(config: MonitorConfig, plan: Plan, run_config: object = None, *, by_any: bool = False) -> Job:
    """Take the launcher's place, and open the primary runs.

    Args:
        config: checked.
        plan: what will happen.
        run_config: as in `launch`.
        by_any: whether any role may have launched, and the last one to leave ends the runs.
    """
    header = {"ends": "with the last role"} if by_any else {}
    with launchers_place(config, plan) as own:
        session = WriterSession(own, LAUNCH, run_config, header)
    session.wait_opened()
    return Job(own, plan, session)


def open_monitor(
    config: object,
    role: str,
    rank: int | None = None,
    primary: bool | Literal["auto"] = False,
    run_config: object = None,
) -> Monitor:
    """Join a job as a role.

    Args:
        config: `job.config` of the launcher. A role that has only the user's config, as under torchrun, finds the
            job in `monitor_dir` and waits for its primary.
        role: letters, digits, `.`, `_` and `-`.
        rank: tells processes of one role apart; in a shared run their keys and axes are then `{role}/{rank}/...`.
        primary: also do what `launch` does, for jobs without a launcher. With `"auto"`, processes that are started
            separately share a job: the first one launches it, the others join, and the last one to leave ends its
            runs. A process that comes later goes on in the same runs.
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
    if primary == "auto" and not config.disabled:
        return _open_any(config, writer, run_config)
    return _open(config, writer, run_config, primary=bool(primary))


def _open(
    config: MonitorConfig,
    writer: str,
    run_config: object,
    tags: Sequence[str] = (),
    *,
    primary: bool,
    is_single: bool = False,
) -> Monitor:
    """Join a job, which is launched first for a primary."""
    if config.disabled:
        monitor = Monitor(writer)
        monitor.tags |= set(tags)
        return monitor
    job = _launch(config, is_single=is_single) if primary else None
    try:
        own = job.config if job else config
        return _join(own, _meet(own), writer, run_config, [job.close] if job else [], tags)
    except BaseException:
        if job is not None:
            job.close("failed")
        raise


def _open_any(config: MonitorConfig, writer: str, run_config: object) -> Monitor:
    """Launch a job, or join the one that another process has launched."""
    part = _Part(config, resolve(config))
    record = part.find()
    try:
        monitor = _join(part.config, record, writer, run_config, [part.leave])
    except BaseException:
        part.abandon()
        raise
    try:
        # The launcher may have left in between, and its courier may have looked for roles before this one was there.
        if not is_held(Layout(config.monitor_dir).journal(LAUNCH)):
            part.find()
    except BaseException:
        monitor.close("failed")
        raise
    return monitor


class _Part:
    """What one process does for a job that any of its processes may launch.

    Args:
        config: the user's.
        plan: what happens with it here.

    Attributes:
        config: as given, or with what this process has launched.
    """

    def __init__(self, config: MonitorConfig, plan: Plan) -> None:
        self.config = config
        self._plan = plan
        self._job: Job | None = None

    def find(self) -> RunRecord:
        """The record of the job that another process has launched, or else this one launches now.

        Raises:
            ConfigError: the other one's is another job.
        """
        found = _launched(self.config, self._plan)
        if isinstance(found, RunRecord):
            _agree(self.config, found)
            return found
        self._job, self.config = found, found.config
        for downgrade in self._plan.downgrades:
            logger.warning("%s", downgrade)
        return _meet(found.config)

    def abandon(self) -> None:
        """The process could not join; what it has launched ends as failed."""
        if self._job is not None:
            self._job.leave("failed", timings.CLOSE_TIMEOUT)

    def leave(self, status: Status, timeout: float) -> None:
        """The process leaves; as the last one it ends the runs."""
        if self._job is not None:
            _leave_launched(self._job, status, timeout)
        else:
            _leave(self.config, self._plan, status, timeout)


def _launched(config: MonitorConfig, plan: Plan) -> Job | RunRecord:
    """The job that this process launched, or the record of another one's."""
    layout = Layout(config.monitor_dir)
    deadline = time.monotonic() + timings.JOIN_TIMEOUT
    while True:
        with usable(layout):
            before = read_record(layout)
        resume = "allow" if before is None or before.name == config.name else "never"
        try:
            return _begin(config.model_copy(update={"resume": resume}), plan, by_any=True)
        except WriterConflict:
            # A launcher writes its record before it shows that it is there.
            if is_shown_held(layout.journal(LAUNCH)) and (record := read_record(layout)) is not None:
                return record
            if time.monotonic() >= deadline:
                raise
            time.sleep(timings.POLL_INTERVAL)


def _agree(config: MonitorConfig, record: RunRecord) -> None:
    """Refuse to share a job that is another one."""
    given = {"project": config.project, "name": config.name, "monitor_type": sorted(config.monitor_args)}
    there = {
        "project": record.project,
        "name": record.name,
        "monitor_type": sorted(plan.backend for plan in record.plan.backends),
    }
    for setting, value in given.items():
        if value != there[setting]:
            what = f"the job that runs in monitor_dir {config.monitor_dir} has {there[setting]!r}, not {value!r}"
            raise ConfigError(f"{setting}: {what}. Use the same, or another monitor_dir")


def _leave_launched(job: Job, status: Status, timeout: float) -> None:
    """The process that launched leaves; while roles are at work, its couriers wait for them."""
    layout = Layout(job.config.monitor_dir)
    job.leave(status, 0.0 if _roles_at_work(layout) else timeout)


def _leave(config: MonitorConfig, plan: Plan, status: Status, timeout: float) -> None:
    """A process that joined leaves. As the last one it ends the runs that nobody else will end."""
    layout = Layout(config.monitor_dir)
    shared = [each.backend for each in plan.backends if each.shared]
    uncarried = [backend for backend in shared if not is_carried(layout, backend, LAUNCH)]
    # After that look: a courier that ended in between has ended its run.
    is_open = any(is_left(layout, backend, LAUNCH) for backend in uncarried)
    if is_open and not (is_held(layout.journal(LAUNCH)) or _roles_at_work(layout)):
        with suppress(RolecallError):  # another process came and will do it, or `deliver` can
            _begin(config.model_copy(update={"resume": "allow"}), plan, by_any=True).leave(status, timeout)


def _roles_at_work(layout: Layout) -> bool:
    return any(is_held(layout.journal(writer)) for writer in layout.writers())


def _join(
    config: MonitorConfig,
    record: RunRecord,
    writer: str,
    run_config: object,
    closing: Sequence[Close],
    tags: Sequence[str] = (),
) -> Monitor:
    plan = _plan_here(config, record.plan)
    config = config.handed(HandOver(run_id=record.run_id, nonce=record.nonce, plan=plan))
    session = WriterSession(config, writer, run_config, tags=tags)
    session.wait_opened()
    return Monitor(
        writer,
        session.journal,
        session.events,
        run_id=record.run_id,
        raises=config.on_backend_error == "raise",
        closing=[session.close, *closing],
        backends=[each.backend for each in plan.backends],
        secrets=config.secrets,
    )


def _meet(config: MonitorConfig) -> RunRecord:
    """The record that the launcher left."""
    layout = Layout(config.monitor_dir)
    with usable(layout):
        return _find_record(layout, config)


def _find_record(layout: Layout, config: MonitorConfig) -> RunRecord:
    if config.hand_over is not None:
        record = read_record(layout)
        if record is None or record.nonce != config.hand_over.nonce:
            what = "this is not the directory that the launcher wrote to. Put it on a filesystem that all roles share"
            raise DirectoryError(f"monitor_dir {layout.root}: {what}")
        return record
    # Under torchrun all ranks start at once: rank 0 launches, the others find its record.
    deadline = time.monotonic() + timings.JOIN_TIMEOUT
    while time.monotonic() < deadline:
        if is_shown_held(layout.journal(LAUNCH)) and (record := read_record(layout)) is not None:
            return record
        time.sleep(timings.POLL_INTERVAL)
    advice = "start it with rolecall.launch and pass on job.config, or open one role with primary=True"
    raise ConfigError(f"no job runs in monitor_dir {layout.root} (waited {timings.JOIN_TIMEOUT:.0f} s): {advice}")


def _plan_here(config: MonitorConfig, plan: Plan) -> Plan:
    """The launcher's plan, less what the node of this role lacks."""
    here = resolve(config, is_single=True)  # whether its run exists already was settled by the launcher
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
