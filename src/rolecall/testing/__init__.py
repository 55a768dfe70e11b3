"""The contract that every backend must pass, as a class of tests, and what a plugin's own tests need.

A plugin's tests subclass `BackendContract`; `ticket` and `row` make the values that hooks take. Needs pytest.
"""

import pytest

# Before they are imported: what a failure of theirs shows is then as it is in a test's own module.
pytest.register_assert_rewrite(*(f"rolecall.testing.{name}" for name in ("content", "delivery", "hygiene", "team")))

from rolecall.testing.builders import HeldRun, HeldTable, Points, row, ticket  # noqa: E402
from rolecall.testing.contract import BackendContract  # noqa: E402

__all__ = ["BackendContract", "HeldRun", "HeldTable", "Points", "row", "ticket"]
