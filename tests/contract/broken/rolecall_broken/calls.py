"""Calls that hang, raise or do not exist, and runs that are none."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rolecall_reference.files import FilesArgs, FilesBackend, FilesRun
from rolecall_reference.queued import QueueRun
from rolecall_reference.service import ServiceRun

from rolecall import Row, Run, RunTicket, Status, hookimpl
from rolecall_broken.catalogue import SHORT, found_by

OPENED = "test_opened_run_is_whole"


def hang() -> NoReturn:
    """Wait for what never comes."""
    while True:
        threading.Event().wait()


@found_by(OPENED, r"open_run did not return within", patience=SHORT)
class OpenHangs(FilesRun):
    """A run is never open."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        hang()


@found_by(OPENED, r"log did not return within", patience=SHORT)
class LogHangs(FilesRun):
    """Rows are never taken."""

    def log(self, rows: Sequence[Row]) -> None:
        hang()


@found_by(OPENED, r"flush did not return within", patience=SHORT)
class FlushHangs(QueueRun):
    """`flush` waits for ever, and not for as long as it was told."""

    def flush(self, timeout: float) -> None:
        hang()


@found_by(OPENED, r"close did not return within", patience=SHORT)
class CloseHangs(FilesRun):
    """A run is never closed."""

    def close(self, status: Status) -> None:
        hang()


@found_by(OPENED, r"open_run raised ValueError: no such project")
class OpenRaises(FilesRun):
    """The SDK's error reaches rolecall."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        raise ValueError("no such project")


@found_by(OPENED, r"log raised TypeError")
class LogRaises(FilesRun):
    """A bug: rows are no dictionaries."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row["metrics"] for row in rows])  # type: ignore[index]


@found_by(OPENED, r"flush raised TimeoutError")
class FlushRaises(FilesRun):
    """A time-out of the SDK's own."""

    def flush(self, timeout: float) -> None:
        raise TimeoutError("the SDK gave up")


@found_by(OPENED, r"close raised RuntimeError: already ended")
class CloseRaises(FilesRun):
    """A run cannot be closed."""

    def close(self, status: Status) -> None:
        raise RuntimeError("already ended")


@found_by(OPENED, r"the process ended in open_run")
class OpenEndsProcess(FilesRun):
    """The SDK ends the process if it does not like the environment."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        os._exit(3)


@found_by("test_closes_twice", r"close raised OSError")
class ClosesOnce(FilesRun):
    """The second `close` fails, as the file is closed."""

    def close(self, status: Status) -> None:
        os.close(self._file)


@found_by("test_closes_twice", r"expected the status 'failed', held 'finished'")
class SecondCloseFinishes(FilesRun):
    """A run that is closed again is finished, however it ended."""

    is_closed = False

    def close(self, status: Status) -> None:
        self.write({"status": "finished" if self.is_closed else status})
        self.is_closed = True


@found_by(OPENED, r"open_run returned None, without id")
class OpensNothing(FilesBackend):
    """`open_run` forgets to return the run."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: FilesArgs) -> Run:
        FilesRun(ticket, ticket.directory / args.path)
        return None  # type: ignore[return-value]


@found_by(OPENED, r"whose flush cannot be called as flush\(timeout\)")
class FlushWithoutTimeout(FilesRun):
    """`flush` takes no time-out."""

    def flush(self) -> None:  # type: ignore[override]
        """Return at once."""


@found_by(OPENED, r"with log_tables, which rolecall never calls; did you mean 'log_table'")
class LogTables(ServiceRun):
    """`log_table` is misspelled."""

    def log_tables(self, row: Row) -> None:
        """Nobody calls it."""


@found_by(OPENED, r"with heldd, which rolecall never calls; did you mean 'held'")
class Heldd(ServiceRun):
    """`held` is misspelled."""

    def heldd(self, writer: str, session: int) -> list[tuple[int, int]]:
        return []


@found_by(OPENED, r"with tend, but without confirmed")
class TendsOnly(ServiceRun):
    """Half of `SupportsConfirmation`."""

    def tend(self) -> None:
        """Nobody calls it."""


@found_by(OPENED, r"url: expected a string or None, held")
class UrlIsPath(FilesRun):
    """`url` is no string."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self.url = ["file", str(folder)]  # type: ignore[assignment]


@found_by(OPENED, r"id: expected .* held")
class IdIsNumber(FilesRun):
    """`id` is no string."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self.id = 7  # type: ignore[assignment]


@found_by(OPENED, r"id: expected the backend's name of the run, held an empty string")
class IdIsEmpty(FilesRun):
    """`id` says nothing: the run is not found again."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self.id = ""
