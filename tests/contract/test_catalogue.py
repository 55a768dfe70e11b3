"""The catalogue of broken backends covers the contract."""

from __future__ import annotations

from collections import Counter

from broken_contracts import FAULTS

from rolecall.testing import BackendContract

BOUND = 20.0
"""The seconds that a test of the contract may wait for a call that hangs."""


def names_of_tests() -> set[str]:
    return {name for name in dir(BackendContract) if name.startswith("test_")}


def test_every_fault_has_its_test() -> None:
    named = {fault.found_by.partition("[")[0] for fault in FAULTS}
    assert named <= names_of_tests()


def test_every_test_finds_a_fault() -> None:
    """A test of the contract that finds no fault may be one that can find none."""
    named = {fault.found_by.partition("[")[0] for fault in FAULTS}
    assert names_of_tests() <= named


def test_every_fault_is_found_soon() -> None:
    """A call that hangs ends its test after the test's patience, as `conftest.py` makes sure."""
    assert [fault.name for fault in FAULTS if fault.patience > BOUND] == []
    assert BackendContract.patience <= BOUND


def test_every_fault_is_another_one() -> None:
    assert len(FAULTS) >= 60
    assert [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1] == []
    assert [fault.name for fault in FAULTS if not fault.what] == []
