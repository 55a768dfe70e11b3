"""Steps that grow from one row to the next, for backends whose SDK takes no others.

The rows of several writers have steps that repeat and decrease. Such a backend gets the numbers of this module in their
place, and each row's own step as the metric `{prefix}step`. They have gaps: a relay writes down which numbers it may
give out, a thousand at a time, so one that follows it gives out higher ones.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from rolecall.store.codec import make_folder, put_whole, read_small

_BLOCK: Final = 1000
_LARGEST: Final = 1 << 10


class GrowingSteps:
    """Gives out numbers, each higher than all before it.

    Args:
        file: where it is written down which may have been given out.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last = self._end = 0
        with suppress(OSError, ValueError, TypeError, KeyError):  # there is none yet
            self._last = self._end = int(json.loads(read_small(file, _LARGEST))["end"])

    def take(self) -> int:
        """The next number.

        Raises:
            OSError: it cannot be written down that it is given out.
        """
        if self._last >= self._end:
            make_folder(self._file.parent)
            put_whole(self._file, json.dumps({"end": self._end + _BLOCK}).encode())
            self._end += _BLOCK
        self._last += 1
        return self._last
