"""Secrets and files where they must not be."""

from __future__ import annotations

import os
from pathlib import Path

from rolecall_reference.files import FilesArgs, FilesRun
from rolecall_reference.service import ServiceArgs, ServiceBackend, ServiceRun
from rolecall_reference.shared import SharedBackend, SharedRun

from rolecall import Run, RunTicket, hookimpl
from rolecall_broken.catalogue import found_by


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
