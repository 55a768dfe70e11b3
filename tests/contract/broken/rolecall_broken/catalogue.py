"""The list of broken backends: each is a correct one with the smallest change that breaks one promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rolecall_reference.files import FilesBackend, FilesRun
from rolecall_reference.queued import QueueBackend, QueueRun
from rolecall_reference.service import ServiceBackend, ServiceRun
from rolecall_reference.shared import SharedBackend, SharedRun

PATIENCE: Final = 20.0
SHORT: Final = 2.0
"""The patience of a test that meets a call which never returns."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One broken backend.

    Attributes:
        name: its `monitor_type`.
        kind: the `monitor_type` of the correct backend that it is made of.
        found_by: the test of the contract that must fail, with its parameter if only that one can.
        says: a regular expression that the failure's message must match.
        what: what is wrong, in words.
        target: where the entry point finds it.
        patience: the seconds that a call may take.
        listed: the name of its entry point, if it is another one.
        claims: what its author says that it can, beside what the correct one can.
    """

    name: str
    kind: str
    found_by: str
    says: str
    what: str
    target: str
    patience: float = PATIENCE
    claims: frozenset[str] = frozenset()
    listed: str | None = None


FAULTS: Final[list[Fault]] = []
# a class before those that it inherits from
_KINDS: Final[tuple[tuple[str, type, type], ...]] = (
    ("shared-files", SharedRun, SharedBackend),
    ("files", FilesRun, FilesBackend),
    ("queue", QueueRun, QueueBackend),
    ("service", ServiceRun, ServiceBackend),
)


def found_by(test: str, says: str, **more: Any) -> Callable[[type], type]:
    """Register a subclass of a correct run, or of a correct backend, with the test that must find its fault."""

    def register(broken: Any) -> type:
        kind, run, backend = next(each for each in _KINDS if issubclass(broken, each[1:]))
        hooks = broken
        if issubclass(broken, run):
            # A run with a fault has the hooks of the correct backend.
            hooks = type(broken.__name__, (backend,), {"run": broken, "__module__": broken.__module__})
        broken.backend = hooks()
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", broken.__name__).lower()
        target = f"{broken.__module__}:{broken.__name__}.backend"
        what = (broken.__doc__ or "").strip()
        FAULTS.append(Fault(name=name, kind=kind, found_by=test, says=says, what=what, target=target, **more))
        return broken  # type: ignore[no-any-return]

    return register
