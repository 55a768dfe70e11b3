"""A job on the screen while it runs: `rolecall show --follow`."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rolecall.cli.view.lines import Line, Look
from rolecall.cli.view.metrics import metrics_of
from rolecall.cli.view.screen import Screen, compose, rows_of
from rolecall.cli.view.summary import Job
from rolecall.cli.view.terminal import LiveTerminal, is_dumb, write
from rolecall.errors import ConfigError
from rolecall.job.history import JobReader
from rolecall.job.status import read_deliveries, unended
from rolecall.store.layout import Layout

LEAST_PAUSE: Final = 0.1
"""Seconds between two looks, so between two pictures."""
MOST_PAUSE: Final = 6.0
SHARE: Final = 0.035
"""Of a core, that is used: a picture that takes long to draw is drawn less often."""
_BACKENDS_INTERVAL: Final = 2.0
_BACKENDS_SHARE: Final = 0.01
_TICK: Final = 10.0
"""Seconds until what depends on the time alone is drawn again, if it is another then."""


def read_job(root: Path) -> Job:
    """A job as it is now."""
    watch = Watch(root)
    watch.refresh()
    return watch.job()


def follow(root: Path, patterns: Sequence[str], look: Look) -> None:
    """Draw a job until it has ended or the user quits; its last picture then stays on the normal screen.

    Raises:
        ConfigError: standard output is not a terminal, or cannot move its cursor.
    """
    if not sys.stdout.isatty() or is_dumb():
        why = "its TERM is dumb" if sys.stdout.isatty() else "standard output is none"
        raise ConfigError(f"--follow: needs a terminal, and {why}; leave out --follow")
    watch = Watch(root)
    watch.refresh()
    with LiveTerminal() as terminal:
        last = _Loop(watch, patterns, look, terminal).run()
    write(last, look)


class Watch:
    """A job that is read again and again; each time only what is new in its journals."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reader = JobReader(root)
        self._deliveries: tuple[Any, Any] = ((), ())
        self._due = 0.0

    def refresh(self) -> bool:
        """Read on; whether anything is new."""
        changed = self._reader.refresh()
        if time.monotonic() >= self._due:
            begin = time.process_time()
            layout, plan = Layout(self._root), self._reader.history.record.plan
            found = read_deliveries(layout, plan), unended(layout, plan)
            changed |= found != self._deliveries
            self._deliveries = found
            # Each backend keeps a file for each role.
            spent = time.process_time() - begin
            self._due = time.monotonic() + max(_BACKENDS_INTERVAL, spent / _BACKENDS_SHARE)
        return changed

    def job(self) -> Job:
        """The job as it was when it was last read."""
        return Job(self._root, self._reader.history, *self._deliveries, time.time())


class _Loop:
    def __init__(self, watch: Watch, patterns: Sequence[str], look: Look, terminal: LiveTerminal) -> None:
        self._watch = watch
        self._patterns = patterns
        self._look = look
        self._terminal = terminal
        self._skip = 0
        self._charts = 0

    def run(self) -> list[Line]:
        """Until the job has ended or the user quits; the lines that are to stay."""
        is_due, drawn_at = True, -LEAST_PAUSE
        while True:
            begin = time.process_time()
            # Looked at before the rows are read: those of a job that has ended are all there.
            is_over = not self._watch.job().is_running
            is_due |= self._watch.refresh()
            since = time.monotonic() - drawn_at
            # A key that is held down does not have it drawn more often.
            if (is_due and since >= LEAST_PAUSE) or since > _TICK:
                self._draw()
                is_due, drawn_at = False, time.monotonic()
            if is_over:
                return self._picture(footer=False).lines
            spent = time.process_time() - begin
            key = self._terminal.wait(LEAST_PAUSE if is_due else max(LEAST_PAUSE, min(spent / SHARE, MOST_PAUSE)))
            if key in ("q", "Q"):
                return []
            is_due |= self._turn(key) | self._terminal.take_resized()

    def _draw(self) -> None:
        screen = self._picture(footer=True)
        self._charts = screen.charts
        self._terminal.show(screen.lines, self._look)

    def _picture(self, *, footer: bool) -> Screen:
        columns, rows = self._terminal.size()
        self._look = replace(self._look, width=columns, height=rows)
        job = self._watch.job()
        try:
            (metrics,) = metrics_of([job.history], self._patterns)
        except ConfigError:  # nobody has logged such a metric yet
            metrics = []
        self._skip = self._skip if self._skip < len(metrics) else 0
        look = replace(self._look, height=rows - 1)  # one for the keys, or for the prompt
        screen = compose(job, metrics[self._skip :], look)
        if not footer:
            return screen
        last = self._skip + screen.charts
        more = (
            f"charts {self._skip + 1}-{last} of {len(metrics)}  space: next  " if screen.charts < len(metrics) else ""
        )
        blank = [Line()] * max(0, rows - 1 - rows_of(screen.lines, look))
        return Screen([*screen.lines, *blank, look.line((f"{more}q: quit", "dim")).cut(columns)], screen.charts)

    def _turn(self, key: str) -> bool:
        """Go to other charts; whether the key does that."""
        if key == " ":
            self._skip += self._charts
        elif key == "b":
            self._skip = max(0, self._skip - self._charts)
        return key in (" ", "b")
