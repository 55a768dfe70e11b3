"""What stands above the charts: the job, its roles, and its backends with a line for each."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from rolecall.cli.view.chart import number
from rolecall.cli.view.lines import Line, Look
from rolecall.cli.view.metrics import by_rank, role_of
from rolecall.config.commands import command, with_path
from rolecall.job.history import JobHistory, WriterHistory
from rolecall.job.status import DeliveryStatus
from rolecall.states import State
from rolecall.store.layout import NODE

STYLES: Final = {State.RUNNING: "green", State.FAILED: "bold red", State.KILLED: "bold red", State.UNFINISHED: "yellow"}
_WORST: Final = (State.KILLED, State.FAILED, State.UNFINISHED, State.RUNNING, State.CONTINUED, State.NONE)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SILENCE: Final = 60.0
"""Seconds without a row that are worth a word."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is at one moment.

    Attributes:
        root: its `monitor_dir`.
        history: what it logged.
        backends: how far each backend holds it.
        unended: the backends with a run that nobody will end.
        now: the time, in seconds since the epoch.
    """

    root: Path
    history: JobHistory
    backends: Sequence[DeliveryStatus]
    unended: Sequence[str]
    now: float

    @property
    def is_running(self) -> bool:
        """Whether the launcher or a role runs."""
        return State.RUNNING in {self.history.state, *(role.state for role in self.history.roles)}


def describe_job(job: Job, look: Look) -> list[Line]:
    """The job's name, state and size, and where it is."""
    history, roles = job.history, job.history.roles
    record = history.record
    end = job.now if job.is_running else max((each.last_time or 0.0 for each in roles), default=0.0)
    lasted = duration(end - record.created)
    took = {True: f" for {lasted}", False: f" after {lasted}"}[job.is_running] if end > record.created else ""
    media = sum(held.count for each in roles for held in each.last_media.values())
    counts = {
        "role": len(roles),
        "row": sum(each.rows for each in roles),
        "table": sum(each.tables for each in roles),
        "media row": media,
    }
    numbers = [plural(count, word) for word, count in counts.items() if count or word in ("role", "row")]
    name = look.line(
        (f"{record.project} / {record.name}", "bold"),
        (f"  {history.state}{took}", STYLES.get(history.state, "")),
        *(f"{', ' if at else '  '}{each}" for at, each in enumerate(numbers)),
        (f"  run {record.run_id}", "dim"),
    ).fitting(look.width)
    tags = dict.fromkeys(tag for each in history.writers for tag in each.details.tags)
    lines = [name, look.line((str(job.root), "dim"), is_whole=True)]
    return [*lines, look.line(("tags  ", "dim"), ", ".join(tags))] if tags else lines


def describe_details(job: Job, look: Look, most: int | None = None) -> Iterator[Line]:
    """A line for each writer that has a summary, with its values; in at most so many lines."""
    found = [each for each in by_rank(job.history.writers) if each.details.summary]
    shown = found if most is None or len(found) <= most else found[: most - 1]
    for each in shown:
        values = (
            f"{key} {number(value) if isinstance(value, int | float) else ' '.join(value.split())}"
            for key, value in each.details.summary.items()
        )
        parts = ("summary  ", "dim"), (f"{each.writer}  ", "bold"), ", ".join(values)
        yield look.line(*parts, is_whole=look.height is None)
    if left := len(found) - len(shown):
        yield look.line((f"summary  of {plural(left, 'more role')}", "dim"))


def describe_roles(job: Job, look: Look, most: int | None = None) -> list[Line]:
    """A line for the ranks of a role that are alike; those that failed come first if there is no room for all."""
    alike: dict[tuple[str, bool, State], list[WriterHistory]] = defaultdict(list)
    for each in by_rank(job.history.roles):
        alike[role_of(each.writer), "/" in each.writer, each.state].append(each)
    groups = list(alike.values())
    if not groups:
        return [look.line(("no role has opened yet", "dim"))]
    if most is not None and len(groups) > most:
        # `sorted` keeps the order of those that are as bad.
        groups.sort(key=lambda group: _badness(group[0].state))
    shown, left = groups[:most], groups[most:] if most is not None else []
    cells = [_role_cells(group, job.now) for group in shown]
    widths = [max(len(look.text(row[at])) for row in [*cells, _HEADS]) for at in range(len(_HEADS))]
    widths[0] = min(widths[0], max(20, look.width - sum(widths[1:]) - 2 * len(widths)))
    lines = [_row(_HEADS, widths, look, "dim")]
    for group, row in zip(shown, cells, strict=True):
        lines.append(_row(row, widths, look, "", STYLES.get(group[0].state, "")))
    if left:
        states = Counter(str(each.state) for group in left for each in group)
        words = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(look.line((f"more roles: {words}", "dim")))
    return lines


def describe_nodes(job: Job, look: Look) -> list[Line]:
    """A line that names the nodes that are measured, if any are."""
    hosts = [each.writer.removeprefix(NODE) for each in by_rank(job.history.nodes)]
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} nodes: {', '.join(hosts)}"
    return [look.line((f"system metrics of {where}", "dim"))] if hosts else []


_HEADS: Final = ("role", "state", "step", "rows", "last row", "")


def _badness(state: State) -> int:
    return _WORST.index(state) if state in _WORST else len(_WORST)


def _role_cells(group: list[WriterHistory], now: float) -> tuple[str, ...]:
    steps = [each.last_step for each in group if each.last_step is not None]
    times = [each.last_time for each in group if each.last_time is not None]
    low, high = min(steps, default=None), max(steps, default=None)
    step = "" if low is None else str(low) if low == high else f"{low}-{high}"
    cleaned, starts = sum(each.cleaned for each in group), sum(each.sessions for each in group)
    notes = [f"{cleaned:,} rows cleaned"] if cleaned else []
    notes += [f"started {starts} times"] if starts > len(group) else []
    # The time and not how long ago: a screen on which nothing happens is not drawn again.
    last = clock(max(times)) if times else ""
    if group[0].state is State.RUNNING and times and now - max(times) > _SILENCE:
        notes.append(f"silent for {duration(now - max(times))}")
    rows = sum(each.rows for each in group)
    return _ranks(group), str(group[0].state), step, f"{rows:,}", last, ", ".join(notes)


def _ranks(group: list[WriterHistory]) -> str:
    """`explorer/0-3,5`."""
    if len(group) == 1:
        return group[0].writer
    runs: list[list[str]] = []
    for rank in (each.writer.partition("/")[2] for each in group):
        if runs and int(rank) == int(runs[-1][-1]) + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return f"{role_of(group[0].writer)}/{','.join('-'.join(dict.fromkeys((run[0], run[-1]))) for run in runs)}"


def _row(cells: Sequence[str], widths: Sequence[int], look: Look, style: str, state: str | None = None) -> Line:
    line = Line()
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = look.shorten(cell, width) if at == 0 else look.text(cell)
        is_number = at in (2, 3)
        each = look.line((text.rjust(width) if is_number else text, state if at == 1 and state is not None else style))
        line += each.padded(width + 2)
    return line


def describe_backends(job: Job, look: Look, most_runs: int | None = None) -> Iterator[Line]:
    """A line for each backend, with where to look at its run; and what to do if rows wait."""
    for backend, group in groupby(job.backends, lambda each: each.backend):
        yield from _backend(backend, list(group), look, most_runs)
    # A live courier sends them by itself.
    if any(each.waiting and each.courier is not State.RUNNING for each in job.backends):
        yield look.line(f"to send what is waiting: {command('deliver', job.root)}", is_whole=True)
    elif job.unended and not any(each.courier is State.RUNNING for each in job.backends):
        what = f"{', '.join(job.unended)}: the run has not ended; to end it: {command('deliver', job.root)}"
        yield look.line(what, is_whole=True)


def _backend(backend: str, group: list[DeliveryStatus], look: Look, most_runs: int | None) -> Iterator[Line]:
    state = min((each.courier for each in group), key=_badness)
    counts = [f"{sum(each.delivered for each in group):,} delivered"]
    sums = {word: sum(getattr(each, word) for each in group) for word in ("waiting", "rejected", "missing")}
    counts += [f"{count:,} {word}" for word, count in sums.items() if count]
    runs = list(dict.fromkeys(with_path(each.run.url or each.run.id) for each in group if each.run))
    line = look.line((backend, "bold"), "  ", (str(state), STYLES.get(state, "")), f"  {', '.join(counts)}")
    if len(runs) == 1:
        yield line + look.line(f"  {runs[0]}", is_whole=True)
    else:
        yield line
        yield from (look.line(f"  {run}", is_whole=True) for run in runs[:most_runs])
        if most_runs is not None and len(runs) > most_runs:
            yield look.line((f"  {plural(len(runs) - most_runs, 'more run')}", "dim"))
    reasons: dict[str, list[str]] = {}
    for each in group:
        if each.why:
            reasons.setdefault(each.why, []).append(each.writer)
    for why, writers in reasons.items():
        whose = writers[0] if len(writers) == 1 else f"{len(writers)} roles"
        yield look.line("  ", (f"rows of {whose} are waiting: {why}", "yellow"), is_whole=True)


def plural(count: int, word: str) -> str:
    """`1 row`, `1,204 rows`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Two units at most."""
    whole = int(max(0.0, min(seconds, 1e12)))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def clock(seconds: float) -> str:
    """The time of day; the number itself if it is none that a calendar has."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"
