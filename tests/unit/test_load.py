"""How much of a writer's rows is under way, in rows and in bytes of the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecall.delivery.cursor import Tail
from rolecall.delivery.load import Load
from rolecall.rows import Row
from rolecall.store.acks import Delivery
from rolecall.store.journal import JournalWriter, Place
from rolecall.store.layout import Layout
from rolecall.store.lease import claim


class Confirms:
    """A run that confirms what a test says."""

    def __init__(self, session: int, seq: int) -> None:
        self._told = (session, seq)

    def confirmed(self, writer: str, session: int) -> int:
        told, seq = self._told
        return seq if session == told else (1 << 62) * (session < told)

    def tend(self) -> None:
        """Nothing is to do."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Of a writer with three sessions, of 1, 2 and 3 rows."""
    layout = Layout(tmp_path)
    journal = layout.journal("trainer")
    for count in (1, 2, 3):
        session = claim(journal, {"writer": "trainer"}, "it")
        writer = JournalWriter(session)
        for step in range(1, count + 1):
            writer.append(step, {"loss": step / 7, "x" * 100 * count: 0.5})
        writer.end("finished")
    delivery = Delivery(layout, "late", "trainer")
    return Load(Tail("trainer", journal, delivery.done.place), delivery)


def read(load: Load) -> None:
    """All that there is, a mark for each piece."""
    while load.tail.status is None:
        rows = [entry.value for entry in load.tail.read() if isinstance(entry.value, Row)]
        if rows:
            load.mark(rows, rows[-1])


def sizes(load: Load) -> list[int]:
    return [path.stat().st_size for path in sorted(load.tail._journal.glob("*.jsonl"))]


def test_all_that_was_read_is_under_way(load: Load) -> None:
    read(load)
    assert (load.pending, load.size) == (6, sum(sizes(load)))


def test_what_is_confirmed_is_so_no_more(load: Load) -> None:
    read(load)
    load.acknowledge_confirmed(Confirms(2, 1))
    assert (load.pending, load.size) == (5, sum(sizes(load)[1:]))
    load.acknowledge_confirmed(Confirms(2, 2))
    assert (load.pending, load.size) == (3, sizes(load)[2])
    load.acknowledge_confirmed(Confirms(3, 3))
    assert (load.pending, load.size) == (0, 0)
    assert load.delivery.done.place == Place(3, sizes(load)[2])


def test_what_is_read_again_counts_once(load: Load) -> None:
    read(load)
    load.acknowledge_confirmed(Confirms(1, 1))
    load.rewind()
    assert (load.pending, load.size) == (0, 0)
    read(load)
    assert (load.pending, load.size) == (5, sum(sizes(load)[1:]))
