"""The reference backends, one of each kind, pass the whole contract."""

from __future__ import annotations

from reference_contracts import FilesContract, QueueContract, ServiceContract, SharedContract


class TestFiles(FilesContract):
    pass


class TestSharedFiles(SharedContract):
    pass


class TestQueue(QueueContract):
    pass


class TestService(ServiceContract):
    pass
