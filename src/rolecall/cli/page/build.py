"""Makes the page of one or more jobs, and writes it."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rolecall.backends.installed import version_of
from rolecall.cli.page.contents import Contents, cut, order, read_contents
from rolecall.cli.page.document import document
from rolecall.cli.page.embed import Room, as_json, embed, media_cards, table_cards, text_cards
from rolecall.cli.page.series import fair_limit
from rolecall.cli.text import visible
from rolecall.config.commands import command, with_path
from rolecall.errors import ConfigError
from rolecall.job.history import job_state
from rolecall.job.status import read_deliveries, read_writers, unended
from rolecall.states import State
from rolecall.store.codec import put_whole
from rolecall.store.layout import LAUNCH
from rolecall.store.lease import newest

LARGEST: Final = 5_000_000
"""Of a page, in bytes."""
_POINTS: Final = 80_000
"""Of all charts together."""
_CHART_BYTES: Final = 3_200_000
_LEAST_POINTS: Final = 8
_TABLE_BYTES: Final = 700_000
_TEXT_BYTES: Final = 300_000
_ABOUT_BYTES: Final = 400_000
_MARGIN: Final = 10_000
"""For the commas between what is counted by itself."""
_MOST_SETTINGS: Final = 500
_LONGEST_SETTING: Final = 300
_KINDS: Final = ("image", "figure", "video", "histogram", "audio", "html", "file")
"""Of media, in the order of the page."""


def write_page(roots: Sequence[Path], file: Path, patterns: Sequence[str] = ()) -> int:
    """Write one page of these jobs, and return its size in bytes. A reader of an older page sees it whole or the new.

    Args:
        roots: the `monitor_dir` of each job.
        file: what to write.
        patterns: the metrics to chart, as in `rolecall show --metric`; without any, all.

    Raises:
        ConfigError: the file cannot be written, or no metric matches.
        DirectoryError: no job was launched in one of the directories.
    """
    # A link to a file is followed: whoever serves the file sees the new page.
    target = Path(os.path.realpath(file))
    if target.is_dir():
        raise ConfigError(f"--html {file}: is a directory; name a file in it, such as {file / 'page.html'}")
    if target.exists() and not target.is_file():
        raise ConfigError(f"--html {file}: is not a file that can be replaced; choose another")
    if not target.parent.is_dir():
        raise ConfigError(
            f"--html {file}: there is no directory {target.parent}; make it first, or choose another file"
        )
    page = make_page(roots, patterns)
    put_whole(target, page)
    return len(page)


def make_page(roots: Sequence[Path], patterns: Sequence[str] = ()) -> bytes:
    """The page itself; see `write_page`."""
    jobs = [read_contents(root, patterns) for root in roots]
    if patterns and not any(contents.metrics for contents in jobs):
        known = ", ".join(name for contents in jobs for name in contents.hidden) or "none yet"
        raise ConfigError(f"--metric {' '.join(patterns)}: no metric matches; the metrics are {known}")
    data: dict[str, Any] = {"version": version_of("rolecall"), "made": time.time()}
    about = Room(_ABOUT_BYTES)
    data["jobs"] = [_about(contents, about) for contents in jobs]
    data |= _charts(jobs)
    cards = {
        kind: [card for at, contents in enumerate(jobs) for card in cards_of(contents, at)]
        for kind, cards_of in (("tables", table_cards), ("texts", text_cards), ("media", media_cards))
    }
    data["tables"] = _ordered(embed(cards["tables"], Room(_TABLE_BYTES)))
    data["texts"] = _ordered(embed(cards["texts"], Room(_TEXT_BYTES)))
    title = " and ".join(f"{contents.record.project} / {contents.record.name}" for contents in jobs)
    # Media get what all else leaves.
    room = Room(LARGEST - len(document(title, as_json(data))) - _MARGIN)
    media = _ordered(embed(cards["media"], room))
    data["media"] = sorted(media, key=lambda card: _KINDS.index(card["kind"]))
    data["cards_left_out"] = sum(len(found) - len(data[kind]) for kind, found in cards.items())
    return document(title, as_json(data))


def _ordered(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(cards, key=lambda card: (card["role"], *order(card["key"])))


# ------------------------------------------------------------------- charts


def _charts(jobs: Sequence[Contents]) -> dict[str, Any]:
    """A chart for each role and key, with a series of each writer; and how many had no room."""
    charts: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for at, contents in enumerate(jobs):
        for writer, key in contents.metrics:
            charts.setdefault((writer.partition("/")[0], key), []).append((at, writer))
    counts = [line.count for contents in jobs for series in contents.metrics.values() for line in series.lines]
    limit = max(_LEAST_POINTS, fair_limit(counts, _POINTS))
    found, left = [], _CHART_BYTES
    for role, key in sorted(charts, key=lambda name: (name[0], *order(name[1]))):
        series = [
            {"job": at, "writer": writer, **jobs[at].metrics[writer, key].drawn(limit)}
            for at, writer in charts[role, key]
        ]
        axis = next((jobs[at].metrics[writer, key].axis for at, writer in charts[role, key]), None)
        chart = {"role": role, "key": key, "axis": axis, "series": series}
        if (size := len(as_json(chart))) <= left:
            found.append(chart)
            left -= size
    return {"charts": found, "charts_left_out": len(charts) - len(found)}


# --------------------------------------------------------------- about a job


def _about(contents: Contents, room: Room) -> dict[str, Any]:
    """What a job is, how it goes, and where to look."""
    record, layout = contents.record, contents.layout
    return {
        "project": record.project,
        "name": record.name,
        "run_id": record.run_id,
        "created": record.created,
        "directory": visible(str(layout.root)),
        "state": job_state(layout),
        "hints": _hints(contents),
        **_within(room, writers=_writers(contents), backends=_backends(contents), configs=_configs(contents)),
    }


def _within(room: Room, **lists: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The lists, as far as there is room, and how much there is not."""
    found = {name: [item for item in items if room.take(len(as_json(item)))] for name, items in lists.items()}
    return {**found, "left_out": sum(len(items) - len(found[name]) for name, items in lists.items())}


def _writers(contents: Contents) -> list[dict[str, Any]]:
    states = {each.writer: each.state for each in read_writers(contents.layout)}
    return [
        {
            "writer": writer,
            "state": states.get(writer, State.NONE),
            "rows": totals.rows,
            "step": totals.step,
            "first_time": totals.first_time,
            "last_time": totals.last_time,
            "damages": totals.damages,
            "damaged": totals.damaged,
        }
        for writer, totals in contents.totals.items()
    ]


def _backends(contents: Contents) -> list[dict[str, Any]]:
    """Each backend, with where to look at its runs and how far it holds the rows."""
    found: dict[str, dict[str, Any]] = {}
    for status in read_deliveries(contents.layout, contents.record.plan):
        backend = found.setdefault(status.backend, {"backend": status.backend, "runs": [], "writers": [], "why": []})
        counts = {name: getattr(status, name) for name in ("writer", "delivered", "waiting", "rejected", "courier")}
        backend["writers"].append(counts)
        if status.run is not None:
            backend["runs"].append(visible(with_path(status.run.url or status.run.id)))
        if status.why:
            backend["why"].append(f"rows of {status.writer} are waiting: {visible(status.why)}")
    for backend in found.values():
        # Several writers may share one run.
        backend["runs"] = list(dict.fromkeys(backend["runs"]))
    return list(found.values())


def _hints(contents: Contents) -> list[str]:
    """What to do about rows that nobody sends, and runs that nobody ends."""
    layout, plan = contents.layout, contents.record.plan
    statuses = read_deliveries(layout, plan)
    deliver = command("deliver", layout.root)
    # A live courier does it by itself.
    if any(status.waiting and status.courier is not State.RUNNING for status in statuses):
        return [visible(f"to send what is waiting: {deliver}")]
    open_runs = unended(layout, plan)
    if open_runs and not any(status.courier is State.RUNNING for status in statuses):
        return [visible(f"{', '.join(open_runs)}: the run has not ended; to end it: {deliver}")]
    return []


def _configs(contents: Contents) -> list[dict[str, Any]]:
    """The configs of the launcher and of each writer; equal ones once."""
    found: dict[str, dict[str, Any]] = {}
    for writer in (LAUNCH, *contents.layout.writers()):
        session = newest(contents.layout.journal(writer))
        config = session.header().get("config") if session else None
        if isinstance(config, dict) and config:
            settings = _flat(config)
            shown = [(cut(name, _LONGEST_SETTING), cut(value, _LONGEST_SETTING)) for name, value in settings]
            new = {"of": [], "settings": shown[:_MOST_SETTINGS], "left_out": max(0, len(shown) - _MOST_SETTINGS)}
            found.setdefault(json.dumps(settings), new)["of"].append("the job" if writer == LAUNCH else writer)
    return list(found.values())


def _flat(value: object, name: str = "") -> list[tuple[str, str]]:
    """The settings of a config, each with its dotted path."""
    if isinstance(value, dict) and value:
        return [each for key, inner in value.items() for each in _flat(inner, f"{name}.{key}" if name else str(key))]
    return [(name, value if isinstance(value, str) else json.dumps(value))]
