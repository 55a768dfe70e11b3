"""A double of the file layer that answers as late as a network filesystem does."""

from __future__ import annotations

import builtins
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

__all__ = ["Latency", "late"]

CALLS = (
    *("open", "stat", "lstat", "listdir", "mkdir", "link", "unlink", "replace", "utime"),
    *("write", "pread", "pwrite", "fsync", "fstat"),
)
"""Each is at least one request of NFS when nothing is cached."""


@dataclass(slots=True)
class Latency:
    """How late calls on what is within a folder come, and how many there were."""

    folder: str
    seconds: float
    calls: int = 0

    def wait(self, target: object) -> None:
        """Wait, if it is within the folder: a path, or a descriptor of one."""
        if self._is_within(target):
            self.calls += 1
            time.sleep(self.seconds)

    def _is_within(self, target: object) -> bool:
        try:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        except OSError:
            return False
        return path.startswith(self.folder)


@contextmanager
def late(folder: Path, seconds: float) -> Iterator[Latency]:
    """Every call on a file within a folder waits first.

    NFS caches attributes for seconds: this is the dearer case, a mount with `noac`.
    """
    latency = Latency(str(folder), seconds)

    @contextmanager
    def scandir(path: Any) -> Iterator[Iterator[_Entry]]:
        latency.wait(path)
        with real_scandir(path) as found:
            yield (_Entry(one.name, one, latency) for one in found)

    real_scandir = os.scandir
    with ExitStack() as patches:
        for name in CALLS:
            patches.enter_context(patch.object(os, name, _delayed(getattr(os, name), latency)))
        patches.enter_context(patch.object(os, "scandir", scandir))
        for module in (io, builtins):
            patches.enter_context(patch.object(module, "open", _delayed(open, latency)))
        yield latency


@dataclass(frozen=True, slots=True)
class _Entry:
    """What `os.scandir` finds; its attributes are one more request."""

    name: str
    real: os.DirEntry[str]
    latency: Latency

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self.latency.wait(self.real.path)
        return self.real.stat(follow_symlinks=follow_symlinks)


def _delayed(real: Callable[..., Any], latency: Latency) -> Callable[..., Any]:
    def call(target: Any = ".", *rest: Any, **named: Any) -> Any:
        latency.wait(target)
        return real(target, *rest, **named)

    return call
