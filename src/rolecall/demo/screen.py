"""What the demo prints: its progress and its result."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rolecall.demo.options import DemoOptions, DemoResult
from rolecall.demo.roles import Report

__all__ = ["Screen"]

LINES: Final = 10
"""How many lines of progress are printed if there is no terminal to draw a bar on."""
SCORES: Final = (("trainer", "return"), ("evaluator", "greedy"))
"""The roles whose mean return is shown, and its name."""


class Screen:
    """Prints the demo's progress on standard output; a context manager around the training.

    Args:
        options: of the demo.
        console: where to print.
        nodes: how many nodes the roles run on.
    """

    def __init__(self, options: DemoOptions, console: Console | None = None, nodes: int = 1) -> None:
        self._options = options
        self._nodes = nodes
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
        self._say("Training PPO on CartPole with two explorers, a trainer and an evaluator, each in its own process")
        if chosen.ray:
            self._say(
                f"The roles are tasks on a Ray cluster of {self._nodes} nodes; only this one writes the journals below"
            )
        self._say(f"{chosen.steps} rounds, seed {chosen.seed}")
        self._say(f"Reporting to {' and '.join(chosen.monitor_type)}; journals in {_nearby(chosen.monitor_dir)}")
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, report: Report) -> None:
        """Show the progress; a round is done when the trainer reports it."""
        self._scores[report.role] = report.mean_return
        words = ", ".join(f"{name} {self._scores[role]:.0f}" for role, name in SCORES if role in self._scores)
        self._bar.update(self._rounds, description=words)
        if report.role == "trainer":
            self._bar.update(self._rounds, completed=report.step)
            if not self._console.is_terminal and self._is_printed(report.step):
                self._say(f"round {report.step}/{self._options.steps}: {words}")

    def close(self, result: DemoResult) -> None:
        """Print what was learned."""
        first, last = result.first_quarter, result.last_quarter
        self._say(
            f"Mean return: {first:.0f} in the first quarter of the rounds, {last:.0f} in the last quarter "
            f"({last / first:.1f} times as much), in {result.seconds:.0f} s"
        )

    def _is_printed(self, step: int) -> bool:
        steps = self._options.steps
        return step == steps or step % max(1, steps // LINES) == 0

    def _say(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)


def _nearby(path: Path) -> str:
    """The path as you would type it in the working directory."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
