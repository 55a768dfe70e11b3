"""The progress bars of `rolecall deliver`, one for each backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID


class Held(Protocol):
    """How many rows a backend holds, and how many there were at the start."""

    @property
    def backend(self) -> str:
        """The backend."""

    @property
    def rows(self) -> int:
        """The rows that it holds."""

    @property
    def total(self) -> int:
        """The rows to deliver."""


@contextmanager
def progress_bars() -> Iterator[Callable[[Sequence[Held]], None]]:
    """A function that draws how much each backend holds, on standard error.

    It draws nothing if that is not a terminal, or if rich is not installed: a delivery needs no drawing.
    """
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def draw(backends: Sequence[Held]) -> None:
            for held in backends:
                if held.backend not in tasks:
                    tasks[held.backend] = progress.add_task(held.backend, total=held.total)
                # a job that still runs logs more than there was at the start
                progress.update(tasks[held.backend], completed=min(held.rows, held.total))

        yield draw
