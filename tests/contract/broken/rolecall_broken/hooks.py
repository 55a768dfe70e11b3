"""Hooks that are slow, lax or say what is not so."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rolecall_reference.files import FilesArgs, FilesBackend
from rolecall_reference.service import ServiceRun
from rolecall_reference.shared import SharedBackend

from rolecall import SharedRunSupport, hookimpl
from rolecall_broken.catalogue import found_by


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


@found_by("test_says_which_hooks_it_has", r"write ROLECALL_HOOKS = \d+ beside its hooks")
class SaysNoVersion(FilesBackend):
    """It does not say for which version of the hooks it was written."""

    def __getattribute__(self, name: str) -> object:
        if name == "ROLECALL_HOOKS":
            raise AttributeError(name)
        return super().__getattribute__(name)


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


@found_by("test_abilities_are_declared", r"what the backend does not have: axes", claims=frozenset({"axes"}))
class ClaimsAxes(FilesBackend):
    """Its author says that it binds axes, and it has no `declare_axes`."""


@found_by("test_abilities_are_declared", r"the backend has what `can` does not name: tags")
class TagsUnsaid(ServiceRun):
    """It takes tags, and nobody checks what becomes of them."""

    def set_tags(self, tags: Sequence[str]) -> None:
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


@found_by(
    "test_is_listed_under_its_name", r"expected 'other-name' among the installed backends, held", listed="another-name"
)
class OtherName(FilesBackend):
    """Its entry point has another name than its author believes."""
