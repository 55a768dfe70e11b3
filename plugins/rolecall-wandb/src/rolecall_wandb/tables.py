"""Turns tables of rows into wandb's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from rolecall import Rejected, Row, Unavailable

if TYPE_CHECKING:
    import wandb

__all__ = ["TableTries", "short_name", "table_of"]

TRIES: Final = 3
LONGEST_ARTIFACT: Final = 128
"""Characters of an artifact's name, by the SDK's own check."""
MARGIN: Final = 16
NO_TABLE: Final = "wandb did not accept a table, it is sent again: {!r}"


def table_of(row: Row, run_id: str) -> dict[str, wandb.Table]:
    """The row's table by its name, or nothing; a column may have values of several types.

    A name that is too long for wandb is cut, and tells by its end which one it was.

    Raises:
        Rejected: the SDK cannot make a table of it.
    """
    import wandb

    if row.table is None:
        return {}
    data: list[Any] = [list(line) for line in row.table.rows]
    try:
        table = wandb.Table(columns=list(row.table.columns), data=data, allow_mixed_types=True)
    except Exception as error:
        raise Rejected([row], f"wandb cannot make a table of {row.table.name!r}: {error}") from error
    return {short_name(row.table.name, run_id): table}


def short_name(name: str, run_id: str) -> str:
    """The name under which a run holds a table."""
    # The table is an artifact `run-{run_id}-{name}`, with a few characters more in some versions (0.19.10, 0.31.0).
    longest = LONGEST_ARTIFACT - len(f"run-{run_id}-") - MARGIN
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9]}-{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


class TableTries:
    """Counts how often a table failed, so that rows do not wait forever behind one that the server refuses."""

    def __init__(self) -> None:
        self._failed: Counter[tuple[str, int, int]] = Counter()

    @contextmanager
    def counted(self, row: Row, look: Callable[[], object], lost: Callable[[str], Unavailable]) -> Iterator[None]:
        """Hand over a table in this block; it counts as failed if the block raises what is not rolecall's.

        Args:
            row: the table's row.
            look: raises if the server is unreachable, as the table is not to blame then.
            lost: ends what the failure may have left behind, and makes the error to raise.

        Raises:
            Rejected: it was the last try.
            Unavailable: the table is to come again.
        """
        try:
            yield
        except (Rejected, Unavailable):
            raise
        except Exception as error:
            look()
            self._failed[row.writer, row.session, row.seq] += 1
            if self._failed[row.writer, row.session, row.seq] >= TRIES:
                raise Rejected([row], f"wandb did not accept the table in {TRIES} tries: {error!r}") from error
            raise lost(NO_TABLE.format(error)) from error
