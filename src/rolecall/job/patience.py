"""Calls that may never return: on a network filesystem whose server is frozen, every look at it is one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["within"]

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """What a call returns, or `None` if it did not return in time; it then goes on on a thread of its own.

    Raises:
        Exception: what the call raised.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised below, for the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="rolecall-look", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return results[0] if results else None
