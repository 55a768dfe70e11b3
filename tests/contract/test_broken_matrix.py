"""All tests of the contract on all broken backends: whatever is broken, no test hangs or has an error of its own."""

from __future__ import annotations

import pytest
from broken_contracts import broken_contracts

pytestmark = pytest.mark.matrix
globals().update(broken_contracts(__name__, is_whole=True))
