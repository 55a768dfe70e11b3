"""Some of what comes, where there may be too much of it."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Sampled(Generic[T]):
    """About `most` of the items that are added, evenly chosen, and always the first and the last.

    Attributes:
        count: how many were added.
    """

    def __init__(self, most: int) -> None:
        self.count = 0
        self._most = most
        self._stride = 1
        self._kept: list[T] = []
        self._last: list[T] = []

    def add(self, item: T) -> None:
        """One more item."""
        if len(self._kept) >= self._most:
            del self._kept[1::2]
            self._stride *= 2
        if self.count % self._stride:
            self._last = [item]
        else:
            self._kept.append(item)
            self._last = []
        self.count += 1

    @property
    def last(self) -> T:
        """What was added last; there must be one."""
        return (self._last or self._kept)[-1]

    def items(self) -> list[T]:
        """What was kept, in order."""
        return self._kept + self._last


def by_importance(count: int) -> Iterator[int]:
    """The places of a list: the last, the first, the one in the middle, those between, and so on.

    However few of them there is room for, they are spread over the whole.
    """
    if count:
        yield count - 1
    stride = 1 << max(0, count - 2).bit_length()
    yield from range(0, count - 1, stride)
    while stride > 1:
        yield from range(stride // 2, count - 1, stride)
        stride //= 2
