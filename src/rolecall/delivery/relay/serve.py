"""The relay of a job whose launcher has none: in a process of its own, on any machine that sees the directory."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.backends.registry import Registry
from rolecall.config.plan import BackendPlan
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.group import Assignment, CourierGroup
from rolecall.delivery.redeliver import Left, left_of, open_job
from rolecall.errors import DirectoryError, WriterConflict
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import held_now, newest


class Relay:
    """Delivers the rows of all roles of a job.

    Args:
        root: the job's `monitor_dir`.
        args: as in `rolecall.delivery.redeliver.deliver`, and so are `trust`, `on_event` and `registry`.
        trust: as there.
        on_event: as there.
        registry: as there.

    Raises:
        DirectoryError, ConfigError, BackendError: as there; or the roles of this job deliver their own rows.
        WriterConflict: another relay is alive.
    """

    def __init__(
        self,
        root: Path,
        args: Mapping[str, Any],
        *,
        trust: bool = False,
        on_event: Callable[[CourierEvent], None] = lambda _: None,
        registry: Registry | None = None,
    ) -> None:
        self._spec = open_job(root, None, args, trust=trust, registry=registry)
        plans = [plan for plan in self._spec.plan.backends if plan.relayed]
        if not plans:
            what = "the roles of this job deliver their own rows (it was launched without shared_run: relay)"
            raise DirectoryError(f"{root}: {what}; rolecall deliver sends what they left")
        self._require_no_other(plans)
        self._group = CourierGroup(self._spec, [LAUNCH], [Assignment(LAUNCH, plan) for plan in plans], on_event)

    def run(self, timeout: float) -> Sequence[Left]:
        """Deliver until the job has ended, for at most `timeout` seconds; returns what is left."""
        # On a thread: a backend that hangs must not keep this one from ending in time.
        thread = threading.Thread(target=self._group.run, name="rolecall-relay", daemon=True)
        thread.start()
        deadline = time.monotonic() + timeout
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            thread.join(min(timings.STATUS_INTERVAL, left))
        if thread.is_alive():
            self.hurry(0.0)
            thread.join(timings.FORGOTTEN_TIMEOUT)
        return left_of(self._spec)

    def hurry(self, seconds: float) -> None:
        """Leave it at most this much time from now on."""
        self._group.hurry(seconds)

    def _require_no_other(self, plans: Sequence[BackendPlan]) -> None:
        layout = Layout(self._spec.monitor_dir)
        leases = {layout.delivery(plan.backend, LAUNCH): f"the relay to {plan.backend}" for plan in plans}
        for lease in held_now(leases):
            session = newest(lease)
            who = (session and session.owner()) or "another process"
            raise WriterConflict(f"{layout.root}: another relay is alive: {who}. Stop it to relay from here")
