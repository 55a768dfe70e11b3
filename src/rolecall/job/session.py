"""A writer's place in a job: its journal, and the couriers that carry it. `Monitor` and `Job` each hold one."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rolecall.config.model import MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.redact import scrub
from rolecall.delivery.courier import News
from rolecall.delivery.group import DRAIN, Crew
from rolecall.errors import BackendRefused, DirectoryError, Undelivered
from rolecall.job.couriers import Carrier, ProcessCarrier, ThreadCarrier
from rolecall.job.left import count_left, count_left_apart
from rolecall.job.patience import within
from rolecall.states import Status
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Session, claim, end
from rolecall.store.spool import is_mapped, is_spooled, open_spool

__all__ = ["LOOKING", "NewsDesk", "Station", "raise_together", "status_at_exit", "status_of"]

logger = logging.getLogger("rolecall")

OPENING = 30.0
"""Seconds that `launch` and `open_monitor` wait to hear of each backend before they go on without."""
LOOKING = 5.0
"""Seconds that `close` gives `monitor_dir` to answer what is left."""


def status_of(error: BaseException | None) -> Status:
    """How a `with` block ended; `sys.exit(0)` in it is an end like any other.

    Ctrl-C, and a signal handler's `sys.exit(128 + signum)` as shells count, are a kill.
    """
    match error:
        case None | SystemExit(code=None | 0):
            return "finished"
        case KeyboardInterrupt():
            return "killed"
        case SystemExit(code=int(code)) if code - 128 in signal.valid_signals():
            return "killed"
        case _:
            return "failed"


def status_at_exit() -> Status:
    """How a program ends that closed nothing: Python keeps the exception that it died of."""
    return status_of(getattr(sys, "last_value", None))


class NewsDesk:
    """Hears the news of every backend, tells them through `logging`, and keeps what is asked for later."""

    def __init__(self, writer: str) -> None:
        self.urls: dict[str, str | None] = {}
        self.failure: str | None = None
        self._writer = writer
        self._heard: dict[str, News] = {}
        self._change = threading.Condition()

    def tell(self, news: News) -> None:
        """Take one piece of news, from any thread."""
        with self._change:
            if news.kind in ("opened", "prepared", "refused", "unavailable"):
                self._heard.setdefault(news.backend, news)
            if news.kind == "opened":
                self.urls[news.backend] = news.url
            if news.kind in ("refused", "unavailable", "rejected"):
                self.failure = f"{news.backend}: {news.message}"
            self._change.notify_all()
        self._log(news)

    def take_failure(self) -> str | None:
        """The last fault of a backend that nobody took yet."""
        failure, self.failure = self.failure, None
        return failure

    def wait(self, backends: Sequence[str], timeout: float) -> list[News]:
        """The first news of each backend that spoke within so many seconds."""
        with self._change:
            self._change.wait_for(lambda: all(name in self._heard for name in backends), timeout)
            return [self._heard[name] for name in backends if name in self._heard]

    def _log(self, news: News) -> None:
        quiet = news.kind in ("opened", "prepared", "ended")
        level = logging.DEBUG if quiet else logging.INFO if news.kind == "recovered" else logging.WARNING
        words = _WORDS.get(news.kind, "%s")
        logger.log(level, "%s: %s: %s", self._writer, news.backend, words % news.message)


_WORDS = {
    "unavailable": "not available, rows wait in the journal: %s",
    "recovered": "available again%s",
    "rejected": "will not take some rows; they stay in the journal: %s",
    "damaged": "a line of the journal was left out: %s",
    "refused": "refused: %s",
    "opened": "opened%s",
    "prepared": "prepared%s",
    "ended": "ended%s",
}


class Station:
    """One writer's open session.

    Raises:
        WriterConflict: another live process has this name.
        DirectoryError: the journal cannot be written.
    """

    def __init__(
        self, config: MonitorConfig, plan: Plan, writer: str, run_config: Mapping[str, Any] | None
    ) -> None:
        self.desk = NewsDesk(writer)
        self._config = config.model_copy(update={"plan": plan})
        self._writer = writer
        self._pid = os.getpid()
        self._layout = Layout(config.monitor_dir)
        self._names = [one.backend for one in plan.backends if one.carrier != "none"]
        self._carriers: list[Carrier] = []
        self._is_spooled = is_spooled(config)
        self._is_tended = self._is_spooled or (config.sync_every is not None and writer != LAUNCH)
        session = self._claim(run_config)
        try:
            place = self._place(session)
            self.journal = JournalWriter(place, is_mapped(config, place.path))
            self._start(plan)
        except BaseException:
            end(session, "failed")  # or the name would be held for as long as this process lives
            raise

    def wait_opened(self) -> None:
        """Hear of every backend.

        Raises:
            BackendRefused: one said no; the session is closed as failed.
        """
        try:
            heard = self.desk.wait(self._names, OPENING)
        except BaseException:  # Ctrl-C, for one
            self.close("failed", 0.0, told=True)
            raise
        refused = [news for news in heard if news.kind == "refused"]
        if refused:
            self.close("failed", 5.0, told=True)
            raise BackendRefused("; ".join(f"{news.backend}: {news.message}" for news in refused))

    def close(self, status: Status, timeout: float, told: bool = False) -> None:
        """End the session, let the couriers drain for so many seconds, and tell what is left.

        Raises:
            Undelivered: with `on_backend_error: raise`, if anything is left; an `ExceptionGroup` of them where
                several backends lack rows.
        """
        if os.getpid() != self._pid:
            self.journal.abandon()
            return
        deadline = time.monotonic() + timeout
        try:
            self.journal.end(status)
        except OSError as error:
            logger.warning("%s: the end of the journal could not be written: %s", self._writer, error)
        undrained = [one for one in self._carriers if not one.join(max(0.0, deadline - time.monotonic()))]
        if not told:
            self._tell_left(goes_on=any(isinstance(one, ProcessCarrier) for one in undrained))

    def _claim(self, run_config: Mapping[str, Any] | None) -> Session:
        header = {
            "writer": self._writer,
            "opened": time.time(),
            **({"spool": self._config.nonce} if self._is_spooled else {}),
            "config": scrub(run_config or {}, self._config.secrets),
        }
        holder = "the launcher's place" if self._writer == LAUNCH else f"writer {self._writer!r}"
        try:
            return claim(self._layout.journal(self._writer), header, holder)
        except OSError as error:
            raise DirectoryError(
                f"monitor_dir {self._layout.root}: cannot be written: {error.strerror}"
            ) from error

    def _place(self, session: Session) -> Session:
        """Where rows are written: the session's own file, or one on the node that begins like it."""
        if not self._is_spooled:
            return session
        return Session(open_spool(self._config, self._writer, session), session.number)

    def _start(self, plan: Plan) -> None:
        processes, threads = plan.carried("process"), plan.carried("thread")
        if processes or (self._is_tended and self._config.courier == "process"):
            self._carriers.append(ProcessCarrier(self._config, self._writer, processes, self.desk.tell))
        if threads or (self._is_tended and not processes and self._config.courier == "thread"):
            self._carriers.append(ThreadCarrier(Crew(self._config, self._writer, threads, self.desk.tell)))

    def _tell_left(self, *, goes_on: bool) -> None:
        left = self._count_left(apart=self._is_spooled and goes_on) if self._names else {}
        told = _left_messages(self._writer, left, self._layout.root, goes_on=goes_on)
        if self._config.on_backend_error == "raise":
            raise_together(f"{self._writer}: rows are not delivered", [Undelivered(each) for each in told])
        for each in told:
            logger.warning("%s", each)

    def _count_left(self, *, apart: bool) -> dict[str, int] | None:
        """Apart, where the directory may be what holds the courier up, and would hold this process up as well."""
        asked = (self._layout.root, self._writer, self._names)
        if apart:
            return count_left_apart(*asked, LOOKING)
        return within(LOOKING, lambda: count_left(*asked))


def raise_together(message: str, errors: Sequence[Exception]) -> None:
    """One error as it is, several as a group, none not at all."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(message, errors)


def _left_messages(writer: str, left: Mapping[str, int] | None, root: Path, *, goes_on: bool) -> list[str]:
    later = f" The courier's process goes on trying for up to {DRAIN:.0f} s." if goes_on else ""
    command = f"send them with: rolecall deliver {root}.{later}"
    if left is None:
        return [f"{writer}: monitor_dir does not answer, so rows may not be in their backends yet; {command}"]
    return [
        f"{writer}: {count} rows not yet in {name}. They are in the journal; {command}"
        for name, count in left.items()
        if count
    ]
