"""Puts back what a run lacks, or opens a new run for everything."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

from rolecall import timings
from rolecall.delivery.check.leases import Leases
from rolecall.delivery.check.points import PointTable
from rolecall.delivery.check.target import Target
from rolecall.errors import Rejected
from rolecall.protocol import Run, SupportsConfig, SupportsReadback
from rolecall.rows import Row
from rolecall.store.acks import Position, RunReference
from rolecall.store.axes import AxisBook

_BATCH: Final = 1000


@dataclass
class Sent:
    """What a repair did.

    Attributes:
        rows: how many rows the run took, each with the missing metrics alone.
        reason: why it refused others; empty if it did not.
    """

    rows: int = 0
    reason: str = ""


def put_back(target: Target, table: PointTable, leases: Leases) -> Sent:
    """Send the points that `table` found missing, to the run that misses them.

    Raises:
        BackendRefused: the run takes no points between those that it holds.
        Unavailable: the backend does not take them now.
    """
    sent = Sent()
    with closing(target.open_readback()) as readback:
        for writer, until in target.positions().items():
            lacking = _lacking(target, table, readback, writer, until)
            # The run is opened only for writers that need it.
            if batch := next(_batches(lacking), None):
                _send(target, writer, chain([batch], _batches(lacking)), leases, sent)
    return sent


def open_new_run(target: Target, leases: Leases) -> None:
    """Open a new run, to which all rows have to be delivered from then on. If it cannot be opened, nothing changes.

    Raises:
        BackendRefused, Unavailable: it cannot be opened.
    """
    known = target.ticket_of(target.owner)
    # A new name: a backend may find the old run by its own, or refuse one that was deleted.
    ticket = replace(known, run_id=f"{known.run_id}-{uuid.uuid4().hex[:6]}", backend_run_id=None)
    run = target.backend.open_run(ticket, target.args)
    try:
        leases.start_again(RunReference(run.id, run.url, ticket.run_id))
    finally:
        run.close("killed")  # until it is opened again, to deliver


def _lacking(
    target: Target, table: PointTable, readback: SupportsReadback, writer: str, until: Position
) -> Iterator[Row]:
    """The rows of a writer of which the run lacks something, reduced to that."""
    for row, is_wanted in target.rows(writer, until):
        if is_wanted and (metrics := _lacking_metrics(target, table, readback, row)):
            yield replace(row, metrics=metrics, text={})


def _lacking_metrics(
    target: Target, table: PointTable, readback: SupportsReadback, row: Row
) -> Mapping[str, float | int]:
    found = {}
    for key, value in row.metrics.items():
        # One by one, as the backend may call the metric something else.
        for name, point in target.points(readback, replace(row, metrics={key: value})):
            if table.take(name, point):
                found[key] = value
    return found


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _send(target: Target, writer: str, batches: Iterable[list[Row]], leases: Leases, sent: Sent) -> None:
    backend, book = target.backend, AxisBook(target.layout, writer)
    run = backend.open_run(target.ticket(writer, repair=True), target.args)
    try:
        # A tracker may keep only what its last writer declared.
        _declare(target, run, book)
        keys = target.keys(writer)
        for batch in batches:
            leases.require()
            for row in batch:
                keys.rename(row)
            sent.rows += len(batch)
            try:
                run.log(batch)
            except Rejected as rejected:
                sent.rows -= len(rejected.rows)
                sent.reason = sent.reason or str(rejected)
        run.flush(timings.EXPORT_TIMEOUT)
    finally:
        run.close("finished")


def _declare(target: Target, run: Run, book: AxisBook) -> None:
    bindings, _ = target.keys(book.writer).bindings(0)
    if bindings:
        target.backend.declare_axes(run, bindings)
    if target.shared and isinstance(run, SupportsConfig) and book.configs:
        run.merge_config(book.configs)
