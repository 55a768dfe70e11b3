"""A backend that imports its SDK with itself: a module of its own, as it does so when it is loaded."""

from __future__ import annotations

import queue_sdk
from rolecall_reference.files import FilesBackend

from rolecall_broken.catalogue import found_by


@found_by("test_loads_without_its_sdk", r"import these in open_run.*: queue_sdk")
class ImportsSdk(FilesBackend):
    """The module of the hooks imports the SDK."""

    sdk = queue_sdk
