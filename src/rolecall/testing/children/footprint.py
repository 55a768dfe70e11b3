"""What a backend does to the process and the disk that it is loaded in."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from typing import Any, Final

from rolecall.backends.installed import GROUP
from rolecall.backends.registry import Registry

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_OURS: Final = frozenset({"packaging", "pluggy", "pydantic", "pydantic_core", "rolecall", "yaml"})
"""What rolecall itself requires, and may import while it loads a backend."""
_NAMES_A_FILE: Final = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "sqlite3.connect": 0}
"""Events of Python's audit by which files come to be, and which of their arguments is the new file."""


class Footprint:
    """The files that a process writes and the addresses that it connects to, by Python's own audit."""

    def __init__(self) -> None:
        self._files: dict[str, None] = {}
        self.connections: list[str] = []
        self._listens = False

    def begin(self) -> None:
        """Listen from now on. What a module in C opens by itself is not seen."""
        self._listens = True
        sys.addaudithook(self._hear)

    def written(self) -> list[str]:
        """The files, absolute."""
        return list(self._files)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        file = None
        if event == "open" and isinstance(args[2], int) and args[2] & _WRITES:
            file = args[0]
        elif event in _NAMES_A_FILE:
            file = args[_NAMES_A_FILE[event]]
        elif event == "socket.connect":
            self.connections.append(str(args[1]))
        if isinstance(file, str | bytes | os.PathLike):
            path = os.fsdecode(file)
            # sqlite takes addresses and names of its own.
            if path and not path.startswith((":memory:", "file:")):
                self._files[os.path.realpath(path)] = None


def hooks_cost(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The seconds that loading the backend and its quick hooks take, and the addresses that they connect to."""
    footprint = Footprint()
    footprint.begin()
    seconds: dict[str, float] = {}

    def timed(what: str, call: Callable[[], Any]) -> Any:
        before, waited = time.monotonic(), _waited()
        result = call()
        seconds[what] = time.monotonic() - before - (_waited() - waited)
        return result

    backend = timed("import", lambda: Registry().load(name))
    model = timed("backend_args", backend.args_model)
    given = model.model_validate(dict(args))
    timed("supports_shared_run", lambda: backend.supports_shared_run(given))
    return {"seconds": seconds, "connections": footprint.connections}


def _waited() -> float:
    """The seconds that this thread was ready and another program had the processor."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # not every kernel counts them
        return 0.0


def strange_modules(name: str, args: Mapping[str, Any]) -> list[str]:
    """The packages that are imported with the backend and are neither Python's, nor rolecall's, nor its own."""
    before = set(sys.modules)
    backend = Registry().load(name)
    backend.supports_shared_run(backend.args_model().model_validate(dict(args)))
    tops = {module.partition(".")[0] for module in set(sys.modules) - before}
    return sorted(tops - _own_modules(name) - _OURS - sys.stdlib_module_names)


def _own_modules(name: str) -> set[str]:
    """The top-level modules of the distribution that provides the backend."""
    found: set[str] = set()
    for point in entry_points(group=GROUP, name=name):
        found.add(point.module.partition(".")[0])
        if point.dist is not None:
            own = point.dist.name
            found |= {top for top, dists in packages_distributions().items() if own in dists}
    return found
