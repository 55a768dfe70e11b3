"""Rows that are lost, doubled or mixed up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rolecall_reference.files import FilesRun, as_ranges
from rolecall_reference.queued import QueueRun
from rolecall_reference.service import ServiceRun
from rolecall_reference.shared import SharedRun

from rolecall import Row, RunTicket, Status
from rolecall_broken.catalogue import found_by

LOST = r"reward/mean: expected .* held .*not held \[\("
EXTRA = r"reward/mean: expected .* held .*not expected \[\("


@found_by("test_holds_rows_when_flush_returns[shared]", r"expected the keys .*trainer/loss.*, held \[\]")
class InMemoryOnly(SharedRun):
    """`flush` acknowledges rows that only the courier's memory has; they are written when the run is closed."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._rows: list[Row] = []

    def log(self, rows: Sequence[Row]) -> None:
        self._rows += rows

    def close(self, status: Status) -> None:
        super().log(self._rows)
        self._rows = []
        super().close(status)


@found_by("test_holds_rows_when_flush_returns[separate]", LOST)
class FlushesEarly(FilesRun):
    """`flush` returns while the newest row is still in memory."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._newest: list[Row] = []

    def log(self, rows: Sequence[Row]) -> None:
        *written, newest = [*self._newest, *rows]
        super().log(written)
        self._newest = [newest]

    def close(self, status: Status) -> None:
        super().log(self._newest)
        self._newest = []
        super().close(status)


@found_by("test_holds_rows_when_flush_returns[separate]", r"expected the keys .*loss.*, held \[\]")
class FlushesQueueEarly(QueueRun):
    """`flush` does not wait for the SDK's queue."""

    pause = 60.0

    def flush(self, timeout: float) -> None:
        """Return at once."""


@found_by("test_holds_every_row_of_every_writer[separate]", LOST)
class LosesLastRow(FilesRun):
    """The last row of each call is lost."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows[:-1] if len(rows) > 1 else rows)


@found_by(
    "test_holds_every_row_of_every_writer[shared]",
    r"explorer/0/reward/mean: expected \[\(1, 100.125\).* held \[\(2, .*; not held \[\(1, 100.125\)\]",
)
class LosesFirstRow(SharedRun):
    """The first row of a run is lost, as the SDK was still starting."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._is_started = False

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows if self._is_started else rows[1:])
        self._is_started = True


@found_by("test_holds_every_row_of_every_writer[separate]", LOST)
class LosesEveryHundredthRow(FilesRun):
    """One row in a hundred is lost."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row for row in rows if row.seq % 100])


@found_by("test_holds_every_row_of_every_writer[separate]", LOST)
class TakesSixtyFourRows(FilesRun):
    """Of each call, what is beyond the size of the SDK's buffer is lost."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows[:64])


@found_by(
    "test_holds_every_row_of_every_writer[separate]",
    r"expected the keys \['loss', 'reward/mean'\], held \['reward/mean'\]",
)
class LosesSecondMetric(FilesRun):
    """Of each row, the first metric alone is kept."""

    def write(self, *lines: Mapping[str, Any]) -> None:
        super().write(*({**line, "metrics": dict([*line.get("metrics", {}).items()][:1])} for line in lines))


@found_by("test_holds_every_row_of_every_writer[separate]", EXTRA)
class WritesTwice(FilesRun):
    """Each row is there twice."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log([*rows, *rows])


@found_by("test_holds_rows_after_its_courier_was_killed[separate]", LOST)
class TruncatesOnReopening(FilesRun):
    """What a killed courier had written goes when the run is opened again."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        if ticket.backend_run_id is not None:
            os.ftruncate(self._file, 0)


@found_by("test_holds_rows_after_its_courier_was_killed[shared]", LOST)
class StagesUntilClosed(SharedRun):
    """Rows are written under a name of the process, and moved to the run when it closes: a kill leaves them there."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._run_file = self._file
        self._file = os.open(folder / f"{self.id}.{os.getpid()}.staged", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def close(self, status: Status) -> None:
        os.write(self._run_file, os.pread(self._file, os.fstat(self._file).st_size, 0))
        super().close(status)


@found_by("test_holds_each_row_once_after_resending[separate]", EXTRA)
class DoublesOnResending(FilesRun):
    """`held` knows what this process has written, and nothing of the one before it."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._newest: dict[tuple[str, int], int] = {}

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows)
        self._newest.update(((row.writer, row.session), row.seq) for row in rows)

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        return [(1, self._newest.get((writer, session), 0))]


@found_by("test_holds_each_row_once_after_resending[separate]", EXTRA)
class HoldsTooLittle(FilesRun):
    """`held` leaves out the newest ten rows."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        return [(first, last - 10) for first, last in super().held(writer, session) if last - 10 >= first]


@found_by("test_holds_every_row_of_every_writer[separate]", LOST)
class HoldsTooMuch(FilesRun):
    """`held` says that ten rows more are there than are."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        return [(first, last + 10) for first, last in super().held(writer, session)]


@found_by(
    "test_holds_every_row_of_every_writer[many]",
    r"expected the keys .*trainer/loss.* held \['explorer/0/loss', 'explorer/0/reward/mean'\]",
)
class HoldsByRun(FilesRun):
    """`held` does not ask whose rows they are: what one writer has sent, the others need not."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        newest = max((line["seq"] for line in self.lines() if "seq" in line), default=0)
        return [(1, newest)] if newest else []


@found_by("test_goes_on_in_the_same_run_after_a_restart[separate]", LOST)
class HoldsByWriter(FilesRun):
    """`held` does not ask for the session, whose rows are numbered from 1 again."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        lines = (line for line in self.lines() if line.get("writer") == writer)
        return as_ranges({line["seq"] for line in lines})


@found_by("test_holds_each_row_once_after_resending[separate]", EXTRA)
class HoldsOfSessionBefore(FilesRun):
    """`held` answers for the session before the one that it was asked for."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        return super().held(writer, session - 1)


@found_by("test_confirms_what_it_holds", r"confirmed and not held|expected at most")
class ConfirmsWhatIsQueued(QueueRun):
    """Rows are confirmed as soon as the SDK has queued them."""

    pause = 60.0

    def tend(self) -> None:
        self._confirmed.update(((writer, session), seq) for _, writer, session, seq in self._queued)


@found_by("test_confirms_what_it_holds", r"expected at most 40 rows .* held 1000000")
class ConfirmsFarTooMuch(QueueRun):
    """What is confirmed is no number of a row."""

    def confirmed(self, writer: str, session: int) -> int:
        return 1_000_000


@found_by("test_confirms_what_it_holds", r"expected within", patience=2.0)
class NeverConfirms(QueueRun):
    """Nothing is ever confirmed."""

    def confirmed(self, writer: str, session: int) -> int:
        return 0


@found_by(
    "test_one_run_takes_rows_of_many_writers",
    r"expected the keys .*trainer/loss.* held \['explorer/0/loss', 'explorer/0/reward/mean'\]",
)
class OneStateForAllWriters(FilesRun):
    """A row is new if its number is above the last one that came, whoever wrote it."""

    newest = 0

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row for row in rows if row.seq > self.newest])
        self.newest = max(row.seq for row in rows)


@found_by("test_one_run_takes_rows_of_many_writers", LOST)
class StateOfWritersNotSessions(FilesRun):
    """A row is new if its number is above the last one of its writer, whatever the session."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._newest: dict[str, int] = {}

    def log(self, rows: Sequence[Row]) -> None:
        super().log([row for row in rows if row.seq > self._newest.get(row.writer, 0)])
        self._newest[rows[0].writer] = rows[-1].seq


@found_by(
    "test_one_run_takes_rows_of_many_writers",
    r"expected the keys .*trainer/loss.* held \['explorer/0/loss', 'explorer/0/reward/mean'\]",
)
class StepsMustGrow(FilesRun):
    """The SDK drops a step that is not above the last one, as wandb does, though the run has many writers."""

    newest = 0

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.step > self.newest:
                super().log([row])
                self.newest = row.step


@found_by("test_one_run_takes_rows_of_many_writers", LOST)
class IgnoresSessions(ServiceRun):
    """Rows are known by writer and number, without the session."""

    def send(self, what: str, body: Mapping[str, Any]) -> None:
        if what == "rows":
            body = {"rows": [{**row, "id": [row["id"][0], 1, row["id"][2]]} for row in body["rows"]]}
        super().send(what, body)


@found_by("test_separate_runs_are_apart", r"expected two runs, held 'run-1' twice")
class OneRunForAll(FilesRun):
    """Separate runs are all called after the job."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(replace(ticket, run_id=ticket.job, backend_run_id=None), folder)


@found_by("test_goes_on_in_the_same_run_after_a_restart[separate]", r"opened again, the run is")
class NewRunEachTime(ServiceRun):
    """A run that is opened again is a new one."""

    def __init__(self, ticket: RunTicket, args: Any) -> None:
        super().__init__(replace(ticket, backend_run_id=None), args)


@found_by("test_holds_every_row_of_every_writer[shared]", r"expected the keys .*trainer/loss.*, held \[\]")
class OverwritesWhatOthersWrote(SharedRun):
    """Each process writes the run's file from what it knows."""

    def write(self, *lines: Mapping[str, Any]) -> None:
        self._known = [*getattr(self, "_known", ()), *lines]
        os.ftruncate(self._file, 0)
        super().write(*self._known)


@found_by("test_a_job_is_delivered", r"expected every row to be delivered, held back", patience=8.0)
class OneRunPerProcess(FilesRun):
    """The SDK knows one run: opening another one ends it, and COURIERS does not ask for a process of its own."""

    current: ClassVar[FilesRun | None] = None

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        if self.current is not None:
            self.current.close("finished")
        super().__init__(ticket, folder)
        type(self).current = self
