"""The reference backends, one of each kind, pass the whole contract; all but the first by name."""

from __future__ import annotations

import pytest
from reference_contracts import FilesContract, QueueContract, ServiceContract, SharedContract


class TestFiles(FilesContract):
    pass


@pytest.mark.matrix
class TestUnsteady(FilesContract):
    """A backend that is not available for a moment is a correct one: the contract tries again, as couriers do."""

    monitor_type = "unsteady"


@pytest.mark.matrix
class TestSharedFiles(SharedContract):
    pass


@pytest.mark.matrix
class TestQueue(QueueContract):
    pass


@pytest.mark.matrix
class TestService(ServiceContract):
    pass
