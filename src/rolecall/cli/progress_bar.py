"""How far `rolecall deliver` is: a bar for each backend, where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rolecall.delivery.redeliver import Held

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["bars"]

Show = Callable[[Sequence[Held]], None]


@contextmanager
def bars() -> Iterator[Show]:
    """What draws, on standard error; it draws nothing if that is no terminal, or without rich."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    with _progress() as progress:
        yield _show_on(progress)


def _show_on(progress: Progress) -> Show:
    tasks: dict[str, TaskID] = {}

    def show(held: Sequence[Held]) -> None:
        for one in held:
            if one.backend not in tasks:
                tasks[one.backend] = progress.add_task(one.backend, total=one.total)
            progress.update(tasks[one.backend], completed=min(one.rows, one.total))

    return show


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
