"""What `Monitor.log` counts, keeps and never does: raise."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest
from pydantic_core import to_json

from rolecall import ConfigError, Job, Monitor, MonitorConfig, Row, Table, launch, open_monitor
from rolecall.job.history import read_rows

MakeConfig = Callable[..., MonitorConfig]


def rows(job: Job) -> list[Row]:
    return list(read_rows(job.config.monitor_dir))


def steps(job: Job) -> list[int]:
    return [row.step for row in rows(job)]


# ------------------------------------------------------------------ steps


def test_log_counts_its_steps(job: Job, monitor: Monitor) -> None:
    for _ in range(3):
        monitor.log({"loss": 0.5})
    monitor.log_table("samples", [{"a": 1}])
    assert steps(job) == [1, 2, 3, 4]


def test_count_goes_on_after_restart(job: Job) -> None:
    """Whether the role closed or logged anything before."""
    for number in (1, 2, 3):
        with open_monitor(job.config, "trainer") as monitor:
            for _ in range(number - 1):
                monitor.log({"loss": 0.5})
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    assert [(row.session, row.step) for row in rows(job)] == [(2, 1), (3, 2), (3, 3), (4, 4)]


def test_given_steps_move_the_count(job: Job, monitor: Monitor) -> None:
    for step in (None, 10, None, 5, None, -7, None):
        monitor.log({"loss": 0.5}, step)
    assert steps(job) == [1, 10, 11, 5, 6, -7, -6]


def test_given_steps_and_a_restart(job: Job) -> None:
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5}, 41)
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
        monitor.log({"loss": 0.5}, 7)
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    assert steps(job) == [41, 42, 7, 8]


def test_long_session_and_a_restart(job: Job) -> None:
    with open_monitor(job.config, "trainer") as monitor:
        for _ in range(2500):
            monitor.log({"loss": 0.5})
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    assert steps(job) == list(range(1, 2502))


def test_dropped_row_takes_no_step(job: Job, monitor: Monitor) -> None:
    for data in ({}, {"loss": object()}, 5, {"loss": 0.5}):
        monitor.log(data)  # type: ignore[arg-type]
    monitor.log({"loss": 0.5})
    assert steps(job) == [1, 2]


def test_step_that_is_none_costs_no_row(job: Job, monitor: Monitor) -> None:
    for step in (7.0, 7.5, "8", 2**63, None):
        monitor.log({"loss": 0.5}, step)  # type: ignore[arg-type]
        monitor.log_table("samples", [{"a": 1}], step)  # type: ignore[arg-type]
    assert steps(job) == [7, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert monitor.dropped == 6


# ------------------------------------------------------------------ values


# ------------------------------------------------------------------ axes


def on_axes(job: Job) -> list[tuple[str | None, int]]:
    return [(row.axis, row.step) for row in rows(job)]


def test_each_axis_counts_its_own_steps(job: Job) -> None:
    """Also after a restart, and after one without an end."""
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
        monitor.log({"accuracy": 0.5}, axis="eval")
        monitor.log({"loss": 0.5}, step=10)
        monitor.log({"accuracy": 0.5}, axis="eval")
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"accuracy": 0.5}, axis="eval")
        monitor.log({"loss": 0.5})
        monitor.log({"samples": Table([{"a": 1}]), "accuracy": 0.5}, axis="eval")
    assert on_axes(job) == [
        *((None, 1), ("eval", 1), (None, 10), ("eval", 2)),
        *(("eval", 3), (None, 11), ("eval", 4), ("eval", 4)),
    ]


def test_axes_of_a_long_session(job: Job) -> None:
    """The last step of each axis is found in the last 1,000 rows, though that axis is in none of them."""
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"accuracy": 0.5}, step=7, axis="eval")
        for _ in range(2100):
            monitor.log({"loss": 0.5})
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"accuracy": 0.5}, axis="eval")
    assert on_axes(job)[-1] == ("eval", 8)


@pytest.mark.parametrize("axis", [7, "", "a\nb", object()])
def test_axis_that_is_none_costs_no_row(
    job: Job, monitor: Monitor, axis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.log({"loss": 0.5}, axis=axis)
    assert on_axes(job) == [(None, 1)]
    assert monitor.dropped == 1
    assert len(caplog.messages) == 1


def test_axes_have_a_bound(job: Job, monitor: Monitor) -> None:
    for number in range(150):
        monitor.log({"loss": 0.5}, axis=f"axis {number}")
    found = on_axes(job)
    assert (found[99], found[100], found[149]) == (("axis 99", 1), (None, 1), (None, 50))
    assert monitor.dropped == 50


def test_prefix_that_is_none(job: Job) -> None:
    for prefix in (7, "a\n", "x" * 600):
        with pytest.raises(ConfigError, match=r'prefix: .* must be a string of .* such as "train/"'):
            open_monitor(job.config, "trainer", prefix=prefix)  # type: ignore[arg-type]
    open_monitor(job.config, "trainer", prefix="train/").close()


def test_values_come_back_as_rows(job: Job, monitor: Monitor) -> None:
    monitor.log({"loss": math.nan, "n": 3, "phase": "warm-up", "no": None, "eval": {"acc": 0.5, "deep": {"x": 1}}})
    (row,) = rows(job)
    assert math.isnan(row.metrics["loss"])
    assert {key: row.metrics[key] for key in row.metrics if key != "loss"} == {
        "n": 3,
        "eval/acc": 0.5,
        "eval/deep/x": 1,
    }
    assert row.text == {"phase": "warm-up"}
    assert monitor.dropped == 0


# ------------------------------------------------------------------ nothing is raised


class Raises:
    """Raises whatever is asked of it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise self.error

    __float__ = __index__ = __str__ = __repr__ = __hash__ = __eq__ = __len__ = __iter__ = _fail

    @property
    def item(self) -> Any:
        return self._fail


class BadMapping(Raises, Mapping[str, float]):
    """A mapping that raises when it is read."""

    __getitem__ = Raises._fail
    __iter__ = Raises._fail
    __len__ = Raises._fail


class Unprintable(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise MemoryError


ERRORS = [MemoryError(), RecursionError(), OSError(5, "no"), ValueError("no"), Unprintable(), StopIteration()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["value", "nested", "step", "data", "table", "cell"])
def test_log_raises_nothing(job: Job, monitor: Monitor, error: Exception, place: str) -> None:
    """Whatever anyone's object raises; the row is left out and counted, and the next one is recorded."""
    bad: Any = Raises(error)
    calls: dict[str, Callable[[], None]] = {
        "value": lambda: monitor.log({"bad": bad}),
        "nested": lambda: monitor.log({"bad": {"worse": bad}}),
        "step": lambda: monitor.log({"loss": 0.5}, bad),
        "data": lambda: monitor.log(BadMapping(error)),
        "table": lambda: monitor.log_table("samples", bad),
        "cell": lambda: monitor.log_table("samples", (["a"], [[bad]])),
    }
    calls[place]()
    assert monitor.dropped == 1
    monitor.log({"loss": 0.5}, 7)
    assert steps(job)[-1] == 7


def test_out_of_memory_amid_a_row(
    job: Job, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rolecall.store.journal.to_json", Raises(MemoryError())._fail)
        monitor.log({"loss": 0.5})
        monitor.log_table("samples", [{"a": 1}])
    assert monitor.dropped == 2
    assert "the row cannot be recorded (MemoryError)" in caplog.text
    monitor.log({"loss": 0.5})
    assert [(row.seq, row.step) for row in rows(job)] == [(1, 1)]


def test_row_that_changes_amid_log(job: Job, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another thread may change it, after the look that found it ready: what can be recorded is."""
    data: dict[str, Any] = {"loss": 0.5}

    def change_and_encode(line: Any, **options: Any) -> bytes:
        monkeypatch.undo()
        data.update({"worse": object(), "reward": 1.0})
        return to_json(line, **options)

    monitor.log(data, 1)
    monkeypatch.setattr("rolecall.store.journal.to_json", change_and_encode)
    monitor.log(data, 2)
    assert [row.metrics for row in rows(job)] == [{"loss": 0.5}, {"loss": 0.5, "reward": 1.0}]
    assert monitor.dropped == 1


# ------------------------------------------------------------------ repr


def test_repr_of_a_monitor(job: Job) -> None:
    monitor = open_monitor(job.config, "explorer", 0)
    assert repr(monitor) == f"<Monitor 'explorer/0' of run '{job.run_id}', open>"
    monitor.close()
    assert repr(monitor) == f"<Monitor 'explorer/0' of run '{job.run_id}', closed>"


def test_repr_of_a_job(job: Job) -> None:
    assert repr(job) == f"<Job 'grpo-1' of project 'gsm8k', run '{job.run_id}': local>"


def test_repr_where_it_is_off(make_config: MakeConfig) -> None:
    config = make_config(monitor_type="none", monitor_args={})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        assert repr(job) == "<Job 'grpo-1' of project 'gsm8k', run None: off>"
        assert repr(monitor) == "<Monitor 'trainer' of run None, off>"


def test_secrets_are_in_no_repr(make_config: MakeConfig) -> None:
    config = make_config()
    secret = make_config(monitor_args={"path": config.monitor_args["lines"].path, "api_key": "sk-topsecret"})  # type: ignore[attr-defined]
    with launch(secret) as job, open_monitor(job.config, "trainer") as monitor:
        assert "sk-topsecret" not in repr(job) + repr(monitor) + repr(job.config)


def test_almost_full_disk_is_warned_of_once(
    job: Job, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes a row now and then."""
    for step in range(1, 7):
        with monkeypatch.context() as full:
            if step % 2:
                full.setattr(os, "write", lambda _descriptor, _data: 0)
            monitor.log({"loss": 1.0}, step)
    assert steps(job) == [2, 4, 6]
    assert monitor.lost == 3
    assert caplog.text.count("rows are being lost") == 1


def test_tables_keep_what_is_not_finite(job: Job, monitor: Monitor) -> None:
    """A journal's JSON has it as a string, and readers as a number."""
    monitor.log_table("samples", (["reward"], [[math.nan], [math.inf], [-math.inf], [0.5], ["nan"], [None]]))
    (row,) = rows(job)
    assert row.table is not None
    assert repr(row.table.rows) == "((nan,), (inf,), (-inf,), (0.5,), ('nan',), (None,))"
