"""Servers that are away, and runs that are read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rolecall_reference.files import FilesArgs, FilesBackend, FilesReadback, FilesRun
from rolecall_reference.service import ServiceArgs, ServiceBackend, ServiceRun

from rolecall import Row, Run, RunTicket, SupportsReadback, Unavailable, hookimpl
from rolecall_broken.catalogue import found_by


@found_by("test_says_when_it_is_unavailable", r"expected Unavailable, held")
class ForeignErrorWhenAway(ServiceBackend):
    """That the server is away is an error of the client library."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        from urllib.request import urlopen

        urlopen(f"{args.url}/runs/any")
        return ServiceRun(ticket, args)


@found_by("test_says_when_it_is_unavailable", r"expected Unavailable, held|DID NOT RAISE|did not return")
class OpensWhatIsAway(ServiceBackend):
    """It does not ask the server when it opens a run."""

    @hookimpl
    def open_run(self, ticket: RunTicket, args: ServiceArgs) -> Run:
        try:
            return ServiceRun(ticket, args)
        except Unavailable:
            return FilesRun(ticket, ticket.directory)


class _RepeatsRows(FilesReadback):
    """Says what it was given."""

    def expected(self, row: Row) -> Row:
        return replace(row, metrics={key: round(value, 1) for key, value in row.metrics.items()})


@found_by("test_readback_agrees", r"trainer/reward/mean: expected .* held \[\(1, 100.1\)")
class ReadbackExpectsOthers(FilesBackend):
    """`expected` rounds values, which the run does not."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _RepeatsRows(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


class _Once(FilesReadback):
    """Each point once."""

    def points(self, key: str) -> Any:
        yield from {point.step % 20: point for point in super().points(key)}.values()


@found_by("test_readback_agrees", r"trainer/reward/mean: expected \[\(1, .* held \[\(21, ")
class ReadbackMissesPoints(FilesBackend):
    """It reads one page of the points."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _Once(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


class _Given(FilesReadback):
    """Says that the run holds what it was told to hold."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._given: list[Row] = []

    def expected(self, row: Row) -> Row:
        self._given.append(row)
        return row

    def scan(self) -> Any:
        from rolecall import Point

        for row in self._given:
            yield from ((key, Point(row.step, value, row.time)) for key, value in row.metrics.items())


@found_by("test_readback_agrees", r"trainer/reward/mean: expected .*, held .*\(7, 100.875\)")
class ReadbackRepeats(FilesBackend):
    """It finds what `expected` was given, whatever the run holds: the run lacks a row."""

    class Losing(FilesRun):
        """Loses a row."""

        def log(self, rows: Sequence[Row]) -> None:
            super().log([row for row in rows if row.seq != 7])

    run: type[FilesRun] = Losing

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        return _Given(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


@found_by("test_readback_agrees", r"expected the keys \['trainer/.*, held \['opened', ")
class ReadbackChangesRun(FilesBackend):
    """It opens the run to read it, which adds a row."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        run = FilesRun(replace(ticket, primary=False), ticket.directory / args.path)
        run.write({"step": 0, "time": 0.0, "metrics": {"opened": 1.0}})
        run.close("finished")
        return FilesReadback(ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl")


@found_by("test_readback_says_what_is_gone", r"expected RunGone, held|DID NOT RAISE")
class ReadbackOfNothing(FilesBackend):
    """A run that is gone holds nothing."""

    @hookimpl
    def open_readback(self, ticket: RunTicket, args: FilesArgs) -> SupportsReadback:
        file = ticket.directory / args.path / f"{ticket.backend_run_id}.jsonl"
        file.touch()
        return FilesReadback(file)
