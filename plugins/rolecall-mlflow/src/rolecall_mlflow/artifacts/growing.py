"""Tables that grow over steps, stored as chunks.

A chunk is an artifact with the rows of a minute: one for each call would be thousands of files. Its name is that of its
first row. Rows are acknowledged once all chunks that were begun are stored. So whatever happens in between, the same
rows come again from the same one on, and their chunk replaces what is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rolecall import Cell, Row, TableData

__all__ = ["CHUNK_EVERY", "GrowingTables"]

CHUNK_EVERY: Final = 60.0
"""Seconds of rows in a chunk."""
MOST_ROWS: Final = 5_000
"""Rows of any kind that may wait for an acknowledgement with those of a chunk."""


class GrowingTables:
    """The rows that the next chunks will hold."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, str], dict[int, Row]] = {}
        self._alone: set[tuple[str, int, int]] = set()
        self._began = 0.0
        self._count = 0

    def add(self, row: Row) -> bool:
        """Keep a row for a chunk; whether it is one. One that comes again is there once."""
        table = row.table
        if table is None or not table.append or (row.writer, row.session, row.seq) in self._alone:
            return False
        if not self._rows:
            self._began, self._count = time.monotonic(), 0
        self._rows.setdefault((row.writer, row.session, table.name), {})[row.seq] = row
        return True

    def count(self, rows: int) -> None:
        """Take note of rows that wait for the same acknowledgement."""
        self._count += rows

    def is_due(self) -> bool:
        """Whether it is time to store the chunks."""
        is_old = time.monotonic() - self._began >= CHUNK_EVERY or self._count >= MOST_ROWS
        return bool(self._rows) and is_old

    def first(self, writer: str, session: int) -> int | None:
        """The first row of a session that waits for a chunk."""
        waiting = (min(rows) for (whose, number, _), rows in self._rows.items() if (whose, number) == (writer, session))
        return min(waiting, default=None)

    def chunks(self) -> Iterator[Row]:
        """One row for each table, with the cells of all."""
        for rows in self._rows.values():
            in_order = [rows[seq] for seq in sorted(rows)]
            yield replace(in_order[0], table=_joined([row.table for row in in_order if row.table is not None]))

    def clear(self) -> None:
        """Forget the rows: they are stored, or will come again."""
        self._rows.clear()

    def split(self) -> None:
        """Take none of these rows any more, so that each is stored, or refused, alone."""
        self._alone |= {(writer, session, seq) for (writer, session, _), rows in self._rows.items() for seq in rows}
        self.clear()


def _joined(tables: Sequence[TableData]) -> TableData:
    """One table of all rows; a column that a table lacks is empty there."""
    columns = tuple(dict.fromkeys(name for table in tables for name in table.columns))
    rows: list[tuple[Cell, ...]] = []
    for table in tables:
        if table.columns == columns:
            rows += table.rows
            continue
        named = (dict(zip(table.columns, cells, strict=True)) for cells in table.rows)
        rows += (tuple(map(cells.get, columns)) for cells in named)
    return replace(tables[0], columns=columns, rows=tuple(rows))
