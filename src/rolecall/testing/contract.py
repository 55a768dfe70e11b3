"""The contract: its tests, and what an author's subclass says of a backend."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rolecall.testing.held import HeldRun, HeldTable, Points


class BackendContract:
    """Subclass it at the top of a module, name the backend, say what it can, and read back what it holds."""

    monitor_type: str
    """The backend's name."""

    tolerance: float = 0.0
    """How far a value may be off, relatively; 1e-6 for a backend of 32-bit floats."""

    patience: float = 20.0
    """The seconds that any call of the backend, and any look of the reader, may take."""

    can: ClassVar[frozenset[str]] = frozenset()
    """What the backend can: of `shared`, `axes`, `times`, `text`, `tables`, `media:KIND`, `config`, `summary`, `tags`,
    `status`, `end_time`, `progress`, `confirmation` and `readback`. A method of the same name reads it back."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot, with the reason. Beside the abilities of `can`, these may be named: `steps`, `many`."""

    @pytest.fixture
    def monitor_args(self, tmp_path: Path) -> Mapping[str, Any]:
        """The backend's arguments for one test."""
        return {}

    @pytest.fixture
    def unavailable_args(self) -> Mapping[str, Any] | None:
        """Arguments with which the backend cannot be reached, if there are some."""
        return None

    def points(self, run: HeldRun) -> Points:
        """What the backend holds of each metric. Required, as everything here read by a way that bypasses the plugin."""
        raise NotImplementedError

    def times(self, run: HeldRun) -> Points:
        """Of each metric the steps and the times, in seconds since the epoch."""
        raise NotImplementedError

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        """Of each metric the metric that is its axis."""
        raise NotImplementedError

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        """The strings that were logged."""
        raise NotImplementedError

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        """The tables by name."""
        raise NotImplementedError

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        """The media by key: of a file its bytes, of a histogram `{"counts": [...], "edges": [...]}`."""
        raise NotImplementedError

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        """The run's config."""
        raise NotImplementedError

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        """The run's summary."""
        raise NotImplementedError

    def tags(self, run: HeldRun) -> Iterable[str]:
        """The run's tags."""
        raise NotImplementedError

    def status(self, run: HeldRun) -> str:
        """How the run ended, in the words of `rolecall.Status`, or `running`."""
        raise NotImplementedError

    def end_time(self, run: HeldRun) -> float:
        """When the run ended, in seconds since the epoch."""
        raise NotImplementedError

    def test_is_listed_under_its_name(self) -> None:
        pytest.skip("not written yet")

    def test_loads_without_its_sdk(self) -> None:
        pytest.skip("not written yet")

    def test_hooks_are_quick(self) -> None:
        pytest.skip("not written yet")

    def test_abilities_are_declared(self) -> None:
        pytest.skip("not written yet")

    def test_arguments_are_checked(self) -> None:
        pytest.skip("not written yet")

    def test_says_whether_it_shares(self) -> None:
        pytest.skip("not written yet")

    def test_opened_run_is_whole(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_no_secret_in_a_file(self) -> None:
        pytest.skip("not written yet")

    def test_writes_in_its_folder_only(self) -> None:
        pytest.skip("not written yet")

    def test_closes_twice(self) -> None:
        pytest.skip("not written yet")

    def test_says_when_it_is_unavailable(self) -> None:
        pytest.skip("not written yet")

    def test_holds_every_row_of_every_writer(self) -> None:
        pytest.skip("not written yet")

    def test_holds_rows_when_flush_returns(self) -> None:
        pytest.skip("not written yet")

    def test_holds_each_row_once_after_resending(self) -> None:
        pytest.skip("not written yet")

    def test_holds_rows_after_its_courier_was_killed(self) -> None:
        pytest.skip("not written yet")

    def test_goes_on_in_the_same_run_after_a_restart(self) -> None:
        pytest.skip("not written yet")

    def test_one_run_takes_rows_of_many_writers(self) -> None:
        pytest.skip("not written yet")

    def test_separate_runs_are_apart(self) -> None:
        pytest.skip("not written yet")

    def test_confirms_what_it_holds(self) -> None:
        pytest.skip("not written yet")

    def test_readback_agrees(self) -> None:
        pytest.skip("not written yet")

    def test_a_job_is_delivered(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_distinct_keys_apart(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_hard_values(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_repeated_and_decreasing_steps(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_times(self) -> None:
        pytest.skip("not written yet")

    def test_binds_the_axes_of_all_writers(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_text(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_tables(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_media(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_config(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_summary(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_tags(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_status(self) -> None:
        pytest.skip("not written yet")

    def test_keeps_end_time(self) -> None:
        pytest.skip("not written yet")

    def test_a_role_does_not_end_a_shared_run(self) -> None:
        pytest.skip("not written yet")
