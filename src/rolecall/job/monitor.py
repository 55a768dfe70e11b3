"""Monitor and open_monitor: what a role holds."""

from __future__ import annotations

import logging
import os
import time
import warnings
import weakref
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, Plan
from rolecall.config.resolve import resolve
from rolecall.errors import BackendError, ConfigError, DirectoryError
from rolecall.job.launch import Job, launch
from rolecall.job.normalize import Cleaner
from rolecall.job.session import Station, raise_together, status_at_exit, status_of
from rolecall.states import Status
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout, writer_name
from rolecall.store.lease import newest
from rolecall.store.manifest import RunRecord, read_record

__all__ = ["Monitor", "open_monitor"]

logger = logging.getLogger("rolecall")

CLOSING = 30.0
WAITING = 60.0
"""Seconds that a role without a launcher's config waits for the primary."""


class Monitor:
    """What a role reports through. `log` appends to the journal and does nothing else.

    Made by `open_monitor`. Threads may share it; a forked child's calls do nothing, as the journal is its
    parent's.

    Attributes:
        writer: its name, `explorer/0`.
        lost: how many rows could not be written to the journal, as on a full disk; told once an episode.
    """

    def __init__(
        self, config: MonitorConfig, writer: str, station: Station | None, job: Job | None = None
    ) -> None:
        self._config = config
        self._station = station
        self._job = job
        self._journal = station.journal if station else None
        self._raises = config.on_backend_error == "raise"
        self._cleaner = Cleaner(writer)
        self._failing = False
        self.writer = writer
        self.lost = 0
        self._forgotten = weakref.finalize(self, _close_forgotten, writer, station, job)
        os.register_at_fork(after_in_child=partial(_leave_to_parent, weakref.ref(self)))

    @property
    def run_id(self) -> str | None:
        """rolecall's name of the run; `None` if monitoring is off."""
        return self._config.run_id

    @property
    def urls(self) -> Mapping[str, str | None]:
        """Where a person looks at the run, for each backend that has opened by now."""
        return dict(self._station.desk.urls) if self._station else {}

    @property
    def url(self) -> str | None:
        """The first of `urls` that there is."""
        return next((url for url in self.urls.values() if url), None)

    @property
    def dropped(self) -> int:
        """How many values and rows could not be logged; each kind was told once."""
        return self._cleaner.dropped

    def log(self, data: Mapping[str, Any], step: int, commit: bool = False) -> None:
        """Record metrics at a step of this role's own axis. Once this returns, the row survives the process.

        Never blocks on a backend and never raises (but with `on_backend_error: raise`). Values are numbers or have
        an `.item()`, which on a GPU tensor waits for the GPU. What cannot be logged is left out, told once for each
        key, and counted in `dropped`.

        Args:
            data: metrics, `{"reward/mean": 0.31}`; keys of 1 to 512 printable characters.
            step: a whole number of 64 bits.
            commit: as in `wandb.Run.log` where each role has a run of its own; nothing in a shared run.
        """
        if (journal := self._journal) is None:
            return
        if self._raises:
            self._raise_failure()
        try:
            if commit or not journal.repeat_at_once(step, data):
                self._log_new(journal, data, step, commit)
        except OSError as error:
            self._lose(error)
        else:
            self._failing = False

    def log_table(self, name: str, table: Any, step: int) -> None:
        """Record a table at a step; promises as `log` makes them.

        Args:
            name: the table's key.
            table: `(columns, rows)`, a list of mappings, or a pandas frame.
            step: a whole number of 64 bits.
        """
        if (journal := self._journal) is None:
            return
        if self._raises:
            self._raise_failure()
        whole = self._cleaner.step(step)
        plain = self._cleaner.table(name, table)
        if whole is None or plain is None:
            return
        try:
            journal.append_table(whole, plain)
        except OSError as error:
            self._lose(error)

    def close(self, status: Status = "finished", timeout: float = CLOSING) -> None:
        """End the session; wait for the couriers to drain, and tell what is left and how to deliver it.

        A second call does nothing.

        Args:
            status: how the role ended.
            timeout: seconds; 0 leaves the draining to the couriers' process.

        Raises:
            Undelivered: with `on_backend_error: raise`, if rows are left, after every backend was closed; those of
                several backends in an `ExceptionGroup`.
        """
        self._journal = None
        if not self._forgotten.detach() or self._station is None:
            return
        deadline = time.monotonic() + timeout
        errors: list[Exception] = []
        for one in (self._station, self._job):
            try:
                if one is not None:
                    one.close(status, max(0.0, deadline - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - raised below, when both are closed
                errors.append(error)
        raise_together(f"{self.writer}: rows are not delivered", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(status_of(error))

    def _log_new(self, journal: JournalWriter, data: object, step: object, commit: bool) -> None:
        """Look at what is logged, value by value if it must be, and record what of it can be logged."""
        if not commit and journal.repeat(step, data):
            return
        whole = self._cleaner.step(step)
        metrics = self._cleaner.metrics(data)
        if whole is not None and metrics:
            journal.append(whole, metrics, commit)

    def _raise_failure(self) -> None:
        """A backend's fault is raised in training, if that was asked for."""
        if self._station and (failure := self._station.desk.take_failure()):
            raise BackendError(failure)

    def _lose(self, error: OSError) -> None:
        """The disk is full or gone: training goes on, and the loss is counted, and told once an episode."""
        self.lost += 1
        if not self._failing:
            logger.warning("%s: rows are being lost, the journal cannot be written: %s", self.writer, error)
        self._failing = True


def open_monitor(
    config: MonitorConfig | Mapping[str, Any],
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
        rank: tells processes of one role apart; their keys and axes are then `{role}/{rank}/...`.
        primary: also do what `launch` does, for jobs without a launcher.
        run_config: this role's config, kept with the run; secrets are scrubbed.

    Raises:
        ConfigError: the role's name, or the config.
        DirectoryError: `monitor_dir` is not the launcher's, or cannot be written.
        WriterConflict: a live process has this role and rank.
        BackendError: a backend is not installed where this role stands.
        BackendRefused: a backend said no.
    """
    writer = writer_name(role, rank)
    config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
    if config.disabled:
        return Monitor(config, writer, None)
    job = launch(config) if primary else None
    try:
        return _join(job.config if job else config, writer, run_config, job)
    except BaseException:
        if job is not None:
            job.close("failed")
        raise


def _join(
    config: MonitorConfig, writer: str, run_config: Mapping[str, Any] | None, job: Job | None
) -> Monitor:
    record = _meet(config)
    config = config.model_copy(update={"run_id": record.run_id, "nonce": record.nonce, "plan": record.plan})
    station = Station(config, _verify(config, record.plan), writer, run_config)
    station.wait_opened()
    return Monitor(config, writer, station, job)


def _meet(config: MonitorConfig) -> RunRecord:
    """The record that the launcher left."""
    layout = Layout(config.monitor_dir)
    if config.nonce is None:
        return _await_primary(layout)
    record = read_record(layout)
    if record is None or record.nonce != config.nonce:
        raise DirectoryError(
            f"monitor_dir {layout.root}: the launcher's mark is not here, so this is not the directory that the "
            f"launcher wrote to. Put monitor_dir on a filesystem that all roles share"
        )
    return record


def _await_primary(layout: Layout) -> RunRecord:
    """Under torchrun all ranks start at once: rank 0 launches, the others find its record."""
    deadline = time.monotonic() + WAITING
    while time.monotonic() < deadline:
        place = newest(layout.journal(LAUNCH))
        if place is not None and place.is_live() and (record := read_record(layout)) is not None:
            return record
        time.sleep(0.1)
    raise ConfigError(
        f"no job is running in monitor_dir {layout.root}, waited {WAITING:.0f} s: start it with rolecall.launch and "
        f"hand on job.config, or open one role with primary=True"
    )


def _verify(config: MonitorConfig, plan: Plan) -> Plan:
    """The launcher's plan, less what cannot be had where this role stands."""
    here = resolve(config)
    for downgrade in here.downgrades:
        if downgrade not in plan.downgrades:
            logger.warning("on this node: %s", downgrade)
    carriers = {one.backend: one.carrier for one in here.backends}
    backends = tuple(
        BackendPlan(
            backend=one.backend, shared=one.shared and here.shared(one.backend), carrier=carriers[one.backend]
        )
        for one in plan.backends
        if one.backend in carriers
    )
    return Plan(backends=backends, downgrades=here.downgrades)


def _leave_to_parent(reference: weakref.ref[Monitor]) -> None:
    """In a child that was just forked: the journal is its parent's, even if the fork came amid a `log`."""
    if (monitor := reference()) is not None and monitor._journal is not None:  # noqa: SLF001 - the child's own copy
        monitor._journal.abandon()  # noqa: SLF001
        monitor._journal = None  # noqa: SLF001


def _close_forgotten(writer: str, station: Station | None, job: Job | None) -> None:
    """Nobody closed it: the interpreter ends, or the monitor was dropped."""
    if station is not None:
        warnings.warn(f"the monitor of {writer} was never closed", ResourceWarning, stacklevel=2)
        station.close(status_at_exit(), 5.0)
