"""A call that may never return holds nobody up."""

from __future__ import annotations

import threading

import pytest

from rolecall.job.patience import within


def test_what_returns_in_time_is_returned() -> None:
    assert within(30.0, lambda: 7) == 7


def test_what_does_not_is_left_alone() -> None:
    gate = threading.Event()
    assert within(0.05, gate.wait) is None
    gate.set()


def test_what_is_raised_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        within(30.0, lambda: 1 // 0)
