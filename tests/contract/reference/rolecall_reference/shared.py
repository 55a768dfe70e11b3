"""`shared-files`: a run is a file of JSON lines, which all roles write, whose metrics are bound to axes by name.

Each call is one `write` at the end of the file, so the processes need not know of each other.
"""

from collections.abc import Mapping

from rolecall import SharedRunSupport, hookimpl
from rolecall_reference.files import FilesArgs, FilesBackend, FilesRun


class SharedRun(FilesRun):
    """The same file, with a line for each declaration."""

    def declare(self, axes: Mapping[str, str]) -> None:
        self.write({"axes": axes})


class SharedBackend(FilesBackend):
    """The hooks of `files`, but that runs are shared."""

    run: type[FilesRun] = SharedRun

    @hookimpl
    def supports_shared_run(self, args: FilesArgs) -> SharedRunSupport:
        return SharedRunSupport(supported=True)

    @hookimpl
    def declare_axes(self, run: SharedRun, axes: Mapping[str, str]) -> None:
        run.declare(axes)


backend = SharedBackend()
