"""The contract that every backend must pass, as a class of tests, and what a plugin's own tests need.

A plugin's tests subclass `BackendContract`; `ticket` and `row` make the values that hooks take. Needs pytest.
"""

import pytest

# Before they are imported: a failure in them then shows its values, as one in a test's own module does.
_ASSERTING = ("compare", "content", "delivery", "hygiene", "stage", "team")
pytest.register_assert_rewrite(*(f"rolecall.testing.{name}" for name in _ASSERTING))

from rolecall.testing.builders import HeldRun, HeldTable, Points, row, ticket  # noqa: E402
from rolecall.testing.contract import BackendContract  # noqa: E402

__all__ = ["BackendContract", "HeldRun", "HeldTable", "Points", "row", "ticket"]
