"""The contract of each broken backend: that of the correct one that it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reference_contracts import FilesContract, QueueContract, ServiceContract, SharedContract
from rolecall_broken import calls, content, hooks, imports, reading, rows, steps, traces, values
from rolecall_broken.catalogue import FAULTS

from rolecall.testing import BackendContract

MODULES = (calls, content, hooks, imports, reading, rows, steps, traces, values)
"""Each adds its backends to the catalogue."""
WHOLE_PATIENCE = 5.0
"""A test that is not there for a fault may meet it several times, and ends well within its bound all the same."""
CONTRACTS: tuple[type[BackendContract], ...] = (FilesContract, QueueContract, ServiceContract, SharedContract)


def broken_contracts(module: str, *, is_whole: bool) -> Iterator[tuple[str, type[BackendContract]]]:
    """A class of tests for each broken backend, as if it stood in this module: readers import it from there.

    It has the whole contract, or the test alone that must find the fault: to collect thousands takes seconds.
    """
    of_kind = {contract.monitor_type: contract for contract in CONTRACTS}
    for fault in FAULTS:
        correct = of_kind[fault.kind]
        name = f"Test{fault.name.title().replace('-', '')}"
        said: dict[str, Any] = {
            "__module__": module,
            "fault": fault,
            "monitor_type": fault.name,
            "preload": ("broken_contracts",),
            "patience": min(fault.patience, WHOLE_PATIENCE) if is_whole else fault.patience,
            "can": correct.can | fault.claims,
            "cannot": {each: why for each, why in correct.cannot.items() if each not in fault.claims},
        }
        if not is_whole:
            found_by = fault.found_by.partition("[")[0]
            said |= {test: None for test in dir(correct) if test.startswith("test_") and test != found_by}
        yield name, type(name, (correct,), said)


def entry_points() -> str:
    """What an installed distribution of them says of itself."""
    lines = [f"{fault.listed or fault.name} = {fault.target}" for fault in FAULTS]
    return "\n".join(["[rolecall.backends]", *lines, ""])


__all__ = ["FAULTS", "broken_contracts", "entry_points"]
