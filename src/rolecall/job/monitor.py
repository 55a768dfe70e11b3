"""Monitor: what a role reports through. Made by `rolecall.open_monitor` and `rolecall.init`."""

import logging
import math
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSet, Sequence
from functools import partial
from typing import Any, Self

from rolecall import timings
from rolecall.config.plain import plain_config
from rolecall.delivery.events import EventLog
from rolecall.errors import BackendError, raise_together
from rolecall.job.normalize import Normalizer
from rolecall.job.output.lines import JobPrinter
from rolecall.job.tables import INT64, LEAST_INT64
from rolecall.rows import Details
from rolecall.states import Status, status_at_exit, status_of
from rolecall.store.journal import JournalWriter, More

logger = logging.getLogger("rolecall")


Close = Callable[[Status, float], None]
"""What a monitor or a job calls at its end: `WriterSession.close`, and `Job.close` where it is also the launcher."""


class Monitor:
    """What a role reports through. `log` appends to the journal and does nothing else.

    Threads may share it. A forked child's calls record nothing, as the journal is its parent's; after the first one, as
    after the first one that follows `close`, there is a warning, and `dropped` counts them.

    Attributes:
        writer: the role's name in the job, such as `explorer/0`.
        run_id: rolecall's name of the run; `None` if monitoring is off.
    """

    def __init__(  # noqa: PLR0913 - all but the first three by name
        self,
        writer: str,
        journal: JournalWriter | None = None,
        events: EventLog | None = None,
        *,
        run_id: str | None = None,
        raises: bool = False,
        closing: Sequence[Close] = (),
        backends: Sequence[str] = (),
        secrets: tuple[str, ...] = (),
        printer: JobPrinter | None = None,
    ) -> None:
        self.writer = writer
        self.run_id = run_id
        self._events = events or EventLog(writer)
        self._closing = closing
        self._backends = backends
        self._secrets = secrets
        # Where monitoring is off, so that what is set can be read back all the same.
        self._unwritten = Details()
        self._printer = printer
        self._written = journal
        self._journal = journal
        self._raises = raises
        self._normalizer = Normalizer(writer)
        self._lost_at = -math.inf
        self._pid = os.getpid()
        self._forgotten = weakref.finalize(self, close_forgotten, f"the monitor of {writer}", closing)
        # Multiprocessing's children end by `os._exit`, behind finalizers of its own.
        util, process = (sys.modules.get(f"multiprocessing.{name}") for name in ("util", "process"))
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(None, self._forgotten, exitpriority=0)
        os.register_at_fork(after_in_child=partial(_leave_to_parent, weakref.ref(self)))

    def __repr__(self) -> str:
        state = "off" if self._written is None else "closed" if self._journal is None else "open"
        return f"<Monitor {self.writer!r} of run {self.run_id!r}, {state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: where to look."""
        return self._printer.html(self.urls) if self._printer else "monitoring is off"

    @property
    def is_open(self) -> bool:
        """Whether `log` records: not after `close`, in a forked child, or where monitoring is off."""
        return self._journal is not None

    @property
    def urls(self) -> Mapping[str, str | None]:
        """Where you look at the run, for each backend that has opened by now."""
        return dict(self._events.urls)

    @property
    def url(self) -> str | None:
        """The first of `urls` that there is."""
        return next((url for url in self.urls.values() if url), None)

    @property
    def summary(self) -> MutableMapping[str, float | str]:
        """Values that stand for the whole run, and not for a step: `monitor.summary["best"] = 0.9`.

        Numbers and strings, of each key the last. They are this writer's own; in a shared run they have its prefix.
        Setting one never blocks on a backend and never raises. After a restart, those of before are still there.
        """
        return _Summary(self)

    @property
    def tags(self) -> MutableSet[str]:
        """Labels that this writer gives to the run: `monitor.tags.add("baseline")`. A shared run has those of all.

        Adding one never blocks on a backend and never raises. After a restart, those of before are still there.
        """
        return _Tags(self)

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        _Tags(self).replace(tags)

    @property
    def lost(self) -> int:
        """How many rows are not in the journal, because it could not be written or was changed from outside."""
        return self._written.lost if self._written else 0

    @property
    def dropped(self) -> int:
        """How many values and rows were left out, because they are nothing that can be logged."""
        return self._normalizer.dropped

    def log(
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        *,
        commit: bool | None = None,
        axis: str | None = None,
        backends: Sequence[str] | None = None,
    ) -> None:
        """Record metrics at a step of this role's own axis. Once this returns, the row survives the process.

        Never blocks on a backend and never raises, unless `on_backend_error` is `raise`. What cannot be logged is left
        out, counted in `dropped`, and reported once for each key. What cannot be written is counted in `lost`.

        Args:
            data: metrics, such as `{"reward/mean": 0.31}`, under keys of 1 to 512 printable characters. A value is a
                number, or has an `.item()`, which on a GPU tensor waits for the GPU. A nested mapping is flattened
                with `/`, a string is kept as text, `None` is skipped.
            step: a whole number of 64 bits; what is none is reported, and counts as not given. Without it, the one
                after the last on the axis: 1, 2, 3, ..., also after a restart.
            commit: as in `wandb.Run.log`, where each role has a run of its own; ignored in a shared run.
            axis: the name of another axis of steps than the role's own, such as `eval`. A key belongs to the axis on
                which it was first logged; on another one it is shown as `{axis}/{key}`.
            backends: the only backends that get this row, by name: `["console"]`. The journal has it in any case. A
                name that the job does not have is reported once.
        """
        if (journal := self._journal) is None:
            self._drop_late()
            return
        if self._raises and (failure := self._events.take_failure()):
            raise BackendError(failure)
        try:
            # `type` first: a call for each step would cost as much as the check itself.
            if step is not None and (type(step) is not int or not LEAST_INT64 <= step < INT64):
                step = self._normalizer.step(step)
            is_plain = axis is None and commit is not True and backends is None
            more = None if is_plain else self._more(commit, axis, backends)
            if self._normalizer.is_ready(data):
                try:
                    journal.append(data, step, (), more)
                except ValueError:  # another thread may have changed it since: look at each value
                    self._log(journal, data, step, more)
            else:
                self._log(journal, data, step, more)
        except OSError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - out of memory, for one: training must go on
            self._normalizer.drop_row(error)

    def _log(self, journal: JournalWriter, data: Mapping[str, Any], step: int | None, more: More) -> None:
        """Record a row that needs a second look, or one at each value."""
        row, values, texts = self._normalizer.row(data)
        if texts is not None:
            more = {**(more or {}), **texts}
        if not row and not values:
            return
        try:
            journal.append(row, step, values, more)
        except ValueError:
            # Something that JSON cannot hold: keep the rest of the row.
            row, _, _ = self._normalizer.careful(row)
            journal.append(row, step, values, more)

    def log_table(self, name: str, table: Any, step: int | None = None) -> None:
        """Record a table at a step; promises as `log` makes them.

        Args:
            name: the table's key.
            table: `(columns, rows)`, a list of mappings, or a pandas frame.
            step: as in `log`.
        """
        if (journal := self._journal) is None:
            self._drop_late()
            return
        if self._raises and (failure := self._events.take_failure()):
            raise BackendError(failure)
        try:
            plain = self._normalizer.table(name, table)
            if plain is not None:
                journal.append({}, None if step is None else self._normalizer.step(step), values=[plain])
        except OSError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - as in `log`
            self._normalizer.drop_row(error)

    def update_config(self, config: object) -> None:
        """Change the run's config, or add to it. Once this returns, the change survives the process.

        Never blocks on a backend and never raises. It is merged by top-level key, and the later value wins. In a shared
        run, it is this writer's part of the config that changes.

        Args:
            config: of any kind, as `run_config` of `open_monitor`. Secrets are masked; what cannot be read is left out,
                counted in `dropped`, and reported once.
        """

        def change(_: Details) -> Mapping[str, Any]:
            kept, left_out = plain_config(config, self._secrets)
            for what in left_out:
                self._normalizer.drop("update_config", what)
            return {"config": kept} if kept else {}

        self._change("update_config", change)

    def close(self, status: Status = "finished", timeout: float = timings.CLOSE_TIMEOUT) -> None:
        """End the session, wait for the couriers to drain, and report what is left and how to deliver it.

        A second call does nothing.

        Args:
            status: how the role ended.
            timeout: seconds; with 0 the courier's process drains by itself.

        Raises:
            Undelivered: with `on_backend_error: raise`, if rows are left, after every backend was closed; those of
                several backends in an `ExceptionGroup`.
        """
        self._journal = None
        if not self._forgotten.detach():
            return
        deadline = time.monotonic() + timeout
        errors: list[Exception] = []
        for close in self._closing:
            try:
                close(status, max(0.0, deadline - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - raised below, when all are closed
                errors.append(error)
        raise_together(f"{self.writer}: rows are not delivered", errors)

    finish = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(status_of(error))

    def _more(self, commit: bool | None, axis: str | None, backends: Sequence[str] | None) -> Mapping[str, Any]:
        """What only some lines say."""
        found: dict[str, Any] = {"commit": True} if commit is True else {}
        if axis is not None and (name := self._normalizer.axis(axis)):
            found["axis"] = name
        if backends is not None:
            found["backends"] = self._normalizer.backends(backends, self._backends)
        return found

    def _now(self) -> Details:
        """What the summary and the tags are."""
        return self._written.details if self._written is not None else self._unwritten

    def _change(self, what: str, make: Callable[[Details], Mapping[str, Any]]) -> None:
        """Change the config, summary or tags. Raises nothing, as `log` does.

        Args:
            what: what is changed, in words.
            make: the change, of what holds now.
        """
        try:
            if (journal := self._journal) is not None:
                journal.change(make)
            elif self._written is None:
                self._unwritten = self._unwritten.plus(make(self._unwritten))
            else:
                self._drop_late(what)
        except OSError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - as in `log`
            self._normalizer.drop(what, f"it cannot be recorded ({type(error).__name__}) and is left out")

    def _drop_late(self, what: str = "log") -> None:
        """There is no journal: after `close`, in a forked child, or because monitoring is off, which is no loss."""
        if self._written is not None:
            is_forked = self._pid != os.getpid()
            why = "this process was forked; open a monitor in it" if is_forked else "the monitor is closed"
            text = f"the row is left out, as {why}" if what == "log" else f"the change is left out, as {why}"
            self._normalizer.drop(what, text)

    def _lose(self, error: OSError) -> None:
        """The disk is full or gone: training goes on. The journal counts the loss; warn once an episode."""
        try:
            now = time.monotonic()
            # A disk that is almost full takes a row now and then.
            if now - self._lost_at > timings.LOSS_INTERVAL:
                logger.warning("%s: rows are being lost, the journal cannot be written: %s", self.writer, error)
            self._lost_at = now
        except Exception:  # noqa: BLE001, S110 - as in `Normalizer.drop`
            pass


class _Summary(MutableMapping[str, float | str]):
    """`Monitor.summary`: setting a value never raises."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __repr__(self) -> str:
        return repr(dict(self._values))

    @property
    def _values(self) -> Mapping[str, float | str]:
        return self._monitor._now().summary  # noqa: SLF001 - a view of it

    def __getitem__(self, key: str) -> float | str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __setitem__(self, key: str, value: float | str) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self._values:
            raise KeyError(key)
        self._monitor._change("summary", lambda _: {"summary": {key: None}})  # noqa: SLF001

    def update(self, values: Any = (), /, **more: Any) -> None:
        """Set several values at once, which is one line of the journal."""

        def change(now: Details) -> Mapping[str, Any]:
            found = self._monitor._normalizer.summary(dict(values, **more))  # noqa: SLF001
            # A loop may set the same value again and again.
            new = {key: value for key, value in found.items() if now.summary.get(key) != value}
            return {"summary": new} if new else {}

        self._monitor._change("summary", change)  # noqa: SLF001


class _Tags(MutableSet[str]):
    """`Monitor.tags`: adding one never raises."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __repr__(self) -> str:
        return repr(set(self))

    @classmethod
    def _from_iterable(cls, tags: Any) -> Any:
        return set(tags)  # of `tags | {"debug"}`

    @property
    def _values(self) -> Sequence[str]:
        return self._monitor._now().tags  # noqa: SLF001 - a view of it

    def __contains__(self, tag: object) -> bool:
        return tag in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: str) -> None:
        """Give the run a tag of 1 to 64 printable characters."""
        self._change(lambda now: [*now, value])

    def discard(self, value: str) -> None:
        """Take a tag away, if this writer has given it."""
        self._change(lambda now: [tag for tag in now if tag != value])

    def replace(self, tags: Iterable[str]) -> None:
        """Give the run these tags alone."""
        self._change(lambda _: [tags] if isinstance(tags, str) else tags)

    def _change(self, make: Callable[[Sequence[str]], Iterable[str]]) -> None:
        def change(now: Details) -> Mapping[str, Any]:
            found = (self._monitor._normalizer.tag(tag) for tag in make(now.tags))  # noqa: SLF001
            tags = list(dict.fromkeys(tag for tag in found if tag is not None))
            return {} if tags == list(now.tags) else {"tags": tags}

        self._monitor._change("tags", change)  # noqa: SLF001


def _leave_to_parent(reference: weakref.ref[Monitor]) -> None:
    """In a child that was just forked: the journal is its parent's, even if the fork came amid a `log`."""
    if (monitor := reference()) is not None and monitor._journal is not None:  # noqa: SLF001 - the child's own copy
        monitor._journal.abandon()  # noqa: SLF001
        monitor._journal = None  # noqa: SLF001


def close_forgotten(what: str, closing: Sequence[Close]) -> None:
    """Nobody closed it: the interpreter ends, or the monitor or job was dropped."""
    for close in closing:
        close(status_at_exit(), timings.FORGOTTEN_TIMEOUT)
    if closing:  # last, as a warning may be an error
        warnings.warn(f"{what} was never closed", ResourceWarning, stacklevel=2)
