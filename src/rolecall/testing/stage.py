"""One test: where its processes write, its couriers, and what the author's reader finds."""

import inspect
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rolecall.protocol import RunTicket
from rolecall.rows import Row
from rolecall.states import Status
from rolecall.testing.builders import HeldRun, ticket
from rolecall.testing.children.nursery import MARK, BackendRaised, Child, Nursery, end_all
from rolecall.testing.compare import Found, axes_of, in_order, is_axis

if TYPE_CHECKING:
    from rolecall.testing.author import Contract

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
    holds_text: bool
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
        self.rejected: set[tuple[str, int, int]] = set()
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
        self._again(lambda: self._log(rows))

    def _log(self, rows: Sequence[Row]) -> None:
        for fresh in self._fresh(rows):
            self._declare(fresh)
            if plain := [each for each in fresh if each.table is None and not each.media]:
                self._hand_over("log", plain)
            for each in fresh:
                if each.table is not None or each.media:
                    self._hand_over("log_media" if each.media else "log_table", [each])

    def _hand_over(self, method: str, rows: Sequence[Row]) -> None:
        try:
            if method == "log":
                self.child.call("log", rows=rows)
            else:
                self.child.call("optional", method=method, arguments=(), rows=rows)
        except BackendRaised as error:
            if "Rejected" not in error.kinds:
                raise
            self.rejected |= {(writer, session, seq) for writer, session, seq in error.details["rows"]}

    def deliver(self, rows: Sequence[Row]) -> None:
        """Hand over rows and return when the backend says that it holds them."""

        def once() -> None:
            self._log(rows)
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

    def _again(self, action: Callable[[], Any]) -> Any:
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
            held: Sequence[tuple[int, int]] = ()
            if self.has("SupportsProgress"):
                held = self.child.call("optional", method="held", arguments=(writer, session))
            if fresh := [each for each in group if not any(first <= each.seq <= last for first, last in held)]:
                yield fresh

    def declare(self, rows: Sequence[Row]) -> None:
        """Bind the keys of rows to their axes, each once."""
        self._again(lambda: self._declare(rows))

    def _declare(self, rows: Sequence[Row]) -> None:
        if not self.run.declares_axes:
            return
        axes = {key: axis for each in rows for key, axis in axes_of(each).items()}
        if new := {key: axis for key, axis in axes.items() if key not in self._declared}:
            self.child.call("declare_axes", axes=new)
            self._declared |= new


class Stage:
    """One test: where its processes write, and what the author's reader finds.

    Attributes:
        contract: the author's class.
        args: the backend's arguments.
        directory: the backend's own folder.
        root: all that the test writes is below it.
        children: the processes that it has started.
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
        self.children: list[Child] = []
        for name in ("monitor", "home", "tmp", "work"):
            (root / name).mkdir(parents=True)

    def child(self, environ: Mapping[str, str] | None = None, *, is_bare: bool = False) -> Child:
        """A new process; a bare one has no SDK loaded, whatever the author says."""
        given = {**os.environ, "TMPDIR": str(self.root / "tmp"), MARK: self.mark, **(environ or {})}
        child = (self._bare if is_bare else self._nursery).start(self.root / "work", given, self.contract.patience)
        self.children.append(child)
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
        for child in self.children:
            child.kill()
        end_all(self.mark, {child.pid for child in self.children})
        for nursery in {self._nursery, self._bare}:
            nursery.reap()

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
        test = {"module": kind.__module__, "file": _file_of(kind), "name": kind.__qualname__}
        found = child.call("read", test=test, reader=reader, run=run)
        child.kill()
        return found

    def points(self, run: HeldRun) -> Found:
        """The metrics that the run holds, without those that are axes."""
        found = self.read("points", run)
        return {key: in_order(held) for key, held in found.items() if not is_axis(key)}


def _file_of(kind: type) -> str:
    """The file that defines a class."""
    assert "<locals>" not in kind.__qualname__, "define the class at the top of its module, where a reader can find it"
    return inspect.getfile(kind)
