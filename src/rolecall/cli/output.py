"""Values as the commands print them for scripts."""

from __future__ import annotations

import math


def without_nan(value: object) -> object:
    """A value as strict JSON can hold it: NaN and infinities are strings, as in a journal."""
    # `json` would write a bare NaN, which other parsers refuse; pydantic 2.7 cannot write these strings itself.
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
