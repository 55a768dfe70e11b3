"""What the author of a backend says of it: its arguments, what it can, and how to read back what it holds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from rolecall.testing.builders import HeldRun, HeldTable, Points
from rolecall.testing.children.nursery import Nursery
from rolecall.testing.stage import Stage

READ: Final = ("times", "axes", "text", "tables", "config", "summary", "tags", "status", "end_time")
"""Abilities that a reader of the same name shows."""
ABILITIES: Final = (*READ, "shared", "media:KIND", "table_media", "progress", "confirmation", "readback")
"""What `can` may name. `EXPECTED` is what every backend can, unless `cannot` names them."""
EXPECTED: Final = ("steps", "many", "killed", "removal")
NURSERIES: Final = pytest.StashKey[dict[tuple[str, ...], Nursery]]()


class Contract:
    """What all tests of the contract have in common."""

    monitor_type: str
    """The backend's name."""

    tolerance: float = 0.0
    """How far a value may be off, relatively: 1e-6 for a backend of 32-bit floats."""

    patience: float = 20.0
    """The seconds that a call of the backend, or of a reader here, may take."""

    preload: ClassVar[tuple[str, ...]] = ()
    """An SDK whose import takes seconds: the processes of a test are then forked from one that has imported it. It must
    neither start threads nor open connections when it is imported."""

    can: ClassVar[frozenset[str]] = frozenset()
    """What the backend can, which is tested: `shared`, `times`, `axes`, `text`, `tables`, `table_media`, `media:image`
    and other kinds, `config`, `summary`, `tags`, `status`, `end_time`, `progress`, `confirmation`, `readback`."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot, with the reason, which is shown where a test is skipped. It may also name `steps`, if steps must
    grow in a run, `many`, if a run takes rows of one writer only, `killed`, if that is no status of its own, and
    `removal`, if a summary keeps what was removed from it."""

    @pytest.fixture
    def monitor_args(self, tmp_path: Path) -> Mapping[str, Any]:
        """The backend's arguments for one test."""
        return {}

    @pytest.fixture
    def unavailable_args(self) -> Mapping[str, Any] | None:
        """Arguments with which the backend cannot be reached, if you can make some."""
        return None

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """Secrets that the backend gets otherwise than by its arguments: from the environment, for one."""
        return ()

    def expected_value(self, value: float) -> float | None:
        """A value as the backend holds it, apart from `tolerance`; `None` if it leaves it out.

        Most hold `float(value)`, and so no integer beyond 2**53 exactly. Say here, too, what becomes of infinities.
        """
        return value

    def points(self, run: HeldRun) -> Points:
        """The steps and values of each metric. The only reader that you must write.

        All readers are called in a process of their own, without fixtures. They must not use the plugin's code.
        """
        raise NotImplementedError

    def times(self, run: HeldRun) -> Points:
        """The steps and times of each metric, in seconds since the epoch."""
        raise NotImplementedError

    def axes(self, run: HeldRun) -> Mapping[str, str]:
        """The metric that is the axis of each metric."""
        raise NotImplementedError

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        """The steps and strings of each key that a string was logged under."""
        raise NotImplementedError

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        """The tables of each name. An image in a cell is the bytes of its file."""
        raise NotImplementedError

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        """The steps and media of each key: the bytes of the file, or `{"counts": [...], "edges": [...]}`."""
        raise NotImplementedError

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        """The run's config, nested, or flat with `/` or `.` between the names; numbers may be strings."""
        raise NotImplementedError

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        """The run's summary."""
        raise NotImplementedError

    def tags(self, run: HeldRun) -> Iterable[str]:
        """The run's tags."""
        raise NotImplementedError

    def status(self, run: HeldRun) -> str:
        """How the run ended: `finished`, `failed` or `killed`; anything else while it has not."""
        raise NotImplementedError

    def end_time(self, run: HeldRun) -> float:
        """When the run ended, in seconds since the epoch."""
        raise NotImplementedError

    # ------------------------------------------------------ for the tests alone

    @pytest.fixture
    def stage(self, request: pytest.FixtureRequest, tmp_path: Path, monitor_args: Mapping[str, Any]) -> Iterator[Stage]:
        """The processes of one test, and where they write."""
        stage = Stage(self, _nursery(request, self.preload), _nursery(request, ()), tmp_path / "contract", monitor_args)
        try:
            yield stage
        finally:
            stage.end()

    def needs(self, *abilities: str) -> None:
        """Skip the test if the backend cannot do all of this, with the reason."""
        for ability in abilities:
            if ability in self.cannot:
                pytest.skip(f"{ability}: {self.cannot[ability]}")
            if ability not in self.can and ability not in EXPECTED:
                pytest.skip(f"{ability!r} is not in `can`")


def _nursery(request: pytest.FixtureRequest, preload: tuple[str, ...]) -> Nursery:
    """One for all tests: pytest 9 wants another form of fixtures of wider scope in classes than older ones take."""
    found = request.session.stash.setdefault(NURSERIES, {})
    if preload not in found:
        found[preload] = nursery = Nursery(preload)
        request.session.addfinalizer(nursery.close)
    return found[preload]
