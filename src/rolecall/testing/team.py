"""The couriers of several writers, and whether the backend holds what they deliver."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from rolecall.rows import Row
from rolecall.states import Status
from rolecall.testing.builders import TIME, HeldRun, row
from rolecall.testing.children.nursery import BackendRaised
from rolecall.testing.compare import agree, expected
from rolecall.testing.stage import Courier, Stage

Mode = Literal["separate", "many", "shared"]
"""A run for each writer; one run, whose rows come through one courier; one run, with a courier for each writer."""


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
        contract = self.stage.contract
        for courier in self._distinct():
            assert not courier.rejected, f"rejected: {courier.rejected}"
        for run in self.runs():
            wanted = [each for each in rows if each.writer in run.writers]
            agree(contract, self.stage.points(run), expected(contract, wanted), once=once)

    def has_status(self, wanted: Status | None) -> None:
        """Assert that each run ended in this way; with `None`, that it has not ended."""
        for run in self.runs():
            held = self.stage.read("status", run)
            if wanted is None:
                assert held not in get_args(Status), f"expected a run that has not ended, held {held!r}"
            else:
                assert held == wanted, f"expected the status {wanted!r}, held {held!r}"
