"""The reference backends, one of each kind, pass the whole contract; all but the simplest by name."""

from __future__ import annotations

import pytest
from reference_contracts import FilesContract, QueueContract, ServiceContract, SharedContract


class TestFiles(FilesContract):
    pass


@pytest.mark.matrix
class TestSharedFiles(SharedContract):
    pass


@pytest.mark.matrix
class TestQueue(QueueContract):
    pass


@pytest.mark.matrix
class TestService(ServiceContract):
    pass
