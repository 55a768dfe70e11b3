"""A service process of the SDK for one run alone.

The SDK keeps one for the whole process, and that opens a run id once ("run ID ... is in use", 0.31.0); but a launcher
and its roles may stand in one process (`courier: thread`), and a run of the user's own is nothing of ours. So for as
long as a run is opened, the SDK is made to believe that it has none yet. The name that this takes is private and the
same in 0.19.10, 0.24.2 and 0.31.0; a run holds on to its own service, whatever the name stands for later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = ["Service", "with_own_service"]

T = TypeVar("T")

_STARTING: Final = threading.Lock()
"""What is swapped belongs to the whole process."""


@dataclass(frozen=True, slots=True)
class Service:
    """The SDK's service of one run."""

    handle: Any

    def end(self) -> None:
        """Let the process go; it may be dead already, which is all that is wanted."""
        if self.handle is not None:
            with suppress(Exception):
                self.handle._teardown()  # noqa: SLF001 - `wandb.teardown` would end another's


def with_own_service(start: Callable[[], T]) -> tuple[T, Service]:
    """What `start` opens, and the service that it was opened with; if it raises, that is gone again.

    A process that inherits WANDB_SERVICE would join its parent's service, and could not open the run (wandb#10434).
    """
    with _STARTING:
        from wandb.sdk import wandb_setup

        os.environ.pop("WANDB_SERVICE", None)
        others, wandb_setup._singleton = wandb_setup._singleton, None  # noqa: SLF001
        try:
            return start(), Service(wandb_setup._singleton)  # noqa: SLF001
        except BaseException:
            Service(wandb_setup._singleton).end()  # noqa: SLF001
            raise
        finally:
            wandb_setup._singleton = others  # noqa: SLF001
