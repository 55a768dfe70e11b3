"""A writer's open session: its journal, and the couriers that deliver it. `Monitor` and `Job` each hold one."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from rolecall import timings
from rolecall.config.commands import command
from rolecall.config.model import MonitorConfig
from rolecall.config.plain import plain_config
from rolecall.delivery.events import EventLog
from rolecall.delivery.group import Assignment, CourierGroup
from rolecall.delivery.node.local import LEFT_TO_AGENT
from rolecall.errors import BackendRefused, Undelivered, raise_together
from rolecall.job.beside import CourierProcess, NodeAgent
from rolecall.job.output.bar import Progress, bar
from rolecall.job.status import look_within
from rolecall.source import source_of_process
from rolecall.states import State, Status
from rolecall.store.acks import is_carried, waiting
from rolecall.store.details import begin
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout, usable
from rolecall.store.lease import Fill, Owner, Session, claim, end, newest, succeed
from rolecall.store.spool import is_spooled, open_spool, succeed_in

logger = logging.getLogger("rolecall")

NAMED: Final = 10
"""How many values that a config is kept without are named."""


class WriterSession:
    """One writer's open session.

    Args:
        config: as the launcher handed it on, with a plan for this node.
        writer: whose session it is; `LAUNCH` for the launcher.
        run_config: the writer's own config.
        header: what the first line of the session says beside that.
        tags: the writer's first tags.
        over_ray: whether the job's directory is on another node, and this one keeps the journal.

    Attributes:
        events: what the couriers said.
        journal: where rows go.

    Raises:
        WriterConflict: another live process has this name.
        DirectoryError: the journal cannot be written.
    """

    def __init__(
        self,
        config: MonitorConfig,
        writer: str,
        run_config: object,
        header: Mapping[str, Any] = MappingProxyType({}),
        tags: Sequence[str] = (),
        *,
        over_ray: bool = False,
    ) -> None:
        self.events = EventLog(writer)
        self._config = config
        self._spec = config.spec()
        self._writer = writer
        self._over_ray = over_ray
        self._pid = os.getpid()
        self._layout = Layout(config.monitor_dir)
        self._process: CourierProcess | None = None
        self._thread: threading.Thread | None = None
        self._agent: NodeAgent | None = None
        self._is_remote = self._is_left_to_agent = self._is_on_node_alone = False
        self._launcher: Owner | None = None
        self._is_spooled = not over_ray and is_spooled(self._spec)
        kept, left_out = plain_config(run_config, config.secrets)
        if left_out:
            more = f"; and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
            who = "the job" if writer == LAUNCH else writer
            logger.warning("%s: run_config is kept without %s%s", who, "; ".join(left_out[:NAMED]), more)
        header = {"opened": time.time(), "source": source_of_process(), **header, "config": kept}
        if over_ray:
            self._open_over_ray(header, tags)
            return
        with usable(self._layout):
            self._open(header, tags)

    def _open(self, header: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Claim the writer's name, and begin its journal."""
        writer = self._writer
        launcher = newest(self._layout.journal(LAUNCH)) if writer != LAUNCH else None
        self._launcher = launcher.owner() if launcher is not None else None
        self._is_remote = self._has_remote_relay()
        # The node's agent does it for all that have no courier. Not `sync_every`: that is a promise of each role's own.
        has_courier = self.backends or self._spec.courier == "thread" or self._spec.sync_every is not None
        is_away = self._is_spooled or self._is_remote
        self._is_left_to_agent = writer != LAUNCH and not has_courier and is_away
        spool = {"spool": self._spec.nonce} if self._is_spooled else {}
        left = {LEFT_TO_AGENT: True} if self._is_left_to_agent else {}
        beginning = begin(self._layout, writer, {**spool, **left, **header}, tags)
        holder = "the launcher's place" if writer == LAUNCH else f"writer {writer!r}"
        session = claim(self._layout.journal(writer), beginning.header, holder)
        try:
            place = open_spool(self._spec, writer, session) if self._is_spooled else session
            limit = self._config.spool_limit if self._is_spooled else None
            succeed_here = partial(succeed_in, self._spec, writer, beginning.header)
            self.journal = JournalWriter(place, beginning.steps, succeed_here, limit, beginning.details)
            self._start()
        except BaseException:
            end(session, "failed")  # or the name would be held for as long as this process lives
            raise

    def _open_over_ray(self, header: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Have the launcher's node claim the writer's name, and begin its journal on this one."""
        # Here, as Ray is imported by no process that does not need it.
        from rolecall.delivery.relay.ray import open_session

        found = open_session(self._spec, self._writer, header, tags, self._spec.open_timeout)
        self._layout, opened = found.layout, found.opened

        def succeed_there(session: Session, fill: Fill) -> Session:
            return succeed(session, opened.header, fill, found.owner)

        limit = self._config.spool_limit
        self.journal = JournalWriter(found.session, opened.steps, succeed_there, limit, opened.details)

    @property
    def backends(self) -> list[str]:
        """The backends that have a courier."""
        if self._over_ray:
            return []
        return [plan.backend for plan in self._spec.plan.of(launcher=self._writer == LAUNCH)]

    @property
    def is_own(self) -> bool:
        """Whether this is the process that opened it, and no forked child of that."""
        return os.getpid() == self._pid

    def wait_opened(self, timeout: float | None = None, *, draws: bool = False) -> None:
        """Wait until every backend said whether it could open its run.

        Args:
            timeout: seconds; the config's `open_timeout` by default.
            draws: whether to draw a bar on a terminal.

        Raises:
            BackendRefused: one said no; the session is closed as failed.
        """
        timeout = self._spec.open_timeout if timeout is None else timeout
        try:
            with bar(self._opening) if draws else nullcontext():
                first = self.events.wait_opened(self.backends, timeout)
        except BaseException:  # Ctrl-C, for one
            self.close("failed", 0.0, quiet=True)
            raise
        refused = [event for event in first if event.kind == "refused"]
        if refused:
            self.close("failed", timings.FORGOTTEN_TIMEOUT, quiet=True)
            raise BackendRefused("; ".join(f"{event.backend}: {event.message}" for event in refused))

    def close(self, status: Status, timeout: float, *, quiet: bool = False) -> None:
        """End the session, let the couriers drain for `timeout` seconds, and report what is left.

        A role leaves that to a launcher that is alive, whose last line is about the whole job.

        Raises:
            Undelivered: with `on_backend_error: raise`, if anything is left; an `ExceptionGroup` of them where
                several backends lack rows.
        """
        if not self.is_own:
            self.journal.abandon()
            return
        deadline = time.monotonic() + timeout
        try:
            self.journal.end(status)
        except OSError as error:
            # If rows were lost, the disk was reported already.
            level = logging.DEBUG if self.journal.lost else logging.WARNING
            logger.log(level, "%s: the end of the journal could not be written: %s", self._writer, error)
        self._drain(deadline)
        if quiet:
            return
        messages = self._left()
        if self._config.on_backend_error == "raise":
            raise_together(f"{self._writer}: rows are not delivered", [Undelivered(message) for message in messages])
        if not messages:
            return
        # The launcher cannot know of rows that are on this node alone.
        level = logging.INFO if self._has_launcher() and not self._is_on_node_alone else logging.WARNING
        for message in messages:
            logger.log(level, "%s", message)

    def _drain(self, deadline: float) -> None:
        """Wait for whoever delivers or mirrors the rows."""

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        if self._process is not None:
            self._process.end(left())
        if self._agent is not None:
            is_needed = self._is_left_to_agent and self._is_spooled
            self._is_on_node_alone = not self._agent.end(left(), self.journal.session.path if is_needed else None)
        if self._thread is not None:
            self._thread.join(left())
        if self._writer == LAUNCH:
            self._await_relay(left())

    def _has_launcher(self) -> bool:
        """Whether a launcher lives, by the time of its file if it is on another machine."""
        if self._is_spooled:  # no look at the directory: see `rolecall.job.beside`
            return self._launcher is not None and self._launcher.is_here() and self._launcher.is_running()

        def look() -> bool:
            launcher = newest(self._layout.journal(LAUNCH))
            return launcher is not None and launcher.state() is State.RUNNING

        # On a thread: the directory may not answer.
        return self._writer != LAUNCH and bool(look_within(timings.DIRECTORY_TIMEOUT, look))

    def _opening(self) -> Progress:
        return Progress("opening " + ", ".join(self.events.unheard(self.backends)))

    def _start(self) -> None:
        writer, spec = self._writer, self._spec
        plans = spec.plan.of(launcher=writer == LAUNCH)
        processes = [plan for plan in plans if plan.courier == "process"]
        threads = [plan for plan in plans if plan.courier == "thread"]
        if writer != LAUNCH and (spec.plan.system_metrics or self._is_left_to_agent):
            self._agent = NodeAgent(self._config, spec, writer)
        # Without a backend there is still a journal to mirror or to sync, or a relay elsewhere to be shown a sign of
        # life.
        is_tended = self._is_spooled or (writer != LAUNCH and (spec.sync_every is not None or self._is_remote))
        if self._is_left_to_agent:
            return
        if processes or (is_tended and spec.courier != "thread"):
            task = {"env": self._config.portable().to_env(), "writer": writer}
            log = self._layout.courier_log(writer)
            self._process = CourierProcess(task, [each.backend for each in processes], log, self.events.add)
        if threads or (is_tended and not processes and spec.courier == "thread"):
            group = CourierGroup(spec, [writer], [Assignment(writer, each) for each in threads], self.events.add)
            self._thread = threading.Thread(target=group.run, name="rolecall", daemon=True)
            self._thread.start()

    def _has_remote_relay(self) -> bool:
        """Whether the rows of this role are relayed by a process that cannot see whether it lives."""
        if self._writer == LAUNCH or not self._spec.plan.is_relayed:
            return False
        return self._launcher is None or not self._launcher.is_here()

    def _left(self) -> list[str]:
        """What backends lack, by what their couriers said last."""
        goes_on = self._process is not None and self._process.is_running
        later = f". The courier's process goes on trying for up to {timings.DRAIN_TIMEOUT:.0f} s" if goes_on else ""
        advice = f"They are in the journal. To send them, run: {command('deliver', self._layout.root)}{later}"
        if self._is_on_node_alone:
            where = f"some rows are on this node alone, in {self.journal.session.path}"
            later = f"Its agent goes on copying them to {self._layout.root} for up to {timings.DRAIN_TIMEOUT:.0f} s"
            return [f"{self._writer}: {where}. {later}; after that, run here: {command('deliver', self._layout.root)}"]
        lacking = [(name, self.events.waiting(name, self.journal.seq)) for name in self.backends]
        return [
            f"{self._writer}: {self._rows_left(name, count)} not yet in {name}. {advice}"
            for name, count in lacking
            if count or (count is None and self.journal.seq)
        ] + [f"{self._writer}: no relay to {name} is at work. {advice}" for name in self._unrelayed()]

    def _rows_left(self, backend: str, count: int | None) -> str:
        """What a backend lacks, in words; `count` numbers of the journal, if that is known."""
        if count is None:
            return "some rows"
        if not self.journal.only:
            return f"{count} rows"
        # Changes and rows for other backends are among them. The directory may not have the rows yet, or not answer.
        if self._is_spooled:
            return "some rows"
        rows = look_within(timings.DIRECTORY_TIMEOUT, lambda: waiting(self._layout, backend, self._writer))
        if rows is None:
            return "some rows"
        return f"{rows} rows" if rows else "the last changes of the config, the summary or the tags are"

    def _unrelayed(self) -> list[str]:
        """The backends of this role that have no relay, which has died or ended."""
        if self._writer == LAUNCH or not self.journal.seq or self._is_spooled:  # as in `_has_launcher`
            return []
        relayed = [plan.backend for plan in self._spec.plan.backends if plan.relayed and plan.courier != "none"]

        def look() -> list[str]:
            return [name for name in relayed if not is_carried(self._layout, name, LAUNCH)]

        return look_within(timings.DIRECTORY_TIMEOUT, look) or [] if relayed else []

    def _await_relay(self, seconds: float) -> None:
        """Wait for a relay that runs elsewhere, as `rolecall relay` does, until it has ended the runs."""
        elsewhere = [plan.backend for plan in self._spec.plan.backends if plan.relayed and plan.courier == "none"]
        deadline = time.monotonic() + seconds

        def look() -> None:
            while time.monotonic() < deadline and any(is_carried(self._layout, name, LAUNCH) for name in elsewhere):
                time.sleep(timings.STATUS_INTERVAL)

        if elsewhere:
            look_within(seconds, look)
