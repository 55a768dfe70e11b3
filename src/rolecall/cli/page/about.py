"""Says what a job is, how it goes, and where to look."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rolecall.cli.page.contents import Contents, cut
from rolecall.cli.page.embed import Room, as_json
from rolecall.cli.view.text import visible
from rolecall.config.commands import command, with_path
from rolecall.job.history import job_state
from rolecall.job.status import DeliveryStatus, read_deliveries, read_states, unended
from rolecall.rows import Details
from rolecall.states import State
from rolecall.store.details import config_now, details_now
from rolecall.store.layout import LAUNCH

_MOST_SETTINGS: Final = 500
_LONGEST_SETTING: Final = 300


def about_job(contents: Contents, room: Room) -> dict[str, Any]:
    """What a job is, how it goes, and where to look."""
    record, layout = contents.record, contents.layout
    statuses = read_deliveries(layout, record.plan)
    details = {writer: details_now(layout, writer) for writer in (LAUNCH, *contents.totals)}
    tags = list(dict.fromkeys(tag for each in details.values() for tag in each.tags))
    return {
        "project": record.project,
        "name": record.name,
        "run_id": record.run_id,
        "created": record.created,
        "directory": visible(str(layout.root)),
        "state": job_state(layout),
        "hints": _hints(contents, statuses),
        **_within(
            room,
            tags=[cut(tag, _LONGEST_SETTING) for tag in tags],
            summary=_summary(details),
            writers=_writers(contents),
            backends=_backends(statuses),
            configs=_configs(contents),
        ),
    }


def _within(room: Room, **lists: Sequence[Any]) -> dict[str, Any]:
    """The lists, as far as there is room, and how much there is not."""
    found = {name: [item for item in items if room.take(len(as_json(item)))] for name, items in lists.items()}
    return {**found, "left_out": sum(len(items) - len(found[name]) for name, items in lists.items())}


def _summary(details: Mapping[str, Details]) -> list[tuple[str, str, float | str]]:
    """What each writer summed up: the writer, the name and the value."""
    return [
        (writer, cut(name, _LONGEST_SETTING), cut(value, _LONGEST_SETTING) if isinstance(value, str) else value)
        for writer, each in details.items()
        for name, value in each.summary.items()
    ]


def _writers(contents: Contents) -> list[dict[str, Any]]:
    states = {each.writer: each.state for each in read_states(contents.layout, contents.totals)}
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


def _backends(statuses: Sequence[DeliveryStatus]) -> list[dict[str, Any]]:
    """Each backend, with where to look at its runs and how far it holds the rows."""
    found: dict[str, dict[str, Any]] = {}
    for status in statuses:
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


def _hints(contents: Contents, statuses: Sequence[DeliveryStatus]) -> list[str]:
    """What to do about rows that nobody sends, and runs that nobody ends."""
    deliver = command("deliver", contents.layout.root)
    # A live courier does it by itself.
    if any(status.waiting and status.courier is not State.RUNNING for status in statuses):
        return [visible(f"to send what is waiting: {deliver}")]
    open_runs = unended(contents.layout, contents.record.plan)
    if open_runs and not any(status.courier is State.RUNNING for status in statuses):
        return [visible(f"{', '.join(open_runs)}: the run has not ended; to end it: {deliver}")]
    return []


def _configs(contents: Contents) -> list[dict[str, Any]]:
    """The configs of the launcher and of each writer; equal ones once."""
    found: dict[str, dict[str, Any]] = {}
    for writer in (LAUNCH, *contents.layout.writers()):
        if config := config_now(contents.layout, writer):
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
