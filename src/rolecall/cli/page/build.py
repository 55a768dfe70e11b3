"""Makes the page of one or more jobs, and writes it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rolecall.backends.installed import version_of
from rolecall.cli.page.about import about_job
from rolecall.cli.page.contents import Contents, order, read_contents
from rolecall.cli.page.document import document
from rolecall.cli.page.embed import Room, as_json, embed, media_cards, table_cards, text_cards
from rolecall.cli.page.series import fair_limit
from rolecall.errors import ConfigError
from rolecall.store.codec import put_whole

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
_KINDS: Final = ("image", "figure", "video", "histogram", "audio", "html", "markdown", "file")
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
    room = Room(_ABOUT_BYTES)
    data["jobs"] = [about_job(contents, room) for contents in jobs]
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
