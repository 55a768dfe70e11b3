"""Steps, times and axes that are not what was logged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rolecall_reference.files import FilesRun
from rolecall_reference.service import ServiceRun
from rolecall_reference.shared import SharedRun

from rolecall import Row, RunTicket
from rolecall_broken.catalogue import found_by

STEPS = "test_keeps_repeated_and_decreasing_steps"


class _Steps(FilesRun):
    """Stores other rows than those that came, depending on their steps."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._seen: dict[str, int] = {}

    def log(self, rows: Sequence[Row]) -> None:
        super().log([changed for row in rows if (changed := self.changed(row)) is not None])

    def changed(self, row: Row) -> Row | None:
        raise NotImplementedError


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class DropsRepeatedSteps(_Steps):
    """Of several rows at a step, the first one is kept."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._known: set[tuple[str, int]] = set()

    def changed(self, row: Row) -> Row | None:
        is_new = (row.writer, row.step) not in self._known
        self._known.add((row.writer, row.step))
        return row if is_new else None


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class DropsDecreasingSteps(_Steps):
    """A row whose step is below that of its writer's last one is dropped."""

    def changed(self, row: Row) -> Row | None:
        if row.step < self._seen.get(row.writer, 0):
            return None
        self._seen[row.writer] = row.step
        return row


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class SortsSteps(_Steps):
    """A step that is too low gets the one after the last: steps only grow."""

    def changed(self, row: Row) -> Row | None:
        step = max(row.step, self._seen.get(row.writer, 0))
        self._seen[row.writer] = step
        return replace(row, step=step)


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class StepIsIndex(_Steps):
    """The step is the number of the row."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, step=row.seq)


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class ShortSteps(_Steps):
    """Steps have 32 bits."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, step=row.step % 2**32)


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class StepZeroIsLost(_Steps):
    """A row at step 0 is taken for one without a step."""

    def changed(self, row: Row) -> Row | None:
        return row if row.step else None


@found_by("test_keeps_times", r"loss: expected the times .* held")
class TimeOfArrival(_Steps):
    """The time is when the row was delivered."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=time.time())


@found_by("test_keeps_times", r"loss: expected the times .* held")
class WholeSeconds(_Steps):
    """Times are whole seconds."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=float(int(row.time)))


@found_by("test_keeps_times", r"loss: expected the times .* held")
class MillisecondsForSeconds(_Steps):
    """Times are in milliseconds."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=row.time * 1000)


@found_by("test_keeps_times", r"loss: expected the times .* held")
class TimeOfCall(_Steps):
    """All rows of a call have the time of its first one."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([replace(row, time=rows[0].time) for row in rows])

    def changed(self, row: Row) -> Row | None:
        return row


AXES = r"expected .*explorer/0/step.* held"


@found_by("test_binds_the_axes_of_all_writers[shared]", AXES)
class AxesOfOwnWriterOnly(SharedRun):
    """The run keeps what the last process declared, and each declares what its own writer logs."""

    def declare(self, axes: Mapping[str, str]) -> None:
        super().declare({key: axis if key.startswith(f"{self._writer}/") else "" for key, axis in axes.items()})


@found_by("test_binds_the_axes_of_all_writers[many]", AXES)
class AxesByBasename(SharedRun):
    """Keys are bound by what follows the last slash."""

    def declare(self, axes: Mapping[str, str]) -> None:
        by_name = {key.rpartition("/")[2]: axis for key, axis in axes.items()}
        super().declare({key: by_name[key.rpartition("/")[2]] for key in axes})


@found_by("test_binds_the_axes_of_all_writers[many]", AXES)
class AxesOfFirstRowsOnly(SharedRun):
    """What is declared after the first row is ignored."""

    is_open = True

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows)
        self.is_open = False

    def declare(self, axes: Mapping[str, str]) -> None:
        if self.is_open:
            super().declare(axes)


@found_by("test_binds_the_axes_of_all_writers[many]", AXES)
class OneAxisForAll(SharedRun):
    """All keys are on the axis that was declared last."""

    def declare(self, axes: Mapping[str, str]) -> None:
        super().declare(dict.fromkeys(axes, [*axes.values()][-1]))


@found_by("test_binds_the_axes_of_all_writers[shared]", AXES)
class AxesOfPrimaryOnly(SharedRun):
    """The primary alone declares, and it declares no keys of explorers."""

    def declare(self, axes: Mapping[str, str]) -> None:
        if self._primary:
            super().declare({key: axis for key, axis in axes.items() if key.startswith("trainer/")})


@found_by(
    "test_holds_every_row_of_every_writer[shared]", r"expected the keys .*trainer/loss.*, held \['loss', 'mean'\]"
)
class RowsWithoutPrefix(ServiceRun):
    """Metrics of all writers are stored under their bare name."""

    def log(self, rows: Sequence[Row]) -> None:
        def bare(row: Row) -> dict[str, float]:
            return {key.rpartition("/")[2]: value for key, value in row.metrics.items()}

        super().log([replace(row, metrics=bare(row)) for row in rows])
