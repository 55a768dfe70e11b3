from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall.demo.processes import ONE_THREAD

INLINE = Path(__file__).with_name("inline.py")


@pytest.fixture
def train_inline() -> Callable[..., list[float]]:
    """The mean return of each of a number of rounds, from a seed, computed without the roles' processes."""

    def train(steps: int, seed: int) -> list[float]:
        command = [sys.executable, str(INLINE), str(steps), str(seed)]
        done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True)
        returns: list[float] = json.loads(done.stdout)
        return returns

    return train
