"""`unsteady`: `files` that refuses the first call of each kind and takes it when it comes again, as a server may do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rolecall import RunTicket, Unavailable
from rolecall_reference.files import FilesBackend, FilesRun


class UnsteadyRun(FilesRun):
    """A run that is not available for a moment, three times."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        self._taken = {"write"}  # it opens at once: to open it again makes another object, which would refuse again
        super().__init__(ticket, folder)
        self._taken.clear()

    def write(self, *lines: Mapping[str, Any]) -> None:
        self._refuse_first("write")
        super().write(*lines)

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        self._refuse_first("held")
        return super().held(writer, session)

    def flush(self, timeout: float) -> None:
        self._refuse_first("flush")
        super().flush(timeout)

    def _refuse_first(self, call: str) -> None:
        if call not in self._taken:
            self._taken.add(call)
            raise Unavailable("not now")


class UnsteadyBackend(FilesBackend):
    """The hooks."""

    run: type[FilesRun] = UnsteadyRun


backend = UnsteadyBackend()
