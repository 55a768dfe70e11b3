"""Waits between two tries."""

from __future__ import annotations

import random
from collections.abc import Iterator

from rolecall.timings import RetryPolicy


def waits(policy: RetryPolicy) -> Iterator[float]:
    """Seconds, doubling up to the policy's maximum."""
    # Jitter, so that many roles do not come back at once; of a generator of its own, as the global one is the job's.
    chance = random.Random()
    wait = policy.initial
    while True:
        yield wait * chance.uniform(0.5, 1.0)
        wait = min(wait * 2, policy.maximum)
