"""Keys and values that are not what was logged."""

from __future__ import annotations

import math
import struct
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rolecall_reference.files import FilesRun

from rolecall import Row
from rolecall_broken.catalogue import found_by

KEYS = "test_keeps_distinct_keys_apart"


VALUES = "test_keeps_hard_values"


class _Renames(FilesRun):
    """Stores each metric under another key."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log(
            [replace(row, metrics={self.name(key): value for key, value in row.metrics.items()}) for row in rows]
        )

    def name(self, key: str) -> str:
        raise NotImplementedError


@found_by(KEYS, r"trainer/a/b: expected step 1 alone, held")
class SlashIsUnderscore(_Renames):
    """`a/b` and `a_b` are one metric."""

    def name(self, key: str) -> str:
        return key.replace("/", "_")


@found_by(KEYS, r"trainer/x+: expected step 8 alone, held")
class CutsKeys(_Renames):
    """Keys are cut at 64 characters."""

    def name(self, key: str) -> str:
        return key[:64]


@found_by(KEYS, r"trainer/a/b: expected step \d+ alone, held")
class LowersKeys(_Renames):
    """Keys are lower-cased."""

    def name(self, key: str) -> str:
        return key.lower()


@found_by(KEYS, r"trainer/.*: expected step \d+ alone, held")
class NormalisesKeys(_Renames):
    """Keys that differ in the form of their Unicode alone are one metric."""

    def name(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


@found_by(KEYS, r"trainer/ab: expected step 7 alone, held")
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


@found_by(VALUES, r"trainer/infinity: expected \[\(2, inf\)\], held \[\(2, None\)\]")
class InfinityIsNull(FilesRun):
    """Infinities are written as JSON's null."""

    def log(self, rows: Sequence[Row]) -> None:
        def finite(value: float) -> Any:
            return None if math.isinf(value) else value

        super().log([replace(row, metrics={key: finite(value) for key, value in row.metrics.items()}) for row in rows])


@found_by(VALUES, r"trainer/.*: expected .* held")
class InfinityIsHuge(_Changes):
    """Infinities are the largest floats."""

    def value(self, value: float) -> float | None:
        return math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value


@found_by(VALUES, r"trainer/huge: expected \[\(6, 1e\+300\)\], held \[\(6, inf\)\]")
class SingleFloats(_Changes):
    """Values have 32 bits, and nobody says so."""

    def value(self, value: float) -> float | None:
        try:
            return float(struct.unpack("f", struct.pack("f", value))[0])
        except OverflowError:
            return value


@found_by(VALUES, r"trainer/beyond floats: expected .* held")
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
        return 0.0 if 0 < abs(value) < 2.2250738585072014e-308 else value


@found_by(VALUES, r"trainer/beyond floats: expected \[\(8, 9007199254740993\)\], held \[\(8, 9007200000000000.0\)\]")
class RoundsToSixDigits(_Changes):
    """Values have six digits, as `%g` writes them."""

    def value(self, value: float) -> float | None:
        return float(f"{value:g}")


@found_by(VALUES, r"expected the keys .*trainer/nan.* held")
class OneBadValueCostsRow(FilesRun):
    """A row with NaN is left out whole."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row for row in rows if not any(math.isnan(value) for value in row.metrics.values())])
