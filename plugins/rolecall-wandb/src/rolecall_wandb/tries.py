"""Hands over rows that are uploaded as files, each a few times at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rolecall import Rejected, Row, Unavailable
from rolecall_wandb.media import entry_of

__all__ = ["Tries"]

TRIES: Final = 3


class Tries:
    """Counts how often a table or media failed, so that rows do not wait forever behind what the server refuses."""

    def __init__(self) -> None:
        self._failed: Counter[tuple[str, int, int]] = Counter()

    def upload(
        self, row: Row, store: Callable[[Mapping[str, Path]], object], look: Callable[[], object]
    ) -> Mapping[str, Any]:
        """Store the files of a row with media; return what a line of history has of the row.

        Args:
            row: the row.
            store: stores files in the run, by their names there.
            look: as in `counted`.

        Raises:
            Rejected: it was the last try, or wandb cannot hold them.
            Unavailable: the row is to come again.
        """
        entry, files = entry_of(row)
        with self.counted(row, look, Unavailable):
            if files:
                store(files)
        return entry

    @contextmanager
    def counted(self, row: Row, look: Callable[[], object], lost: Callable[[str], Unavailable]) -> Iterator[None]:
        """Hand over a row in this block; it counts as failed if the block raises what is not rolecall's.

        Args:
            row: the row.
            look: raises if the server is unreachable, as the row is not to blame then.
            lost: ends what the failure may have left behind, and makes the error to raise.

        Raises:
            Rejected: it was the last try.
            Unavailable: the row is to come again.
        """
        try:
            yield
        except (Rejected, Unavailable):
            raise
        except Exception as error:
            look()
            what = "a table" if row.table is not None else "media"
            self._failed[row.writer, row.session, row.seq] += 1
            if self._failed[row.writer, row.session, row.seq] >= TRIES:
                raise Rejected([row], f"wandb did not accept {what} in {TRIES} tries: {error!r}") from error
            raise lost(f"wandb did not accept {what}, which will be sent again: {error!r}") from error
