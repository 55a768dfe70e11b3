"""Each broken backend fails the test of the contract that is there for its fault, and the message says what is wrong.

The tests are the contract's own: `conftest.py` picks the one, and turns its result around.
"""

from __future__ import annotations

from broken_contracts import broken_contracts

globals().update(broken_contracts(__name__, is_whole=False))
