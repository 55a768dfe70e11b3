"""Launch a job, join it as a role, or both."""

import logging
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

from rolecall import timings
from rolecall.config.environment import follow_log_level, later_node
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.resolve import resolve
from rolecall.config.spec import HandOver
from rolecall.delivery.relay import transport
from rolecall.errors import ConfigError, DirectoryError, RolecallError, WriterConflict
from rolecall.job.monitor import Close, Monitor, close_forgotten
from rolecall.job.normalize import LONGEST_KEY
from rolecall.job.output.bar import bar
from rolecall.job.output.lines import JobPrinter
from rolecall.job.place import launchers_place
from rolecall.job.session import WriterSession
from rolecall.job.single.probe import SystemProbe
from rolecall.job.status import WriterState, read_writers, wait_for_writers
from rolecall.states import Status, status_of
from rolecall.store.acks import is_carried, is_left, read_reference
from rolecall.store.layout import LAUNCH, SINGLE, Layout, RunRecord, read_record, usable, writer_name
from rolecall.store.lease import is_held, is_shown_held

logger = logging.getLogger("rolecall")


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
        self._printer = JobPrinter(config.name, config.monitor_dir, plan)
        closing = [partial(_end_job, session, self._printer)] if session else []
        self._forgotten = weakref.finalize(self, close_forgotten, "the job of launch", closing)

    def __repr__(self) -> str:
        names = ", ".join(each.backend for each in self.plan.backends) or "off"
        return f"<Job {self.config.name!r} of project {self.config.project!r}, run {self.run_id!r}: {names}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: where to look."""
        return self._printer.html(self.urls) if self._session else "monitoring is off"

    @property
    def run_id(self) -> str | None:
        """rolecall's name of the run; `None` if monitoring is off."""
        return self.config.run_id

    def report_start(self, urls: Mapping[str, str | None] | None = None) -> None:
        """Print where to look; `urls` are those of the only role, which knows more than the launcher does."""
        if self._session is not None:
            self._printer.report_start(urls or self.urls)

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
            with bar(self._printer.roles):
                # What roles logged may still be on their nodes, with how they ended.
                transport.settle(self.config, timeout)
                states = wait_for_writers(Layout(self.config.monitor_dir), wait)
            if open_roles := [str(each) for each in states if not each.closed]:
                logger.warning("closing the job with roles that did not close: %s", "; ".join(open_roles))
        self.leave(status, timeout)

    def leave(self, status: Status, timeout: float, *, reports: bool = True) -> None:
        """Close the job, whatever the roles do; their couriers end the runs after them.

        Args:
            status: as in `close`.
            timeout: as there.
            reports: whether to print what was recorded.
        """
        if self._forgotten.detach() and self._session is not None:
            _end_job(self._session, self._printer if reports else None, status, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error))


def _end_job(session: WriterSession, printer: JobPrinter | None, status: Status, timeout: float) -> None:
    """End the launcher's session, and report it with the `printer`, if there is one."""
    if printer is None:
        session.close(status, timeout)
        return
    with bar(printer.delivery):
        session.close(status, timeout)
    if session.is_own:
        printer.report_end()


def launch(config: object, run_config: object = None) -> Job:
    """Check a config, open the primary runs, and make the config that roles need.

    Prints one line on standard error that says where to look, and closing the job prints one that says what was
    recorded. `ROLECALL_LOG=error` silences both.

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
    job = _launch(config if isinstance(config, MonitorConfig) else MonitorConfig.load(config), run_config)
    job.report_start()
    return job


def _launch(config: MonitorConfig, run_config: object = None, *, is_single: bool = False) -> Job:
    """The same, without the line."""
    plan = resolve(config, is_single=is_single)
    if plan.disabled:
        return Job(config, plan, None)
    follow_log_level()
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
    hub = transport.hub_of(config)
    with launchers_place(config, plan, hub) as own:
        session = WriterSession(own, LAUNCH, run_config, header)
    try:
        transport.start(own)
    except BaseException:
        session.close("failed", 0.0, quiet=True)
        raise
    session.wait_opened(draws=True)
    return Job(own, plan, session)


def open_monitor(  # noqa: PLR0913 - the last two by name
    config: object,
    role: str,
    rank: int | None = None,
    primary: bool | Literal["auto"] = False,
    run_config: object = None,
    *,
    prefix: str | None = None,
    open_timeout: float | None = None,
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
        prefix: put before each key, such as `train/`; `""` for bare keys. Several roles may share one. By default
            it is `{role}/` or `{role}/{rank}/` in a run of several roles, and nothing in a run of the role's own.
        open_timeout: seconds to wait for the launcher, if the config is not its own, and then for each backend. By
            default 60 for the launcher, and for the backends the config's `open_timeout`, or that for both if it is
            longer. After 2 s of waiting for a launcher there is a warning.

    Raises:
        ConfigError: the role's name, its prefix, or the config.
        DirectoryError: `monitor_dir` is not the launcher's, or cannot be written.
        WriterConflict: a live process has this role and rank.
        BackendError: a backend is not installed where this role runs.
        BackendRefused: a backend said no.
    """
    config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
    if open_timeout is None:
        patience = max(timings.JOIN_TIMEOUT, config.open_timeout)
    else:
        patience, config = open_timeout, config.with_open_timeout(open_timeout)
    asked = _Role(writer_name(role, rank), run_config, _header(prefix), patience=patience)
    if primary == "auto" and config.transport == "ray":
        what = 'roles with primary: "auto" find one another in monitor_dir, which they would not share'
        raise ConfigError(f"transport: ray: {what}; use rolecall.launch, and pass on job.config")
    if primary == "auto" and not config.disabled:
        return _open_any(config, asked)
    return _open(config, asked, primary=bool(primary))


@dataclass(frozen=True, slots=True)
class _Role:
    """A role that is to be opened.

    Attributes:
        writer: its name in the job.
        run_config: its own config.
        header: what the first line of its session says of it.
        tags: labels of the run.
        is_single: whether it is the only role of its job.
        patience: seconds to wait for a launcher.
    """

    writer: str
    run_config: object
    header: Mapping[str, Any]
    tags: Sequence[str] = ()
    is_single: bool = False
    patience: float = timings.JOIN_TIMEOUT


def open_single(config: MonitorConfig, run_config: object, tags: Sequence[str]) -> Monitor:
    """Launch a job and join it as its only role, whose keys are bare."""
    return _open(config, _Role(SINGLE, run_config, {"prefix": ""}, tags, is_single=True), primary=True)


def _open(config: MonitorConfig, role: _Role, *, primary: bool) -> Monitor:
    """Join a job, which is launched first for a primary."""
    if config.disabled:
        monitor = Monitor(role.writer)
        monitor.tags |= set(role.tags)
        return monitor
    follow_log_level()
    job = _launch(config, is_single=role.is_single) if primary else None
    try:
        own = job.config if job else config
        closing = [job.close] if job else []
        if transport.is_away(own):
            monitor = _join_over_ray(own, role, closing)
        else:
            monitor = _join(own, _meet(own, role.writer, role.patience), role, closing)
    except BaseException:
        if job is not None:
            job.leave("failed", timings.CLOSE_TIMEOUT, reports=False)
        raise
    if job is not None:
        job.report_start(monitor.urls)
    return monitor


def _header(prefix: str | None) -> Mapping[str, Any]:
    """What the first line of a role's session says of it."""
    if prefix is None:
        return {}
    given: object = prefix
    if not isinstance(given, str) or len(given) > LONGEST_KEY or not given.isprintable():
        raise ConfigError(
            f"prefix: {given!r} is no prefix of keys: it must be a string of at most {LONGEST_KEY} printable "
            'characters, such as "train/", or "" for bare keys'
        )
    return {"prefix": str.__str__(given)}


def _open_any(config: MonitorConfig, role: _Role) -> Monitor:
    """Launch a job, or join the one that another process has launched."""
    follow_log_level()
    part = _Part(config, resolve(config), role.writer, role.patience)
    record = part.find()
    try:
        monitor = _join(part.config, record, role, [part.leave])
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
    part.report_start(monitor.urls)
    return monitor


class _Part:
    """What one process does for a job that any of its processes may launch.

    Args:
        config: the user's.
        plan: what happens with it here.
        writer: the role that it opens.
        patience: how many seconds to wait for another process that is about to launch.

    Attributes:
        config: as given, or with what this process has launched.
    """

    def __init__(self, config: MonitorConfig, plan: Plan, writer: str, patience: float) -> None:
        self.config = config
        self._plan = plan
        self._writer = writer
        self._patience = patience
        self._job: Job | None = None

    def find(self) -> RunRecord:
        """The record of the job that another process has launched, or else this one launches now.

        Raises:
            ConfigError: the other one's is another job.
        """
        found = _launched(self.config, self._plan, self._writer, self._patience)
        if isinstance(found, RunRecord):
            _agree(self.config, found)
            return found
        self._job, self.config = found, found.config
        for downgrade in self._plan.downgrades:
            logger.warning("%s", downgrade)
        return _meet(found.config, self._writer, self._patience)

    def report_start(self, urls: Mapping[str, str | None]) -> None:
        """Print where to look, if this process has launched the job."""
        if self._job is not None:
            self._job.report_start(urls)

    def abandon(self) -> None:
        """The process could not join; what it has launched ends as failed."""
        if self._job is not None:
            self._job.leave("failed", timings.CLOSE_TIMEOUT, reports=False)

    def leave(self, status: Status, timeout: float) -> None:
        """The process leaves; as the last one it ends the runs."""
        if self._job is not None:
            _leave_launched(self._job, status, timeout)
        else:
            _leave(self.config, self._plan, status, timeout)


def _launched(config: MonitorConfig, plan: Plan, writer: str, patience: float) -> Job | RunRecord:
    """The job that this process launched, or the record of another one's."""
    layout = Layout(config.monitor_dir)
    looks = _looks(layout, writer, patience)
    while True:
        with usable(layout):
            before = read_record(layout)
        if before is None and (node := later_node()) and "/" in writer:
            # Were its directory its own, it would launch a second job. A role without a rank may be on one node only.
            if next(looks, "over") == "over":
                raise DirectoryError(_not_shared(layout, node, patience))
            continue
        resume = "allow" if before is None or before.name == config.name else "never"
        try:
            return _begin(config.model_copy(update={"resume": resume}), plan, by_any=True)
        except WriterConflict:
            # A launcher writes its record before it shows that it is there.
            if is_shown_held(layout.journal(LAUNCH)) and (record := read_record(layout)) is not None:
                return record
            if next(looks, "over") == "over":
                raise


def _not_shared(layout: Layout, node: str, patience: float) -> str:
    """That a node does not see what the first node launched, and what to do."""
    what = f"a rank on torchrun's first node launches the job, but node {node} saw none here (waited {patience:.0f} s)"
    advice = "Put monitor_dir on a filesystem that all nodes share. If no rank of the first node opens a role, use "
    return f"monitor_dir {layout.root}: {what}. {advice}primary=True in one rank of another node"


def _looks(layout: Layout, writer: str, patience: float) -> Iterator[None]:
    """One item for each look for a launcher, for `patience` seconds; after the first 2 s there is a warning."""
    began, is_reported = time.monotonic(), False
    while (waited := time.monotonic() - began) < patience:
        if waited >= timings.NOTICE and not is_reported:
            is_reported = True
            where = f"monitor_dir {layout.root}"
            logger.warning("%s: waiting up to %.0f s for a launcher in %s", writer, patience, where)
        yield
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
    is_last = not _roles_at_work(layout)
    job.leave(status, timeout if is_last else 0.0, reports=is_last)


def _leave(config: MonitorConfig, plan: Plan, status: Status, timeout: float) -> None:
    """A process that joined leaves. As the last one it ends the runs that nobody else will end."""
    layout = Layout(config.monitor_dir)
    shared = [each.backend for each in plan.backends if each.has_one_run and each.courier != "none"]
    uncarried = [backend for backend in shared if not is_carried(layout, backend, LAUNCH)]
    # After that look: a courier that ended in between has ended its run.
    is_open = any(is_left(layout, backend, LAUNCH) for backend in uncarried)
    if is_held(layout.journal(LAUNCH)) or _roles_at_work(layout):
        return
    if not is_open:
        JobPrinter(config.name, config.monitor_dir, plan).report_end()
        return
    with suppress(RolecallError):  # another process came and will do it, or `deliver` can
        _begin(config.model_copy(update={"resume": "allow"}), plan, by_any=True).leave(status, timeout)


def _roles_at_work(layout: Layout) -> bool:
    return any(is_held(layout.journal(writer)) for writer in layout.roles())


def _join(config: MonitorConfig, record: RunRecord, role: _Role, closing: Sequence[Close]) -> Monitor:
    plan = _plan_here(config, record.plan)
    # What the only process of a job measures are rows of its own, so that they are in its run: it needs no agent.
    measures = role.is_single and plan.system_metrics
    handed = replace(plan, system_metrics=plan.system_metrics and not measures)
    config = config.handed(HandOver(run_id=record.run_id, nonce=record.nonce, plan=handed))
    session = WriterSession(config, role.writer, role.run_config, role.header, role.tags)
    # Several roles on one terminal would draw over each other: those do not draw that have a launcher.
    session.wait_opened(draws=bool(closing))
    for each in plan.backends:
        # A role hears nothing from its relay.
        if each.relayed and (reference := read_reference(Layout(config.monitor_dir), each.backend, LAUNCH)):
            session.events.urls.setdefault(each.backend, reference.url)
    printer = JobPrinter(config.name, config.monitor_dir, plan)
    if measures:
        closing = [_start_probe(config, session, role.writer).close, partial(_close_drawn, session, printer), *closing]
    elif closing:
        closing = [partial(_close_drawn, session, printer), *closing]
    return _monitor(config, session, role.writer, closing or [session.close], printer)


def _start_probe(config: MonitorConfig, session: WriterSession, writer: str) -> SystemProbe:
    plans = config.spec().plan.backends
    others = [each.backend for each in plans if not each.measures]
    log = Layout(config.monitor_dir).courier_log(f"{writer}@system")
    return SystemProbe(session.journal, log, None if len(others) == len(plans) else others)


def _join_over_ray(config: MonitorConfig, role: _Role, closing: Sequence[Close]) -> Monitor:
    """Join a job whose directory is on another node; nothing is asked of that but a name."""
    session = WriterSession(config, role.writer, role.run_config, role.header, role.tags, over_ray=True)
    printer = JobPrinter(config.name, config.monitor_dir, config.spec().plan)
    return _monitor(config, session, role.writer, [session.close, *closing], printer)


def _monitor(
    config: MonitorConfig, session: WriterSession, writer: str, closing: Sequence[Close], printer: JobPrinter
) -> Monitor:
    spec = config.spec()
    return Monitor(
        writer,
        session.journal,
        session.events,
        run_id=spec.run_id,
        raises=config.on_backend_error == "raise",
        closing=closing,
        backends=[each.backend for each in spec.plan.backends],
        secrets=config.secrets,
        printer=printer,
    )


def _close_drawn(session: WriterSession, printer: JobPrinter, status: Status, timeout: float) -> None:
    with bar(printer.delivery):
        session.close(status, timeout)


def _meet(config: MonitorConfig, writer: str, patience: float) -> RunRecord:
    """The record that the launcher left."""
    layout = Layout(config.monitor_dir)
    with usable(layout):
        return _find_record(layout, config, writer, patience)


def _find_record(layout: Layout, config: MonitorConfig, writer: str, patience: float) -> RunRecord:
    if config.hand_over is not None:
        record = read_record(layout)
        if record is None or record.nonce != config.hand_over.nonce:
            what = "this is not the directory that the launcher wrote to. Put it on a filesystem that all roles share"
            raise DirectoryError(f"monitor_dir {layout.root}: {what}")
        return record
    # Under torchrun all ranks start at once: rank 0 launches, the others find its record.
    for _ in _looks(layout, writer, patience):
        if is_shown_held(layout.journal(LAUNCH)) and (record := read_record(layout)) is not None:
            return record
    advice = "start it with rolecall.launch and pass on job.config, or open one role with primary=True; open_timeout "
    advice += "changes how long a role waits"
    raise ConfigError(f"no job runs in monitor_dir {layout.root} (waited {patience:.0f} s): {advice}")


def _plan_here(config: MonitorConfig, plan: Plan) -> Plan:
    """The launcher's plan, less what the node of this role lacks."""
    if config.shared_run == "relay":
        return plan  # nothing of a backend runs here
    if config.hand_over is not None and config.hand_over.hub is None:
        config = config.model_copy(update={"transport": "files"})  # Ray may be initialised here, but was not there
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
    measured = plan.system_metrics and here.system_metrics
    return replace(plan, backends=backends, downgrades=here.downgrades, system_metrics=measured)
