"""All couriers of one writer, one thread a backend, so that a slow or dead backend delays no other.

The launcher's crew opens the primary runs of shared backends and ends them after the roles; for the others it
prepares what the roles' own runs need.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rolecall.backends.registry import Backend
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan
from rolecall.config.redact import scrub_text, scrub_trace
from rolecall.delivery.courier import POLL, Courier, Destination, News
from rolecall.delivery.cursor import Tail
from rolecall.delivery.load import Load
from rolecall.delivery.sync import Syncer
from rolecall.delivery.ticket import TicketOffice
from rolecall.errors import BackendError, BackendRefused, Unavailable, WriterConflict
from rolecall.store.acks import Delivery, delivered, is_carried
from rolecall.store.axes import AxisBook
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import HEARTBEAT, Session, newest, sessions, this_process
from rolecall.store.spool import mirrors

__all__ = ["DRAIN", "Crew"]

logger = logging.getLogger("rolecall.courier")

LOOK = 0.3
"""Seconds between a launcher's looks at what every role and its courier does."""
DRAIN = 120.0
"""Seconds that a courier goes on trying after its writer has ended, while its backend takes nothing."""


class Crew:
    """The couriers of one writer of a job.

    Args:
        config: the job's config, as the launcher handed it on.
        writer: whose rows; `@launch` for the launcher.
        plans: the backends to carry to.
        tell: gets the news of every backend, from any thread.
        others: whether crews that this process runs for roles are at work; a launcher's waits for them.
    """

    def __init__(
        self,
        config: MonitorConfig,
        writer: str,
        plans: Sequence[BackendPlan],
        tell: Callable[[News], None],
        others: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._layout = Layout(config.monitor_dir)
        self._office = TicketOffice(config, self._layout, writer)
        self._writer = writer
        self._plans = plans
        self._news = tell
        self._book = AxisBook(self._layout, writer)
        self._others = others
        found = sessions(self._layout.journal(writer))
        self._session = found[-1] if found else None
        self._mirrors = list(mirrors(config, writer, found))
        self._syncers = list(self._make_syncer())
        self._couriers: list[Courier] = []
        self._alive = time.monotonic()
        self._threads = [threading.Thread(target=self._serve, args=(plan,), daemon=True) for plan in plans]

    def start(self) -> None:
        """Start the couriers' threads; what a dead session left on the node is fetched first."""
        self._mirror()
        with suppress(OSError):
            self._publish_config()
        for thread in self._threads:
            thread.start()
        for syncer in self._syncers:
            syncer.start()

    def run(self) -> bool:
        """Carry until all is done; False if a backend hung and was left behind."""
        self.start()
        beat = 0.0
        while any(thread.is_alive() for thread in self._threads) or self._must_stay():
            self._mirror(newest_only=True)
            if time.monotonic() - beat >= HEARTBEAT:
                self._beat()
                beat = time.monotonic()
                if self._is_hung():
                    return False
            time.sleep(POLL)
        self._mirror(newest_only=True)
        for syncer in self._syncers:
            syncer.stop()
        return True

    def _mirror(self, *, newest_only: bool = False) -> None:
        """Copy what is spooled, however the backends fare; a directory that does not answer is asked again."""
        for mirror in self._mirrors[-1:] if newest_only else self._mirrors:
            with suppress(OSError):
                mirror.copy()

    def hurry(self, seconds: float) -> None:
        """Leave every courier at most this much time."""
        for courier in self._couriers:
            courier.hurry(seconds)

    def _serve(self, plan: BackendPlan) -> None:
        """One backend, from its first opening to its end; nothing that it raises reaches another's thread."""
        try:
            backend = self._config.registry.load(plan.backend)
            if self._office.is_launcher and not plan.shared:
                self._prepare(backend)
            else:
                self._carry(backend, plan)
        except Exception as error:  # noqa: BLE001 - told, and only this backend is lost
            logger.error("%s: %s", plan.backend, scrub_trace(error, self._config.secrets))  # noqa: TRY400 - it may hold secrets
            self._tell(News(plan.backend, "refused", f"{type(error).__name__}: {error}"))

    def _prepare(self, backend: Backend) -> None:
        try:
            backend.prepare(
                self._office.ticket(backend.name, shared=False), self._config.monitor_args[backend.name]
            )
        except Unavailable as error:
            self._tell(News(backend.name, "unavailable", str(error)))
        except (BackendRefused, BackendError) as error:
            self._tell(News(backend.name, "refused", str(error)))
        else:
            self._tell(News(backend.name, "prepared"))

    def _carry(self, backend: Backend, plan: BackendPlan) -> None:
        delivery = self._claim(backend.name)
        tail = Tail(
            self._writer, self._layout.journal(self._writer), delivery.done.place, *self._mirrors[-1:]
        )
        courier = Courier(
            destination=Destination(
                backend,
                self._config.monitor_args[backend.name],
                lambda: self._office.ticket(backend.name, shared=plan.shared),
            ),
            loads=[Load(tail, delivery)],
            book=self._book,
            tell=self._tell,
            drain=DRAIN,
        )
        self._couriers.append(courier)
        courier.carry(self._wait_for_roles(backend.name) if self._office.is_launcher else None)

    def _claim(self, backend: str) -> Delivery:
        """A predecessor's courier may still drain: wait for it to end."""
        while True:
            try:
                return Delivery(self._layout, backend, self._writer)
            except WriterConflict as error:
                self._tell(News(backend, "warning", f"waiting: {error}"))
                while is_carried(self._layout, backend, self._writer):
                    time.sleep(POLL)

    def _wait_for_roles(self, backend: str) -> Callable[[Callable[[float], None]], bool]:
        def wait(stand_by: Callable[[float], None]) -> bool:
            """Until every role has ended and its courier too; one that gets nowhere is not waited for.

            A launcher that came after this one has the run from then on, so this one leaves it open.
            """
            moved, carried = time.monotonic(), -1
            while time.monotonic() - moved < DRAIN:
                with suppress(OSError):  # a directory that does not answer says nothing about the roles
                    if self._is_followed() or not self._awaited(backend):
                        break
                    before, carried = carried, -1 if self._live_roles() else self._carried(backend)
                    if carried != before or carried < 0:
                        moved = time.monotonic()
                stand_by(LOOK)
            return not self._is_followed()

        return wait

    def _is_followed(self) -> bool:
        session = newest(self._layout.journal(self._writer))
        return session is not None and session != self._session

    def _is_live(self) -> bool:
        """Whether the session that this crew carries is its owner's still."""
        return self._session is not None and self._session.is_live() and not self._is_followed()

    def _live_roles(self) -> bool:
        newests = (newest(self._layout.journal(writer)) for writer in self._layout.writers())
        return any(session is not None and session.is_live() for session in newests)

    def _awaited(self, backend: str) -> bool:
        writers = self._layout.writers()
        carried = (is_carried(self._layout, backend, writer) for writer in writers)
        return self._others() or self._live_roles() or any(carried)

    def _carried(self, backend: str) -> int:
        """How many rows of all roles the backend holds: it grows as long as a courier gets anywhere."""
        return sum(delivered(self._layout, backend, writer).rows for writer in self._layout.writers())

    def _publish_config(self) -> None:
        config = self._session.header().get("config") if self._session else None
        if config and self._writer != LAUNCH:
            self._book.publish_config(config)

    def _must_stay(self) -> bool:
        """With no backend to carry to, there is still the journal to mirror or sync, and its owner to vouch for."""
        return bool(self._mirrors or self._syncers) and self._is_live()

    def _make_syncer(self) -> Iterator[Syncer]:
        """For the session that is written now, where it is written."""
        every = None if self._office.is_launcher else self._config.sync_every
        if every is not None and self._session is not None and self._session.is_live():
            path = self._mirrors[-1].spool if self._mirrors else self._session.path
            yield Syncer(Session(path, self._session.number), every, self._warn)

    def _warn(self, message: str) -> None:
        self._tell(News("journal", "warning", message))

    def _beat(self) -> None:
        """Tell other hosts that the writer and its couriers are alive."""
        if self._session is not None and self._is_live():
            _touch(self._session.path)
        for plan in self._plans:
            carrying = newest(self._layout.delivery(plan.backend, self._writer))
            if carrying is not None and carrying.owner() == this_process():
                _touch(carrying.path)

    def _is_hung(self) -> bool:
        """Whether the writer has ended and no courier gave a sign of life for as long as it may drain."""
        if self._is_live():
            self._alive = time.monotonic()
        signs = [self._alive, *(courier.last_sign for courier in self._couriers)]
        return time.monotonic() - max(signs) > DRAIN

    def _tell(self, news: News) -> None:
        secrets = self._config.secrets
        self._news(News(news.backend, news.kind, scrub_text(news.message, secrets), news.id, news.url))


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)
