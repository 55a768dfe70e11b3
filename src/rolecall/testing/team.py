"""The couriers of a test: what they deliver, and whether the backend holds it."""

import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from rolecall.protocol import RunTicket
from rolecall.rows import Row
from rolecall.states import Status
from rolecall.testing.builders import TIME, HeldRun, row, ticket
from rolecall.testing.children.nursery import MARK, BackendRaised, Child, Nursery, end_all

if TYPE_CHECKING:
    from rolecall.testing.author import Contract

Mode = Literal["separate", "many", "shared"]
"""A run for each writer; one run, whose rows come through one courier; one run, with a courier for each writer."""
Found = dict[str, list[tuple[int, float]]]
AGAIN: Final = 0.2
"""Seconds before what was not available is tried again."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open run of a courier."""

    id: str
    url: str | None
    declares_axes: bool
    reads_back: bool
    protocols: Sequence[str]
    media_kinds: Sequence[str]


class Courier:
    """A process that holds one run, and does with it what a courier does.

    Attributes:
        ticket: what the run was opened with; unset until `open`.
        run: the run; unset until `open`.
        rejected: the rows that the backend refused for good.
    """

    ticket: RunTicket
    run: Opened

    def __init__(self, stage: "Stage", child: Child) -> None:
        self.child = child
        self.rejected: list[tuple[str, int, int]] = []
        self._stage = stage
        self._declared: dict[str, str] = {}

    def open(self, asked: RunTicket, args: Mapping[str, Any] | None = None) -> Opened:
        """Open, join or resume a run."""
        given = self._stage.args if args is None else args
        name = self._stage.contract.monitor_type
        found = self._again(lambda: self.child.call("open_run", name=name, args=given, ticket=asked))
        self.ticket, self.run = asked, Opened(**found)
        return self.run

    def has(self, protocol: str) -> bool:
        """Whether the run has what this optional Protocol names."""
        return protocol in self.run.protocols

    def log(self, rows: Sequence[Row]) -> None:
        """Hand over the rows that the backend does not hold yet, with their axes bound first."""
        for fresh in self._fresh(rows):
            self.declare(fresh)
            try:
                self._hand_over(fresh)
            except BackendRaised as error:
                if "Rejected" not in error.kinds:
                    raise
                self.rejected += [(writer, session, seq) for writer, session, seq in error.details["rows"]]

    def deliver(self, rows: Sequence[Row]) -> None:
        """Hand over rows and return when the backend says that it holds them."""

        def once() -> None:
            self.log(rows)
            self.flush()

        self._again(once)

    def flush(self) -> None:
        """See `Run.flush`."""
        self.child.call("flush", timeout=self._stage.contract.patience / 2)

    def call(self, method: str, *arguments: Any, rows: Sequence[Row] = ()) -> Any:
        """A method of the run that not every run has."""
        return self._again(lambda: self.child.call("optional", method=method, arguments=arguments, rows=rows))

    def close(self, status: Status = "finished") -> None:
        """See `Run.close`."""
        self._again(lambda: self.child.call("close", status=status))

    def _again(self, action: Any) -> Any:
        """Do it until it succeeds, as couriers do, but no longer than the test's patience."""
        deadline = time.monotonic() + self._stage.contract.patience
        while True:
            try:
                return action()
            except BackendRaised as error:
                if "Unavailable" not in error.kinds or time.monotonic() > deadline:
                    raise
            time.sleep(AGAIN)

    def _fresh(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows that are not held yet, those of each writer's session together."""
        groups: dict[tuple[str, int], list[Row]] = {}
        for each in rows:
            groups.setdefault((each.writer, each.session), []).append(each)
        for (writer, session), group in groups.items():
            held = self.child.call("optional", method="held", arguments=(writer, session)) if self._asks else []
            if fresh := [each for each in group if not any(first <= each.seq <= last for first, last in held)]:
                yield fresh

    @property
    def _asks(self) -> bool:
        return self.has("SupportsProgress")

    def declare(self, rows: Sequence[Row]) -> None:
        """Bind the keys of rows to their axes, each once."""
        if not self.run.declares_axes:
            return
        axes = {key: axis for each in rows for key, axis in axes_of(each).items()}
        if new := {key: axis for key, axis in axes.items() if key not in self._declared}:
            self.child.call("declare_axes", axes=new)
            self._declared |= new

    def _hand_over(self, rows: Sequence[Row]) -> None:
        plain = [each for each in rows if each.table is None and not each.media]
        if plain:
            self.child.call("log", rows=plain)
        for each in rows:
            if each.table is not None or each.media:
                method = "log_media" if each.media else "log_table"
                self.child.call("optional", method=method, arguments=(), rows=[each])


class Stage:
    """One test: where its processes write, and what the author's reader finds.

    Attributes:
        contract: the author's class.
        args: the backend's arguments.
        directory: the backend's own folder.
        root: all that the test writes is below it.
    """

    def __init__(
        self, contract: "Contract", nursery: Nursery, bare: Nursery, root: Path, args: Mapping[str, Any]
    ) -> None:
        self.contract = contract
        self.args = args
        self.root = root
        self.directory = root / "monitor" / "backends" / contract.monitor_type
        self.mark = uuid.uuid4().hex
        self._nursery = nursery
        self._bare = bare
        self._children: list[Child] = []
        for name in ("monitor", "home", "tmp", "work"):
            (root / name).mkdir(parents=True)

    def child(self, environ: Mapping[str, str] | None = None, *, is_bare: bool = False) -> Child:
        """A new process; a bare one has no SDK loaded, whatever the author says."""
        given = {**os.environ, "TMPDIR": str(self.root / "tmp"), MARK: self.mark, **(environ or {})}
        child = (self._bare if is_bare else self._nursery).start(self.root / "work", given, self.contract.patience)
        self._children.append(child)
        return child

    def courier(self, environ: Mapping[str, str] | None = None) -> Courier:
        """A new process that has no run yet."""
        return Courier(self, self.child(environ))

    def ask(self, call: str, *, is_bare: bool = True, **given: Any) -> Any:
        """One of the functions that concern the backend and no open run."""
        child = self.child(is_bare=is_bare)
        reply = child.call(call, name=self.contract.monitor_type, args=self.args, **given)
        child.kill()
        return reply

    def until(self, found: Callable[[], Any]) -> Any:
        """What this finds, as soon as it is anything."""
        deadline = time.monotonic() + self.contract.patience
        while not (result := found()):
            assert time.monotonic() < deadline, f"expected within {self.contract.patience:g} s"
            time.sleep(AGAIN)
        return result

    def end(self) -> None:
        """End all processes, those that a backend's SDK has started included."""
        for child in self._children:
            child.kill()
        end_all(self.mark, {child.pid for child in self._children})

    def ticket(self, **changes: Any) -> RunTicket:
        """A ticket of this test's run."""
        return ticket(**{"directory": self.directory, "run_id": f"contract-{self.mark[:8]}", **changes})

    def held_run(self, courier: Courier, writers: Iterable[str] = ("trainer",), *, shared: bool = False) -> HeldRun:
        """The run of a courier, for a reader."""
        return self.run(courier.run.id, courier.run.url, writers=writers, shared=shared)

    def run(self, run_id: str, url: str | None = None, **changes: Any) -> HeldRun:
        """A run of this backend, for a reader."""
        fields = {"directory": self.directory, "shared": False, **changes}
        fields |= {"directory": Path(fields["directory"]), "writers": tuple(fields["writers"])}
        return HeldRun(monitor_type=self.contract.monitor_type, id=run_id, url=url, args=self.args, **fields)

    def read(self, reader: str, run: HeldRun) -> Any:
        """What the author's reader finds, in a process of its own."""
        kind = type(self.contract)
        child = self.child()
        test = {"module": kind.__module__, "file": file_of(kind), "name": kind.__qualname__}
        found = child.call("read", test=test, reader=reader, run=run)
        child.kill()
        return found

    def points(self, run: HeldRun) -> Found:
        """The metrics that the run holds, without those that are axes."""
        found = self.read("points", run)
        return {key: sorted(map(_pair, held), key=_order) for key, held in found.items() if not is_axis(key)}


@dataclass
class Team:
    """The couriers of two writers, in one of the three ways in which runs are written.

    Attributes:
        stage: the test.
        mode: the way.
        writers: whose rows there are.
    """

    stage: Stage
    mode: Mode
    writers: tuple[str, ...] = ("explorer/0", "trainer")
    _primary: Courier | None = field(default=None, init=False)
    _couriers: dict[str, Courier] = field(default_factory=dict, init=False)
    _ids: dict[str, str] = field(default_factory=dict, init=False)

    def open(self, **changes: Any) -> None:
        """Open the run, or join it, or resume it; with changes to the tickets."""
        if self.mode == "many":
            courier = self._open(None, writers="many", **changes)
            self._couriers = dict.fromkeys(self.writers, courier)
            return
        shared = self.mode == "shared"
        if shared and self._primary is None:
            self._primary = self._open(None, shared=True, **changes)
        for writer in self.writers:
            self._couriers[writer] = self._open(writer, shared=shared, primary=not shared, **changes)

    def _open(self, writer: str | None, **changes: Any) -> Courier:
        courier = self.stage.courier()
        asked = self.stage.ticket(writer=writer, **changes)
        if self.mode == "separate" and writer is not None:
            suffix = writer.replace("/", "-")
            asked = replace(asked, run_id=f"{asked.run_id}-{suffix}", name=f"{asked.name}_{suffix}")
        known = writer if self.mode == "separate" and writer else ""
        courier.open(replace(asked, backend_run_id=self._ids.get(known)))
        before = self._ids.setdefault(known, courier.run.id)
        assert courier.run.id == before, f"opened again, the run is {courier.run.id!r}; it was {before!r}"
        return courier

    def courier(self, writer: str) -> Courier:
        """Who delivers the rows of this writer."""
        return self._couriers[writer]

    def rows(self, steps: Iterable[int], *, session: int = 1, seq: int = 1) -> list[Row]:
        """A row for each step and writer, with two metrics."""
        found = []
        for offset, writer in enumerate(self.writers):
            for at, step in enumerate(steps):
                metrics = {"reward/mean": offset * 1000 + session * 100 + step / 8, "loss": (offset + 1) / step}
                number = {"session": session, "seq": seq + at, "step": step, "time": TIME + 1000 * session + step}
                found.append(self.row(writer, metrics, **number))
        return found

    def row(self, writer: str, metrics: Mapping[str, float], **fields: Any) -> Row:
        """A row with these metrics, under their final keys."""
        made = row(writer=writer, **fields)
        full = {self.key(writer, key): value for key, value in metrics.items()}
        if self.mode != "separate" and self._couriers[writer].run.declares_axes:
            full[f"{writer}/step"] = made.step
        return replace(made, metrics=full)

    def key(self, writer: str, key: str) -> str:
        """A metric's key, as the backend gets it."""
        return key if self.mode == "separate" else f"{writer}/{key}"

    def log(self, rows: Sequence[Row]) -> None:
        """Hand over rows, those of each writer through its courier."""
        for writer in self.writers:
            self._couriers[writer].log([each for each in rows if each.writer == writer])

    def deliver(self, rows: Sequence[Row]) -> None:
        """Hand over rows and have the backend say that it holds them."""
        for writer in self.writers:
            self._couriers[writer].deliver([each for each in rows if each.writer == writer])

    def flush(self, rows: Sequence[Row]) -> None:
        """Have the backend say that it holds these rows, which it was handed; they come again if it does not."""
        for writer in self.writers:
            own = [each for each in rows if each.writer == writer]
            try:
                self._couriers[writer].flush()
            except BackendRaised as error:
                if "Unavailable" not in error.kinds:
                    raise
                self._couriers[writer].deliver(own)

    def declare_all(self, rows: Sequence[Row]) -> None:
        """Bind all keys in each process, the primary's too, as couriers do with what others write."""
        for courier in (*self._distinct(), *([self._primary] if self._primary else [])):
            courier.declare(rows)

    def close(self, status: Status = "finished", config: Mapping[str, Any] | None = None) -> None:
        """Close all runs, the primary's last, which then has the config of all writers."""
        for courier in self._distinct():
            courier.close(status)
        self.end(status, config)

    def end(self, status: Status = "finished", config: Mapping[str, Any] | None = None) -> None:
        """Close the primary, if there is one."""
        if self._primary is not None:
            if config is not None:
                self._primary.call("merge_config", config)
            self._primary.close(status)
            self._primary = None

    def kill(self) -> None:
        """Kill the couriers that have rows."""
        for courier in self._distinct():
            courier.child.kill()

    def _distinct(self) -> list[Courier]:
        return list(dict.fromkeys(self._couriers.values()))

    def runs(self) -> list[HeldRun]:
        """The run, or the runs of all writers."""
        if self.mode != "separate":
            courier = next(iter(self._couriers.values()))
            return [self.stage.held_run(courier, self.writers, shared=self.mode == "shared")]
        return [self.stage.held_run(courier, [writer]) for writer, courier in self._couriers.items()]

    def holds(self, rows: Sequence[Row], *, once: bool = True) -> None:
        """Assert that the backend holds these rows and no other."""
        for courier in self._distinct():
            assert not courier.rejected, f"rejected: {courier.rejected}"
        for run in self.runs():
            wanted = [each for each in rows if each.writer in run.writers]
            agree(self.stage, self.stage.points(run), expected(self.stage, wanted), once=once)

    def has_status(self, wanted: Status | None) -> None:
        """Assert that each run ended in this way; with `None`, that it has not ended."""
        for run in self.runs():
            held = self.stage.read("status", run)
            if wanted is None:
                assert held not in get_args(Status), f"expected a run that has not ended, held {held!r}"
            else:
                assert held == wanted, f"expected the status {wanted!r}, held {held!r}"


def axes_of(given: Row) -> dict[str, str]:
    """The axis of each metric of a row that has its axis as a metric."""
    axis = f"{given.writer}/step"
    return {key: axis for key in given.metrics if key != axis} if axis in given.metrics else {}


def is_axis(key: str) -> bool:
    """Whether a metric of the contract is an axis: no other is called so."""
    return key == "step" or key.endswith("/step")


def expected(stage: Stage, rows: Iterable[Row]) -> Found:
    """What a backend must hold of these rows."""
    found: Found = {}
    for each in rows:
        for key, value in each.metrics.items():
            if not is_axis(key) and (held := stage.contract.expected_value(value)) is not None:
                found.setdefault(key, []).append((each.step, held))
    return {key: sorted(points, key=_order) for key, points in found.items()}


def agree(stage: Stage, held: Mapping[str, Any], wanted: Mapping[str, Any], *, once: bool = True) -> None:
    """Assert that metrics are equal, apart from the backend's tolerance.

    Args:
        stage: the test.
        held: what the backend holds.
        wanted: what it must hold.
        once: whether each point must be there once; else once or more.
    """
    assert sorted(held) == sorted(wanted), f"expected the keys {sorted(wanted)}, held {sorted(held)}"
    for key, points in wanted.items():
        lacking, extra = differences(held[key], points, stage.contract.tolerance)
        if not once:
            extra = [
                each for each in extra if not any(_same(each, point, stage.contract.tolerance) for point in points)
            ]
        wrong = [f"{what} {shown(some)}" for what, some in (("not held", lacking), ("not expected", extra)) if some]
        assert not wrong, f"{key}: expected {shown(points)}, held {shown(held[key])}; {'; '.join(wrong)}"


def differences(held: Sequence[Any], wanted: Sequence[Any], tolerance: float) -> tuple[list[Any], list[Any]]:
    """The points that are lacking and those that are too many."""
    left, lacking = list(held), []
    for point in wanted:
        match = next((each for each in left if _same(each, point, tolerance)), None)
        if match is None:
            lacking.append(point)
        else:
            left.remove(match)
    return lacking, left


def _same(one: Any, other: Any, tolerance: float) -> bool:
    return one[0] == other[0] and same_value(one[1], other[1], tolerance)


def same_value(held: object, wanted: float, tolerance: float) -> bool:
    """Whether a value is held, as near as the backend holds values."""
    if not isinstance(held, int | float):
        return False
    if math.isnan(wanted) or math.isnan(held):
        return math.isnan(wanted) and math.isnan(held)
    if held == wanted:
        return math.copysign(1, held) == math.copysign(1, wanted)
    return tolerance > 0 and math.isclose(held, wanted, rel_tol=tolerance)


def shown(points: Sequence[Any]) -> str:
    """A few points, for a message."""
    return f"{list(points[:8])}{f' and {len(points) - 8} more' if len(points) > 8 else ''}"  # noqa: PLR2004


def file_of(kind: type) -> str:
    """The file that defines a class."""
    import inspect

    assert "<locals>" not in kind.__qualname__, "define the class at the top of its module, where a reader can find it"
    return inspect.getfile(kind)


def _pair(point: Sequence[Any]) -> tuple[int, float]:
    step, value = point
    return step, value


def _order(point: tuple[int, float]) -> tuple[int, str]:
    return point[0], repr(point[1])
