"""Backends that hang, raise, block, leak or write where they must not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict
from rolecall_broken.catalogue import SHORT, found_by
from rolecall_reference.files import FilesArgs, FilesBackend, FilesReadback, FilesRun
from rolecall_reference.queued import QueueRun
from rolecall_reference.service import ServiceArgs, ServiceBackend, ServiceRun
from rolecall_reference.shared import SharedBackend, SharedRun

from rolecall import Row, Run, RunTicket, SharedRunSupport, Status, SupportsReadback, hookimpl

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
        if not self.is_closed:
            self.write({"status": "finished" if self.is_closed else status})
        else:
            self.write({"status": "finished"})
        self.is_closed = True


@found_by(OPENED, r"open_run returned None, without id")
class OpensNothing(FilesBackend):
    """`open_run` forgets to return the run."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: FilesArgs) -> Run:
        return FilesRun(ticket, ticket.directory / args.path) and None  # type: ignore[return-value]


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


# ------------------------------------------------------------------------------------ hooks


class _LaxArgs(FilesArgs):
    model_config = ConfigDict(extra="ignore", frozen=True)


@found_by("test_arguments_are_checked", r'a misspelled argument must be an error: ConfigDict\(extra="forbid"\)')
class IgnoresUnknownArguments(FilesBackend):
    """A misspelled argument is ignored."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return _LaxArgs


class _BareArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Path("runs")
    api_key: str = ""


@found_by("test_arguments_are_checked", r"must be pydantic.SecretStr: api_key")
class BareSecret(FilesBackend):
    """A key is a plain string, which shows wherever arguments do."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return _BareArgs


@found_by("test_says_whether_it_shares", r"the reason tells a user what to change, held 'no'")
class UselessReason(FilesBackend):
    """It says that runs are not shared, and not why."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        return SharedRunSupport(supported=False, reason="no")


@found_by("test_says_whether_it_shares", r"expected supported=False, as `can` says, held")
class SharesWhatItCannot(FilesBackend):
    """It says that runs are shared, though one process writes them."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        return SharedRunSupport(supported=True)


@found_by("test_abilities_are_declared", r"`can` names what the backend does not have: axes")
class ClaimsAxes(FilesBackend):
    """Its author says that it binds axes, and it has no `declare_axes`."""


@found_by("test_abilities_are_declared", r"the backend has what `can` does not name: .*axes")
class AxesUnsaid(FilesBackend):
    """It binds axes, and nobody checks how."""

    @hookimpl
    def declare_axes(self, run: FilesRun, axes: dict[str, str]) -> None:
        """Forget them."""


@found_by("test_loads_without_its_sdk", r"import these in open_run.*: queue_sdk")
class ImportsSdkInHook(SharedBackend):
    """`supports_shared_run` looks for the SDK's version in the SDK."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        import queue_sdk

        return SharedRunSupport(supported=queue_sdk.BATCH > 0)


@found_by("test_loads_without_its_sdk", r"import these in open_run.*: queue_sdk")
class ImportsSdkInArguments(FilesBackend):
    """`backend_args` takes defaults from the SDK."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        import queue_sdk  # noqa: F401

        return FilesArgs


@found_by("test_loads_without_its_sdk", r"import these in open_run.*: undeclared_sdk")
class ImportsUndeclaredSdk(FilesBackend):
    """What it imports is not among its requirements."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        import undeclared_sdk

        return SharedRunSupport(supported=False, reason=undeclared_sdk.REASON)


@found_by("test_hooks_are_quick", r"expected less than 1 s, held .*supports_shared_run")
class SlowHook(SharedBackend):
    """`supports_shared_run` waits for something."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        time.sleep(1.2)
        return SharedRunSupport(supported=True)


@found_by("test_hooks_are_quick", r"expected no connection, held")
class ConnectsInHook(SharedBackend):
    """`supports_shared_run` asks a server."""

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        with socket.socket() as connection:
            connection.connect_ex(("127.0.0.1", 9))
        return SharedRunSupport(supported=True)


# ------------------------------------------------------------------------- secrets and files


@found_by("test_keeps_no_secret_in_a_file", r"expected no secret in a file, held: .*\.netrc has a secret")
class SecretInFile(SharedBackend):
    """The key is kept in a file, as an SDK's login does."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: FilesArgs) -> Run:
        if args.api_key is not None:
            Path(os.environ["HOME"], ".netrc").write_text(f"password {args.api_key.get_secret_value()}")
        return SharedRun(ticket, ticket.directory / args.path)


@found_by("test_keeps_no_secret_in_a_file", r"expected no secret in a file, held: .*log has a secret")
class SecretInLog(ServiceBackend):
    """The key is printed."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        print(f"login with {args.api_key.get_secret_value()}", flush=True)
        return ServiceRun(ticket, args)


@found_by("test_keeps_no_secret_in_a_file", r"the run's id or url has a secret")
class SecretInUrl(ServiceRun):
    """The key is in the address that a user passes on."""

    def __init__(self, ticket: RunTicket, args: ServiceArgs) -> None:
        super().__init__(ticket, args)
        self.url = f"{args.url}/runs/{self.id}?key={args.api_key.get_secret_value()}"


@found_by("test_writes_in_its_folder_only", r"expected files in .* only, held also .*settings")
class WritesAtHome(FilesRun):
    """It remembers something in the user's home directory."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        Path.home().joinpath("settings.json").write_text("{}")


@found_by("test_writes_in_its_folder_only", r"expected files in .* only, held also .*debug\.log")
class WritesWhereItIs(FilesRun):
    """It writes a log into the working directory."""

    def flush(self, timeout: float) -> None:
        super().flush(timeout)
        Path("debug.log").write_text("flushed")


@found_by("test_writes_in_its_folder_only", r"expected files in .* only, held also .*other")
class WritesBesideItsFolder(FilesRun):
    """It writes into another backend's folder."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        (ticket.directory.parent / "other").mkdir(exist_ok=True)
        (ticket.directory.parent / "other" / "cache").write_text("")


# --------------------------------------------------------------------------- away, read back


@found_by("test_says_when_it_is_unavailable", r"expected Unavailable, held")
class ForeignErrorWhenAway(ServiceBackend):
    """That the server is away is an error of the client library."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        from urllib.request import urlopen

        urlopen(f"{args.url}/runs/any")
        return ServiceRun(ticket, args)


@found_by("test_says_when_it_is_unavailable", r"expected Unavailable, held|DID NOT RAISE|did not return")
class OpensWhatIsAway(ServiceBackend):
    """It does not ask the server when it opens a run."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        try:
            return ServiceRun(ticket, args)
        except Exception:
            return FilesRun(ticket, ticket.directory)


class _RepeatsRows(FilesReadback):
    """Says what it was given."""

    def expected(self, row: Row) -> Row:
        return replace(row, metrics={key: round(value, 1) for key, value in row.metrics.items()})


@found_by("test_readback_agrees", r"reward/mean|loss: expected .*held")
class ReadbackExpectsOthers(FilesBackend):
    """`expected` rounds values, which the run does not."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _RepeatsRows(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


class _Once(FilesReadback):
    """Each point once."""

    def points(self, key: str) -> Any:
        yield from {point.step % 20: point for point in super().points(key)}.values()


@found_by("test_readback_agrees", r"(reward/mean|loss): expected .*held")
class ReadbackMissesPoints(FilesBackend):
    """It reads one page of the points."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _Once(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


class _Given(FilesReadback):
    """Says that the run holds what it was told to hold."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._given: list[Row] = []

    def expected(self, row: Row) -> Row:
        self._given.append(row)
        return row

    def scan(self) -> Any:
        from rolecall import Point

        for row in self._given:
            yield from ((key, Point(row.step, value, row.time)) for key, value in row.metrics.items())


@found_by("test_readback_agrees", r"expected .*held")
class ReadbackRepeats(FilesBackend):
    """It finds what `expected` was given, whatever the run holds: the run lacks a row."""

    class Losing(FilesRun):
        """Loses a row."""

        def log(self, rows: Sequence[Row]) -> None:
            super().log([row for row in rows if row.seq != 7])

    run = Losing

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _Given(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


@found_by("test_readback_agrees", r"expected .*held")
class ReadbackChangesRun(FilesBackend):
    """It opens the run to read it, which adds a row."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        run = FilesRun(replace(ticket, primary=False), ticket.directory / args.path)
        run.write({"step": 0, "time": 0.0, "metrics": {"opened": 1.0}})
        run.close("finished")
        return FilesReadback(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


@found_by("test_readback_says_what_is_gone", r"expected RunGone, held|DID NOT RAISE")
class ReadbackOfNothing(FilesBackend):
    """A run that is gone holds nothing."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        file = ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl"
        file.touch()
        return FilesReadback(file)
