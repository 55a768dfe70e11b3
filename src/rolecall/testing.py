"""The contract that every backend must pass, as a class of tests.

A plugin's own tests subclass it::

    class TestContract(BackendContract):
        monitor_type = "mine"

        @pytest.fixture
        def monitor_args(self, tmp_path):
            return {"path": str(tmp_path / "runs.db")}

        def points(self, job, writer, key):
            return ...  # [(step, value), ...], read by a way that bypasses the plugin

Each test runs a job as a user does, with `launch` and `open_monitor`. Where every row is counted, its couriers are
processes; elsewhere they are threads, which is quicker. What a backend cannot do (a shared run, tables) is skipped, not
failed. Needs pytest.
"""

import math
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points, packages_distributions, requires
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from rolecall.backends.installed import GROUP
from rolecall.backends.registry import Backend, Registry
from rolecall.config.model import MonitorConfig
from rolecall.config.resolve import resolve
from rolecall.delivery.check.compare import compare
from rolecall.delivery.check.points import PointTable
from rolecall.delivery.check.verify import targets
from rolecall.delivery.redeliver import deliver
from rolecall.job.launch import Job, launch, open_monitor
from rolecall.protocol import RunTicket, SharedRunSupport, SupportsTables
from rolecall.rows import Row
from rolecall.states import Status
from rolecall.store.acks import read_reference, undelivered
from rolecall.store.layout import LAUNCH, Layout

__all__ = ["BackendContract", "FinishedJob", "Points"]

Points = list[tuple[int, float]]
"""A metric as a backend holds it: steps and values, in the order of steps."""

STEPS = range(1, 51)


@dataclass(frozen=True)
class FinishedJob:
    """A job that a test ran, for reading back what it left.

    `run_ids` holds what the backend calls the run of each writer; in a shared run it is the same for all.
    """

    config: MonitorConfig
    monitor_type: str
    run_ids: Mapping[str, str]
    urls: Mapping[str, str | None]

    @property
    def monitor_dir(self) -> Path:
        """Where its journals are."""
        return self.config.monitor_dir

    @property
    def shared(self) -> bool:
        """Whether all writers are in one run."""
        return self.config.spec().plan.shared(self.monitor_type)

    def key(self, writer: str, key: str) -> str:
        """A metric's key as it was handed to the backend."""
        return f"{writer}/{key}" if self.shared else key


class BackendContract:
    """Subclass it, name the backend, give its arguments, and read back what it holds."""

    monitor_type: str
    """The backend's name."""

    tolerance: float = 0.0
    """How far a value may be off, relatively; 1e-6 for a backend of 32-bit floats."""

    @pytest.fixture
    def monitor_args(self, tmp_path: Path) -> Mapping[str, Any]:
        """The backend's arguments for one test."""
        return {}

    def points(self, job: FinishedJob, writer: str, key: str) -> Points:
        """What the backend holds of a writer's metric, read by a way that bypasses the plugin."""
        raise NotImplementedError

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend, found as a user's config finds it."""
        return Registry().load(self.monitor_type)

    @pytest.fixture(params=["shared", "separate"])
    def config(
        self, request: pytest.FixtureRequest, tmp_path: Path, backend: Backend, monitor_args: Mapping[str, Any]
    ) -> MonitorConfig:
        """A config of the backend, with a shared run and without."""
        config = MonitorConfig(
            project="contract",
            name="run",
            monitor_type=self.monitor_type,
            monitor_args={self.monitor_type: dict(monitor_args)},
            shared_run=request.param == "shared",
            monitor_dir=tmp_path / "monitor",
            courier="thread",
        )
        if config.shared_run and not resolve(config).shared(self.monitor_type):
            pytest.skip("it does not share runs")
        return config

    def test_is_listed_under_its_name(self) -> None:
        assert self.monitor_type in Registry().names()

    def test_loads_without_its_sdk(self) -> None:
        """Listing, loading and checking a backend happen in processes that never log to it."""
        load = f"Registry().load({self.monitor_type!r})"
        script = f"import sys; from rolecall import Registry; {load}; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert _sdk_modules(self.monitor_type) & set(loaded.split()) == set()

    def test_arguments_are_checked(self, backend: Backend, monitor_args: Mapping[str, Any]) -> None:
        model = backend.args_model()
        assert isinstance(model.model_validate(dict(monitor_args)), model)
        with pytest.raises(ValidationError):
            model.model_validate({**monitor_args, "no_such_argument_": 1})

    def test_says_whether_it_shares(self, backend: Backend, monitor_args: Mapping[str, Any]) -> None:
        support = backend.supports_shared_run(backend.args_model().model_validate(dict(monitor_args)))
        assert isinstance(support, SharedRunSupport)
        assert support.supported or len(support.reason.split()) > 2  # noqa: PLR2004 - words, not a code

    def test_holds_every_row_of_every_writer(self, config: MonitorConfig) -> None:
        job = self._run(config.model_copy(update={"courier": "process"}))
        for offset, writer in enumerate(("explorer/0", "explorer/1", "trainer")):
            held = self.points(job, writer, "reward/mean")
            assert [step for step, _ in held] == list(STEPS), writer
            values = [_value(offset, step) for step in STEPS]
            assert [value for _, value in held] == pytest.approx(values, rel=self.tolerance, abs=0), writer

    def test_opens_one_run_if_it_shares_and_several_if_not(self, config: MonitorConfig) -> None:
        job = self._run(config)
        assert len(set(job.run_ids.values())) == (1 if job.shared else len(job.run_ids))

    def test_keeps_on_behind_values_that_are_hard_to_hold(self, config: MonitorConfig) -> None:
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            for step, value in enumerate((math.nan, math.inf, -math.inf, 1e300, -(2**63), 0, True), start=1):
                monitor.log({"hard": value, "easy": step}, step=step)
            monitor.log({"odd @key#[x]=1,": 1.0, "a" * 300: 1.0, "easy": 8}, step=8)
            monitor.log({"easy": 9}, step=9)
        steps = [step for step, _ in self.points(self._finished(job), "trainer", "easy")]
        assert {1, 2, 3, 4, 5, 6, 7, 9} <= set(steps)

    def test_takes_rows_again_whose_acknowledgement_was_lost(self, config: MonitorConfig) -> None:
        """At least once: everything is there, and nothing that was not logged."""
        job = self._run(config)
        shutil.rmtree(job.monitor_dir / "delivery" / self.monitor_type / "trainer")
        args = {self.monitor_type: job.config.monitor_args[self.monitor_type].model_dump(exclude_unset=True)}
        assert deliver(job.monitor_dir, None, args, timeout=60.0) == []
        assert {step for step, _ in self.points(job, "trainer", "reward/mean")} == set(STEPS)

    def test_goes_on_in_the_same_run_after_a_failure(self, config: MonitorConfig) -> None:
        first = self._run(config, steps=range(1, 11), status="failed")
        second = self._run(config, steps=range(11, 21))
        assert second.run_ids == first.run_ids
        assert [step for step, _ in self.points(second, "trainer", "reward/mean")] == list(range(1, 21))

    def test_holds_tables_or_leaves_them_in_the_journal(self, config: MonitorConfig) -> None:
        with launch(config) as job, open_monitor(job.config, "evaluator") as monitor:
            monitor.log({"easy": 1}, step=1)
            monitor.log_table("samples", [{"prompt": "2+2", "reward": 1.0}, {"prompt": "a|b\n", "reward": None}], 1)
            monitor.log({"easy": 2}, step=2)
        done = self._finished(job)
        assert [step for step, _ in self.points(done, "evaluator", "easy")] == [1, 2]
        assert undelivered(Layout(done.monitor_dir), self.monitor_type, "evaluator") == 0

    def test_readback_agrees_with_points(self, backend: Backend, config: MonitorConfig) -> None:
        """`rolecall verify` sees what your `points` sees, and finds it equal to what was logged."""
        if not backend.reads_back:
            pytest.skip("it has no open_readback")
        job = self._run(config)
        for target in targets(job.config.spec()):
            with closing(target.open_readback()) as readback:
                for writer, key in product(target.writers, ("reward/mean", "loss")):
                    row = Row(writer=writer, session=1, seq=1, step=1, time=0.0, metrics={job.key(writer, key): 0.0})
                    (name,) = readback.expected(row).metrics
                    held = sorted((point.step, point.value) for point in readback.points(name))
                    assert [step for step, _ in held] == list(STEPS)
                    wanted = [value for _, value in self.points(job, writer, key)]
                    assert [value for _, value in held] == pytest.approx(wanted, rel=self.tolerance, abs=0)
            with PointTable() as table:
                report = compare(target, table)
                assert report.state == "equal", (report.problem, report.examples)

    def test_opened_run_is_whole(self, backend: Backend, config: MonitorConfig) -> None:
        config.monitor_dir.mkdir(parents=True, exist_ok=True)
        ticket = RunTicket(
            project=config.project,
            name="run_trainer",
            group="run",
            run_id="contract-run",
            backend_run_id=None,
            shared=False,
            primary=True,
            writer="trainer",
            role="trainer",
            config={"lr": 0.1},
            directory=config.monitor_dir / "backends" / self.monitor_type,
            pid=1,
        )
        run = backend.open_run(ticket, config.monitor_args[self.monitor_type])
        row = Row(writer="trainer", session=1, seq=1, step=1, time=1_700_000_000.0, metrics={"loss": 0.5})
        run.log([row])
        run.flush(30.0)
        run.close("finished")
        assert isinstance(run.id, str)
        assert run.url is None or isinstance(run.url, str)
        assert not isinstance(run, SupportsTables) or callable(run.log_table)

    def _run(self, config: MonitorConfig, steps: Iterable[int] = STEPS, status: Status = "finished") -> FinishedJob:
        job = launch(config, run_config={"seed": 1})
        roles = (("explorer", 0), ("explorer", 1), ("trainer", None))
        monitors = [open_monitor(job.config, role, rank, run_config={"lr": 0.1}) for role, rank in roles]
        for step in steps:
            for offset, monitor in enumerate(monitors):
                monitor.log({"reward/mean": _value(offset, step), "loss": 1 / step}, step=step)
        for monitor in monitors:
            monitor.close(status)
        job.close(status)
        return self._finished(job)

    def _finished(self, job: Job) -> FinishedJob:
        layout, run_ids = Layout(job.config.monitor_dir), {}
        for writer in layout.writers():
            assert undelivered(layout, self.monitor_type, writer) == 0, f"{writer} is not delivered"
            owner = LAUNCH if job.plan.shared(self.monitor_type) else writer
            if reference := read_reference(layout, self.monitor_type, owner):
                run_ids[writer] = reference.id
        return FinishedJob(job.config, self.monitor_type, run_ids, job.urls)


def _value(offset: int, step: int) -> float:
    return offset + step / 10


def _sdk_modules(monitor_type: str) -> set[str]:
    """The top-level modules of what a backend's distribution requires beside rolecall and its own requirements."""
    (point,) = entry_points(group=GROUP, name=monitor_type)
    required = {canonicalize_name(Requirement(text).name) for text in (point.dist and point.dist.requires) or ()}
    ours = {canonicalize_name(Requirement(text).name) for text in requires("rolecall") or ()} | {"rolecall"}
    found = packages_distributions().items()
    return {top for top, names in found if {canonicalize_name(name) for name in names} & (required - ours)}
