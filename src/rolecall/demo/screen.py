"""What a person sees of the job: its progress, and at the end where to look and how."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rolecall.demo.options import DemoOptions, DemoResult
from rolecall.demo.roles import Report

__all__ = ["Screen"]

LINES: Final = 10
"""How many lines tell the progress where there is no terminal to draw a bar on."""


SCORES: Final = (("trainer", "return"), ("evaluator", "greedy"))
"""Whose mean return is shown, and as what."""


class Screen:
    """The demo's words, on standard output; a context manager around the training."""

    def __init__(self, options: DemoOptions, console: Console | None = None) -> None:
        self._options = options
        self._console = console or Console()
        self._scores: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._rounds = self._bar.add_task("starting", total=options.steps)

    def __enter__(self) -> Self:
        chosen = self._options
        self._say("CartPole, learned by PPO: two explorers, a trainer, an evaluator, each a process")
        self._say(f"{chosen.steps} rounds, seed {chosen.seed}")
        self._say(f"Reporting to {' and '.join(chosen.monitor_type)}, in {_nearby(chosen.monitor_dir)}")
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is not None and self._options.monitor_dir.exists():
            self._say(f"Stopped. What was logged until then: {_show(self._options.monitor_dir)}")

    def show(self, report: Report) -> None:
        """Tell the progress; a round is done when the trainer says so."""
        self._scores[report.role] = report.mean_return
        words = ", ".join(f"{name} {self._scores[role]:.0f}" for role, name in SCORES if role in self._scores)
        self._bar.update(self._rounds, description=words)
        if report.role == "trainer":
            self._bar.update(self._rounds, completed=report.step)
            if not self._console.is_terminal and self._is_told(report.step):
                self._say(f"round {report.step}/{self._options.steps}: {words}")

    def close(self, result: DemoResult) -> None:
        """Tell what was learned, and where to look."""
        first, last = result.first_quarter, result.last_quarter
        self._say(
            f"Mean return {first:.0f} over the first quarter of the rounds, {last:.0f} over the last: "
            f"{last / first:.1f} times as much, in {result.seconds:.0f} s"
        )
        self._say("\nLook at the run:" if result.urls else "\nMonitoring was off: nothing was recorded.")
        for line in _ways_to_look(result):
            self._say(f"  {line}")
        self._say("\nHow such a job is written: rolecall.demo.roles and rolecall.demo.job")

    def _is_told(self, step: int) -> bool:
        steps = self._options.steps
        return step == steps or step % max(1, steps // LINES) == 0

    def _say(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)


def _ways_to_look(result: DemoResult) -> Iterator[str]:
    if result.urls:
        yield _show(result.directory)
    for url in result.urls.values():
        if url is not None:
            yield url
    if "tensorboard" in result.urls and shutil.which("tensorboard") is None:
        yield "  (TensorBoard's viewer: pip install tensorboard)"
    if "tensorboard" not in entry_points(group="rolecall.backends").names:
        yield "in TensorBoard too, next time: pip install 'rolecall[tensorboard]'"


def _show(directory: Path) -> str:
    return f"rolecall show {shlex.quote(_nearby(directory))}"


def _nearby(path: Path) -> str:
    """The path as a person would type it where they stand."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
