"""The processes beside a role: its courier, and its node's agent. One that dies before its time is started again.

Once a role is open, nothing here touches `monitor_dir`, which may not answer for minutes: Linux ends no process before
its requests to a FUSE filesystem are answered (`request_wait_answer` in fs/fuse/dev.c), be they of another thread, or
the closing of a file.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.config.model import MonitorConfig
from rolecall.config.spec import JobSpec
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.node.local import agent_names, take_agents_place
from rolecall.errors import BackendError, DirectoryError
from rolecall.store.codec import make_folder, open_own
from rolecall.store.layout import Layout

logger = logging.getLogger("rolecall")


class CourierProcess:
    """A process that runs `rolecall.delivery.process`, and the threads that listen to it.

    It gets one line of JSON on its standard input: the config with its secrets, which so are in no argument list and no
    environment. It writes events, a line of JSON each, to its standard output.

    Args:
        task: what it is to do, but for the log.
        backends: those that it delivers to.
        log: where it and its SDKs print.
        report: gets every event, from any thread.

    Raises:
        BackendError: it cannot be started.
    """

    def __init__(
        self, task: Mapping[str, Any], backends: Sequence[str], log: Path, report: Callable[[CourierEvent], None]
    ) -> None:
        self._task = json.dumps({**task, "backends": backends, "log": str(log)}).encode() + b"\n"
        self._backends = backends
        self._log = log
        self._report = report
        self._until = float("inf")
        self._ending = threading.Event()
        self._has_died = self._has_spoken = False
        try:
            make_folder(log.parent)
            os.close(open_own(log, create=True))  # the process opens it: here, it is known at once whether it can
            self._words = LastWords()
            self._process = self._start()
        except (OSError, TypeError, ValueError) as error:  # TypeError: an embedded Python has no executable
            advice = "use courier: thread, or set sys.executable to a Python that has rolecall"
            what = f"the courier's process cannot be started with {sys.executable!r}, logging to {log}: {error}"
            raise BackendError(f"{what}; {advice}") from error
        # It is blocked almost always, so it does not contend for the interpreter lock.
        self._thread = threading.Thread(target=self._watch, name="rolecall-courier", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there is a process now."""
        return self._process.poll() is None

    def end(self, timeout: float) -> None:
        """The role has ended: wait until all is delivered or given up."""
        self._until = time.monotonic() + timeout
        self._ending.set()
        self._thread.join(timeout)

    def _start(self) -> subprocess.Popen[bytes]:
        return _spawn("rolecall.delivery.process", self._task, self._words, listens=True)

    def _watch(self) -> None:
        """Pass on what it says, and start it again as long as its work is not done."""
        wait = timings.RESTART.initial
        while True:
            began = time.monotonic()
            status = self._listen()
            if not status or not self._goes_on(status):
                return
            if time.monotonic() - began >= timings.RESTART_RESET:
                wait = timings.RESTART.initial
            while not self._start_again(wait):
                if time.monotonic() >= self._until:
                    return
                wait = min(2 * wait, timings.RESTART.maximum)
            wait = min(2 * wait, timings.RESTART.maximum)

    def _listen(self) -> int:
        """Wait for its end; its status."""
        reader = threading.Thread(target=self._read, args=(self._process,), name="rolecall-events", daemon=True)
        reader.start()
        status = self._process.wait()
        # Not its end alone: what an SDK of the process forked may hold the pipe open for longer.
        reader.join(1.0)
        return status

    def _start_again(self, wait: float) -> bool:
        # A role that ends waits for its rows, so not for long then.
        if self._ending.wait(wait):
            time.sleep(timings.RESTART.maximum_draining)
        try:
            self._process = self._start()
        except OSError:  # no descriptors or no memory: later there may be
            return False
        return True

    def _goes_on(self, status: int) -> bool:
        """Whether to start it again after it ended with a status that is not 0; reports the first time."""
        if time.monotonic() >= self._until:
            return False
        what = f"the courier's process ended with status {status}"
        if status > 0 and not self._has_spoken:
            # It cannot even start here: for one, rolecall is only where `sys.path` of this process leads.
            for backend in self._backends:
                self._report(CourierEvent(backend, "refused", f"{what}: {self._words} (see {self._log})"))
            return False
        if not self._has_died:
            for backend in self._backends:
                self._report(CourierEvent(backend, "died", f"{what} and is started again; see {self._log}"))
        self._has_died = True
        return True

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - as above
        with process.stdout as events:
            for line in events:
                with suppress(ValueError, TypeError):
                    event = CourierEvent(**json.loads(line))
                    self._has_spoken = True
                    self._report(event)


class NodeAgent:
    """Sees to it, on a thread of a role, that its node has an agent: see `rolecall.delivery.node.agent`.

    Of the roles of a node, the one that gets the agent's place starts it. Every role tries to each `HEARTBEAT` seconds,
    as the agent and the role that started it may have died.

    Args:
        config: as the launcher handed it on, with a plan for this node.
        spec: the same.
        writer: the role.
    """

    def __init__(self, config: MonitorConfig, spec: JobSpec, writer: str) -> None:
        self._spec = spec
        self._writer = writer
        self._log = Layout(spec.monitor_dir).courier_log(agent_names()[0])
        known, plans = config.portable(), spec.plan.backends
        # A relay delivers what is measured to those, too.
        without = [each.backend for each in plans if each.backend not in known.monitor_type and not each.relayed]
        self._task = {"env": known.to_env(), "without": without, "log": str(self._log)}
        self._words = LastWords()
        self._process: subprocess.Popen[bytes] | None = None
        self._spool: Path | None = None
        self._wait = timings.RESTART.initial
        self._began = self._due = float("-inf")
        self._has_failed = False
        self._ending, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._keep, name="rolecall-agent", daemon=True).start()

    def end(self, timeout: float, spool: Path | None) -> bool:
        """The role has ended.

        Args:
            timeout: seconds to wait, if there is a file to wait for.
            spool: the role's journal on this node, which the agent removes once it has copied all of it.

        Returns:
            Whether it did.
        """
        self._spool = spool
        self._ending.set()
        return spool is None or self._done.wait(timeout)

    def _keep(self) -> None:
        while not self._is_over():
            self._look()
            if self._ending.wait(timings.HEARTBEAT) and self._spool is not None:
                time.sleep(timings.POLL_INTERVAL)
        self._done.set()
        if self._process is not None:
            self._process.wait()  # as long as other roles need it; nobody else would take its status

    def _is_over(self) -> bool:
        return self._ending.is_set() and (self._spool is None or not self._spool.exists())

    def _look(self) -> None:
        """Start the agent if there is none."""
        self._notice_end()
        if self._process is not None or time.monotonic() < self._due:
            return
        try:
            if (place := take_agents_place(self._spec)) is None:
                return
            self._began = time.monotonic()
            self._due = self._began + self._wait
            self._wait = min(2 * self._wait, timings.RESTART.maximum)
            try:
                task = json.dumps({**self._task, "place": place}).encode() + b"\n"
                self._process = _spawn("rolecall.delivery.node.agent", task, self._words, listens=False, keeps=[place])
            finally:
                os.close(place)  # the agent has it now
        except DirectoryError as error:
            self._warn(f"this node has no agent: {error}")
        except (OSError, TypeError, ValueError) as error:  # as above
            self._warn(f"the agent of this node cannot be started with {sys.executable!r}: {error}")

    def _notice_end(self) -> None:
        if self._process is None or (status := self._process.poll()) is None:
            return
        self._process = None
        if time.monotonic() - self._began >= timings.RESTART_RESET:
            self._wait = timings.RESTART.initial
        if status:
            self._warn(f"the agent of this node ended with status {status} and is started again: {self._words}")

    def _warn(self, what: str) -> None:
        """Say so once."""
        if not self._has_failed:
            logger.warning("%s: %s; see %s", self._writer, what, self._log)
        self._has_failed = True


class LastWords:
    """What a process prints before it has opened its log, which is why it cannot start; the last line of it."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("rolecall")
        weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        """Where to print."""
        return self._descriptor

    def __str__(self) -> str:
        size = os.fstat(self._descriptor).st_size
        # Not by a seek: the process writes where this descriptor is.
        lines = os.pread(self._descriptor, 2000, max(0, size - 2000)).decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _spawn(
    module: str, task: bytes, words: LastWords, *, listens: bool, keeps: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a module of rolecall in a session of its own.

    Args:
        module: the module.
        task: a line for its standard input, with secrets, which so are in no argument list and no environment.
        words: where it prints until it has opened its log.
        listens: whether its standard output is a pipe to this process.
        keeps: descriptors that it inherits.
    """
    # Without `preexec_fn` this is a vfork and an exec: no Python code runs in a copy of the role.
    process = subprocess.Popen(
        # -P: the working directory is not where the role imports from, so it must not be for what it starts.
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if listens else words.fileno(),
        stderr=words.fileno(),
        start_new_session=True,
        pass_fds=keeps,
    )
    assert process.stdin is not None  # noqa: S101 - Popen was given pipes, which mypy cannot know
    with suppress(BrokenPipeError), process.stdin as pipe:  # it died: whoever waits for it will see
        pipe.write(task)
    return process
