"""What a launcher prints of its job: a line at launch, one at the end, and bars while it waits."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rolecall import timings
from rolecall.config.commands import command
from rolecall.config.environment import prints_lines
from rolecall.config.plan import Plan
from rolecall.job.output.bar import Progress
from rolecall.job.status import DeliveryTotal, look_within, read_totals, read_writers
from rolecall.states import State
from rolecall.store.layout import Layout

Urls = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class JobPrinter:
    """Says where to look at a job, and how far it is.

    Attributes:
        name: the run's display name.
        root: its `monitor_dir`.
        plan: how rows reach each backend.
    """

    name: str
    root: Path
    plan: Plan

    def report_start(self, urls: Urls) -> None:
        """Print where to look: at the first run that is open, or else in the terminal."""
        # A URL comes from a server.
        known = (url for url in urls.values() if url and url.isprintable())
        say(f"run {self.name} -> {next(known, None) or self._command('show')}")

    def report_end(self) -> None:
        """Print what was recorded, what each backend holds, and what to do about the rest."""
        found = look_within(timings.DIRECTORY_TIMEOUT, lambda: read_totals(Layout(self.root), self.plan))
        # A directory that does not answer now may do so later.
        say(self._summary(*found) if found else f"run {self.name} has ended · {self._command('show')}")

    def delivery(self) -> Progress:
        """How far the slowest backend is."""
        _, totals = read_totals(Layout(self.root), self.plan)
        slowest = min(totals, key=lambda total: total.delivered + total.rejected)
        if not slowest.waiting:
            return Progress("ending the run")
        done = slowest.delivered + slowest.rejected
        return Progress(f"sending rows to {slowest.backend}", done, done + slowest.waiting)

    def roles(self) -> Progress:
        """How many roles have ended."""
        found = read_writers(Layout(self.root))
        return Progress("waiting for roles", sum(each.state is not State.RUNNING for each in found), len(found))

    def html(self, urls: Urls) -> str:
        """Where to look, for a notebook: at every run."""
        found = [*filter(None, urls.values()), self._command("show")]
        return f"run <b>{escape(self.name)}</b>: " + " · ".join(map(_linked, found))

    def _summary(self, rows: int, totals: Iterable[DeliveryTotal]) -> str:
        found = list(totals)
        line = f"{rows} {'row' if rows == 1 else 'rows'}: {', '.join(map(_held, found))}"
        waiting = [total for total in found if total.waiting]
        if not waiting:
            return f"{line} · {self._command('show')}"
        if all(total.is_carried for total in waiting):
            return f"{line} · the rest is on its way; should it not arrive, run: {self._command('deliver')}"
        return f"{line} · to send the rest, run: {self._command('deliver')}"

    def _command(self, name: str) -> str:
        """A command for this job, as short as the working directory allows."""
        shown = self.root
        with suppress(OSError):  # the working directory is gone
            shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
        return command(name, shown)


def _held(total: DeliveryTotal) -> str:
    others = {"rejected": total.rejected, "lost": total.missing}
    more = ", ".join(f"{number} {what}" for what, number in others.items() if number)
    return f"{total.backend} {total.delivered}" + (f" ({more})" if more else "")


def _linked(where: str) -> str:
    """An address as a link, and a command as it is typed."""
    text = escape(where)
    is_address = where.startswith(("http://", "https://"))
    return f'<a href="{text}" target="_blank">{text}</a>' if is_address else f"<code>{text}</code>"


def say(line: str) -> None:
    """Print a line, unless `ROLECALL_LOG` asks for warnings or errors alone. Never raises."""
    # A program may have closed its standard error, or be a daemon that never had one.
    with suppress(Exception):
        if sys.stderr is not None and prints_lines():
            # A notebook shows it, too. `print` would write the newline apart, behind another thread's line.
            sys.stderr.write(f"rolecall: {line}\n")
            sys.stderr.flush()
