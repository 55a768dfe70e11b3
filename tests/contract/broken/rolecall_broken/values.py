"""Keys, values, steps, times and axes that are not what was logged."""

from __future__ import annotations

import math
import struct
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rolecall_broken.catalogue import found_by
from rolecall_reference.files import FilesRun
from rolecall_reference.service import ServiceRun
from rolecall_reference.shared import SharedRun

from rolecall import Row, RunTicket, Status

KEYS = "test_keeps_distinct_keys_apart"
VALUES = "test_keeps_hard_values"
STEPS = "test_keeps_repeated_and_decreasing_steps"


class _Renames(FilesRun):
    """Stores each metric under another key."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log(
            [replace(row, metrics={self.name(key): value for key, value in row.metrics.items()}) for row in rows]
        )

    def name(self, key: str) -> str:
        raise NotImplementedError


@found_by(KEYS, r"trainer/a(/|_)b: expected .* held")
class SlashIsUnderscore(_Renames):
    """`a/b` and `a_b` are one metric."""

    def name(self, key: str) -> str:
        return key.replace("/", "_")


@found_by(KEYS, r"x{20,}y?: expected .* held")
class CutsKeys(_Renames):
    """Keys are cut at 64 characters."""

    def name(self, key: str) -> str:
        return key[:64]


@found_by(KEYS, r"trainer/[aA]/b: expected .* held")
class LowersKeys(_Renames):
    """Keys are lower-cased."""

    def name(self, key: str) -> str:
        return key.lower()


@found_by(KEYS, r"expected .* held")
class NormalisesKeys(_Renames):
    """Keys that differ in the form of their Unicode alone are one metric."""

    def name(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


@found_by(KEYS, r"(a#b|a@b|a b).*: expected .* held")
class DropsOddCharacters(_Renames):
    """What is no letter, digit or slash is left out of keys."""

    def name(self, key: str) -> str:
        return "".join(letter for letter in key if letter.isalnum() or letter in "/._-")


@found_by(KEYS, r"many/\d+: expected .* held under \[\]")
class TakesHundredMetrics(FilesRun):
    """Of a row with many metrics, the first hundred are kept."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([replace(row, metrics=dict([*row.metrics.items()][:100])) for row in rows])


class _Changes(FilesRun):
    """Stores other values."""

    def log(self, rows: Sequence[Row]) -> None:
        changed = []
        for row in rows:
            values = {key: self.value(value) for key, value in row.metrics.items()}
            changed.append(replace(row, metrics={key: value for key, value in values.items() if value is not None}))
        super().log(changed)

    def value(self, value: float) -> float | None:
        raise NotImplementedError


@found_by(VALUES, r"expected the keys .*trainer/nan.* held")
class DropsNan(_Changes):
    """NaN is left out."""

    def value(self, value: float) -> float | None:
        return None if math.isnan(value) else value


@found_by(VALUES, r"infinity")
class InfinityIsNull(FilesRun):
    """Infinities are written as JSON's null."""

    def log(self, rows: Sequence[Row]) -> None:
        def finite(value: float) -> Any:
            return None if isinstance(value, float) and math.isinf(value) else value

        super().log([replace(row, metrics={key: finite(value) for key, value in row.metrics.items()}) for row in rows])


@found_by(VALUES, r"trainer/.*: expected .* held")
class InfinityIsHuge(_Changes):
    """Infinities are the largest floats."""

    def value(self, value: float) -> float | None:
        return math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value


@found_by(VALUES, r"trainer/(third|beyond floats|huge).*: expected .* held")
class FloatsOf32Bits(_Changes):
    """Values have 32 bits, and nobody says so."""

    def value(self, value: float) -> float | None:
        try:
            return float(struct.unpack("f", struct.pack("f", value))[0])
        except OverflowError:
            return value


@found_by(VALUES, r"trainer/(beyond floats|largest): expected .* held")
class IntegersAreFloats(_Changes):
    """2**53 + 1 is 2**53."""

    def value(self, value: float) -> float | None:
        return float(value)


@found_by(VALUES, r"trainer/minus zero: expected .* held")
class LosesSignOfZero(_Changes):
    """-0.0 is 0.0."""

    def value(self, value: float) -> float | None:
        return value + 0.0 if value == 0 else value


@found_by(VALUES, r"trainer/tiny: expected .* held")
class FlushesTinyToZero(_Changes):
    """What is smaller than a normal float is 0."""

    def value(self, value: float) -> float | None:
        return 0.0 if abs(value) < 2.2250738585072014e-308 else value


@found_by(VALUES, r"trainer/\w+.*: expected .* held")
class RoundsToSixDigits(_Changes):
    """Values have six digits, as `%g` writes them."""

    def value(self, value: float) -> float | None:
        return float(f"{value:g}")


@found_by(VALUES, r"expected the keys")
class OneBadValueCostsRow(FilesRun):
    """A row with NaN is left out whole."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row for row in rows if not any(math.isnan(value) for value in row.metrics.values())])


class _Steps(FilesRun):
    """Stores other rows than those that came, depending on their steps."""

    def __init__(self, ticket: RunTicket, folder: Any) -> None:
        super().__init__(ticket, folder)
        self._seen: dict[str, int] = {}

    def log(self, rows: Sequence[Row]) -> None:
        super().log([changed for row in rows if (changed := self.changed(row)) is not None])

    def changed(self, row: Row) -> Row | None:
        raise NotImplementedError


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class DropsRepeatedSteps(_Steps):
    """Of several rows at a step, the first one is kept."""

    def __init__(self, ticket: RunTicket, folder: Any) -> None:
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
class StepsOf32Bits(_Steps):
    """Steps have 32 bits."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, step=row.step % 2**32)


@found_by(STEPS, r"loss: expected .* held .*not held \[\(")
class StepZeroIsLost(_Steps):
    """A row at step 0 is taken for one without a step."""

    def changed(self, row: Row) -> Row | None:
        return row if row.step else None


@found_by("test_keeps_times", r"trainer/loss: expected the times .* held")
class TimeOfArrival(_Steps):
    """The time is when the row was delivered."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=time.time())


@found_by("test_keeps_times", r"trainer/loss: expected the times .* held")
class WholeSeconds(_Steps):
    """Times are whole seconds."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=float(int(row.time)))


@found_by("test_keeps_times", r"trainer/loss: expected the times .* held")
class MillisecondsForSeconds(_Steps):
    """Times are in milliseconds."""

    def changed(self, row: Row) -> Row | None:
        return replace(row, time=row.time * 1000)


@found_by("test_keeps_times", r"trainer/loss: expected the times .* held")
class TimeOfCall(_Steps):
    """All rows of a call have the time of its first one."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([replace(row, time=rows[0].time) for row in rows])

    def changed(self, row: Row) -> Row | None:
        return row


AXES = r"expected .*explorer/0/step.* held"


@found_by("test_binds_the_axes_of_all_writers[shared]", AXES)
class AxesOfLastWriter(SharedRun):
    """What a process declares replaces what others have declared."""

    def __init__(self, ticket: RunTicket, folder: Any) -> None:
        super().__init__(ticket, folder)
        self._axes: dict[str, str] = {}

    def declare(self, axes: Mapping[str, str]) -> None:
        own = {key: axis for key, axis in axes.items() if self._writer is None or key.startswith(f"{self._writer}/")}
        others = {key: "" for key in axes if key not in own}
        super().declare({**others, **own})


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
class AxesWhenClosed(SharedRun):
    """Axes are declared when the run is closed, and a kill loses them."""

    def declare(self, axes: Mapping[str, str]) -> None:
        """Only the primary declares."""
        if self._primary:
            super().declare({key: axis for key, axis in axes.items() if key.startswith("trainer/")})


@found_by("test_holds_every_row_of_every_writer[shared]", r"expected the keys .* held")
class RowsWithoutPrefix(ServiceRun):
    """Metrics of all writers are stored under their bare name."""

    def log(self, rows: Sequence[Row]) -> None:
        def bare(row: Row) -> dict[str, float]:
            return {key.rpartition("/")[2]: value for key, value in row.metrics.items()}

        super().log([replace(row, metrics=bare(row)) for row in rows])
