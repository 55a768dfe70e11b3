"""The contract, with all its tests."""

from rolecall.testing.content import Content
from rolecall.testing.delivery import Delivery
from rolecall.testing.hygiene import Hygiene


class BackendContract(Hygiene, Delivery, Content):
    """Subclass it at the top of a module of tests, name the backend, say what it can, and read back what it holds."""
