"""The values and Protocols that hooks take and return.

A backend's author needs this module, `rolecall.hookimpl` and the two errors `Unavailable` and `Rejected`.
Only `Run` is required. What not every backend can do is a Protocol of its own (`SupportsText`, `SupportsTables`,
`SupportsTableMedia`, `SupportsMedia`, `SupportsConfig`, `SupportsSummary`, `SupportsTags`, `SupportsEndTime`,
`SupportsProgress`, `SupportsConfirmation`): the courier uses it if the run has its members.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from rolecall.rows import MediaKind, Row
from rolecall.states import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRunSupport:
    """Whether several processes may write one run, and if not, why, in words that a user can act on."""

    supported: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTicket:
    """What `open_run` is asked for.

    Attributes:
        project: where the backend files the run.
        name: the run's display name: the job's, or `{name}_{role}` when the run is a role's own.
        group: what ties separate runs of a job together; `None` for a shared run without a group.
        run_id: rolecall's own name of the run, for backends that accept one; the backend's id of an attached one.
        backend_run_id: what this backend called the run when it was opened before (by the primary, or by an
            earlier session); `None` if it never was. A backend that chooses ids itself and gets a shared
            ticket with neither `primary` nor this id raises `Unavailable`: the primary has not opened yet.
        shared: whether other processes write this run too.
        primary: whether this opening creates and ends the run. True for every run that is not shared.
        writer: `"explorer"` or `"explorer/0"`; `None` in a launcher, which logs no rows.
        role: the role of the writer, or `None`.
        tags: labels of the run; of a shared one they come by `SupportsTags` alone.
        created: when the job was first launched, in seconds since the epoch; 0 if that is not known.
        job: the job's name, whatever the run is called; empty if that is not known.
        source: what the process ran that the run is of, the launcher or the role, and not a courier: the `name` of its
            script, the `user`, and the git `commit` of the script's checkout. What is not known is not there.
        ended: when the writers of the run ended, if it is opened after that, as `rolecall deliver` does; `None` while
            one of them runs. It is the run's end then, and not the moment at which the last row arrives. Of a run
            that is opened before, `SupportsEndTime` tells the end.
        writers: whether rows of several writers come through this one `Run`. With `"many"`, steps repeat and
            decrease from one writer to the next, and state is kept per (writer, session).
        has_axes: whether the rows of a run of the writer's own are on several axes of steps. Where the backend
            declares axes, they then have their steps as metrics from the first one on, as in a shared run. If this is
            not known yet, they have them from the first call of `declare_axes` on.
        config: the run's config as a nested mapping, secrets scrubbed: the job's, and in a run that is not shared
            the role's too. In a shared one that comes by `SupportsConfig`.
        directory: the backend's own folder, absolute: the only place below `monitor_dir` that it may write to. It
            may not exist yet.
        pid: the process whose rows these are (the courier is another one).
        attached: whether the user named a run of the backend by the argument `run_id`, which may exist already. Then it
            is not rolecall's: it keeps its name and its config, and its end is left to whoever made it. Raise
            `BackendRefused` if there is no such run, or if this one would disturb what else writes it.
        repair: whether the run is opened to put back points that `rolecall verify` misses. Rows then have the missing
            metrics alone, and are written whatever the run's own records say of them. `backend_run_id` is set and
            `primary` is not: the run's status and times stay as they are. Raise `BackendRefused` if the run takes no
            points between those that it holds.
    """

    project: str
    name: str
    group: str | None
    run_id: str
    backend_run_id: str | None
    shared: bool
    primary: bool
    writer: str | None
    role: str | None
    config: Mapping[str, Any]
    directory: Path
    pid: int
    tags: tuple[str, ...] = ()
    created: float = 0.0
    job: str = ""
    source: Mapping[str, str] = field(default_factory=dict)
    ended: float | None = None
    writers: Literal["one", "many"] = "one"
    has_axes: bool = False
    attached: bool = False
    repair: bool = False


class Run(Protocol):
    """An open run of one backend, held by a courier and called from one thread.

    Every method may block; none of them runs in the training loop.
    """

    @property
    def id(self) -> str:
        """What the backend calls this run; enough to find it again in a later process."""

    @property
    def url(self) -> str | None:
        """Where you look at it: an address, or a command to run; `None` if there is nothing."""

    def log(self, rows: Sequence[Row]) -> None:
        """Hand over rows, in order, none with a table or media. Keys are final: prefixed where the run is shared.

        Raises:
            Unavailable: none or some were taken; the same rows come again. Where the backend can tell
                repeated rows apart, they count once.
            Rejected: all were taken but those it carries.
        """

    def flush(self, timeout: float) -> None:
        """Return once the backend *holds* every row that `log` took: it is the acknowledgement.

        Raises:
            Unavailable: not within `timeout` seconds, or not at all for now; unacknowledged rows come again.
        """

    def close(self, status: Status) -> None:
        """Release the run. Only the primary ends it in the backend, with this status.

        It may be called again, after it raised or returned; that changes nothing more.

        Raises:
            Unavailable: the backend cannot end the run now; it is called again.
        """


@runtime_checkable
class SupportsText(Protocol):
    """A run that says whether it holds the strings of rows; one that says nothing does."""

    @property
    def holds_text(self) -> bool:
        """If it does not, they stay in the job's directory, which is reported once."""


@runtime_checkable
class SupportsTables(Protocol):
    """A run that holds tables."""

    def log_table(self, row: Row) -> None:
        """Hand over one row whose `table` is set; errors as in `Run.log`."""


@runtime_checkable
class SupportsMedia(Protocol):
    """A run that holds images, histograms or other media."""

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        """The kinds that it holds. What is of another one stays in the job's directory, which is reported once.

        A run that holds `html` and no `markdown` gets Markdown as a page of `html`.
        """

    def log_media(self, row: Row) -> None:
        """Hand over one row whose `media` are set, all of one kind that it holds; errors as in `Run.log`.

        The files of the media can be read until the row is acknowledged, and longer where nobody removes them.
        """


@runtime_checkable
class SupportsTableMedia(Protocol):
    """A run whose tables may hold images."""

    @property
    def table_media_kinds(self) -> frozenset[MediaKind]:
        """The kinds that are `Media` in a cell. What is of another one is the path of its file there, as a string."""


@runtime_checkable
class SupportsConfig(Protocol):
    """A run whose config may change while it is open."""

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Store a nested mapping beside what the run already has; by top-level key, the later value wins.

        In a run that is not shared it is what `Monitor.update_config` was given: `{"lr": 0.1}`. In a shared one, and in
        one of many writers, it has the config of each, under the writer's name: `{"explorer/0": {"lr": 0.1}}`. Called
        with the whole union, again after each change and after a restart; what is already stored must not be an error.

        What this raises is treated as for `Run.flush` if it is `Unavailable`. Anything else is reported, and the config
        is not passed again before it changes.
        """


@runtime_checkable
class SupportsSummary(Protocol):
    """A run with a summary: values that stand for the whole run and not for a step of it."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """Store these values beside what the summary already has.

        Called with all that `Monitor.summary` holds, under the keys of the run, again after each change and after a
        restart. In a shared run the courier of each role calls it with what this role set, and the primary does not. A
        key that is not there any more was removed. Errors as in `merge_config`.
        """


@runtime_checkable
class SupportsTags(Protocol):
    """A run whose tags may change while it is open."""

    def set_tags(self, tags: Sequence[str]) -> None:
        """Give the run these tags, beside those that it did not get from `Monitor.tags`.

        Called with all of them, in the primary alone where the run is shared, again after each change and after a
        restart. A tag that is not there any more was removed. Errors as in `merge_config`.
        """


@runtime_checkable
class SupportsEndTime(Protocol):
    """A run that keeps when it ended."""

    def end_at(self, time: float) -> None:
        """When the writers of the run ended, in seconds since the epoch: it ended then, and not when it is closed.

        Called before `close`, which may come minutes later, after an outage; not if a writer is still alive.
        """


@runtime_checkable
class SupportsProgress(Protocol):
    """A run that can be asked what its backend holds; that makes delivery exactly once."""

    def held(self, writer: str, session: int) -> Sequence[tuple[int, int]]:
        """The rows of this writer's session that the backend holds, as ranges of `seq`: `[(1, 40), (43, 50)]`."""


@runtime_checkable
class SupportsConfirmation(Protocol):
    """A run whose backend takes rows long before it can say that it holds them.

    Rows are acknowledged as they are confirmed, and new ones handed over meanwhile; `flush` is only called once the
    writers have ended, and before the axes of a run are declared that had none.
    """

    def tend(self) -> None:
        """Ask the backend how far it got, where it is time to; called every second as long as the run is open.

        Raises:
            Unavailable: the backend does not answer, or lost what it took: unconfirmed rows come again.
        """

    def confirmed(self, writer: str, session: int) -> int:
        """The highest `seq` up to which the backend holds every row, as `tend` last learned; 0 if none.

        It must cost next to nothing.
        """


class Point(NamedTuple):
    """One value of a metric: its step, the value, and the time in seconds since the epoch."""

    step: int
    value: float
    time: float


class SupportsReadback(Protocol):
    """What a run holds, read back. Nothing here creates, resumes or changes a run."""

    def keys(self) -> Iterable[str]:
        """The metrics that the run holds, named as the backend names them; without those that come from no row.

        Raises:
            Unavailable: the backend does not answer; any method here may raise it.
        """

    def points(self, key: str) -> Iterator[Point]:
        """All points of a metric, in any order, as many times as the backend holds each."""

    def expected(self, row: Row) -> Row:
        """The row as this backend would hold it: keys renamed, values of 32 bits, what it leaves out left out.

        Called for each row of a writer, in order. So a backend that stores equal points once leaves out the later ones
        here. The time is rounded as the backend rounds it; that helps to tell which of several equal points is missing.
        """

    def close(self) -> None:
        """Let go of it."""


@runtime_checkable
class SupportsScan(Protocol):
    """A readback of a backend that keeps all metrics in one place, a file for example, and reads it once for all."""

    def scan(self) -> Iterator[tuple[str, Point]]:
        """All points of all metrics with their keys, in any order: what `points` yields for each of `keys`."""
