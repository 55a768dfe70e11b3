"""What a run holds, read back from the server."""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["is_same", "number_of"]

_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number_of(stored: Any) -> float | int | None:
    """A number of a line of history, in which those that JSON lacks are strings; `None` if it is none."""
    if isinstance(stored, str):
        return _SPECIAL.get(stored)
    return stored if isinstance(stored, int | float) else None


def is_same(stored: Any, logged: float | str) -> bool:
    """Whether a value of a line of history is the one that was logged."""
    if isinstance(logged, str):
        return bool(stored == logged)
    number = number_of(stored)
    return number == logged or (number is not None and math.isnan(number) and math.isnan(logged))
