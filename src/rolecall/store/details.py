"""What a writer says of its run beside its series: config, summary and tags; and what a session begins with.

Each change is a line of the journal, numbered as a row is, so that it is delivered, and delivered again, like one::

    {"seq": 7, "step": 3, "time": 1764000001.5, "config": {"lr": 1e-6}, "sum": "..."}
    {"seq": 8, "step": 3, "time": 1764000001.6, "summary": {"best": 0.9, "draft": null}, "sum": "..."}
    {"seq": 9, "step": 3, "time": 1764000001.7, "tags": ["baseline"], "sum": "..."}

A config is merged by top-level key. So is a summary, in which `null` removes a key. Tags are all that the writer has.

A line with `steps` holds in `details` what all changes before it came to, and so does the header of a session that
follows another one. So what holds now is found from the end of a file, within 1,000 lines, and whoever delivers a
change hands over all of it: an old change that comes again undoes no new one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final

from rolecall.rows import DETAILS, Details
from rolecall.store.codec import DEFAULT_AXIS, is_change, lines_from_end
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, newest, sessions

_WORDS: Final = tuple(f'"{word}"'.encode() for word in (*DETAILS, "steps", "rolecall"))
"""In each line that says something of the details. A wrecked file may have millions of others."""


def last_steps(session: Session) -> dict[str, int]:
    """The last step on each axis of a session; reads at most 1,000 rows."""
    steps: dict[str, int] = {}
    for value in lines_from_end(session.path, session.seed):
        if isinstance(step := value.get("step"), int):
            steps.setdefault(str(value.get("axis", DEFAULT_AXIS)), step)
        if isinstance(known := value.get("steps"), dict):
            return {**known, **steps}
    known = session.header().get("steps")
    return {**(known if isinstance(known, dict) else {}), **steps}


def earlier_steps(folder: Path) -> dict[str, int]:
    """The last step on each axis of a writer's sessions, by the newest that has rows."""
    return next(filter(None, map(last_steps, reversed(sessions(folder)))), {})


def details_of(session: Session) -> Details:
    """What holds at the end of a session; reads at most 1,000 lines."""
    start = Details()
    changes: list[Mapping[str, Any]] = []
    for line in lines_from_end(session.path, session.seed, _WORDS):
        if is_change(line):
            changes.append(line)
        if "steps" in line or "rolecall" in line:
            start = _plus(start, line.get("details"))
            break
    else:
        start = _plus(start, session.header().get("details"))
    return reduce(_plus, reversed(changes), start)


def details_now(layout: Layout, writer: str) -> Details:
    """What a writer's newest session says."""
    session = newest(layout.journal(writer))
    return details_of(session) if session is not None else Details()


def config_now(layout: Layout, writer: str) -> dict[str, Any]:
    """A writer's config: the one that it was opened with, and what it changed of it since."""
    session = newest(layout.journal(writer))
    return config_of(session.header(), details_of(session)) if session is not None else {}


def config_of(header: Mapping[str, Any], details: Details) -> dict[str, Any]:
    """The same, of a session that was read already."""
    given = header.get("config")
    return {**(given if isinstance(given, dict) else {}), **details.config}


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a writer's new session begins with.

    Attributes:
        header: what its first line says.
        steps: the last step on each axis of earlier sessions.
        details: what holds of their config, summary and tags, with what the new one was opened with.
    """

    header: Mapping[str, Any]
    steps: Mapping[str, int]
    details: Details


def begin(layout: Layout, writer: str, header: Mapping[str, Any], tags: Sequence[str]) -> Beginning:
    """What a writer's next session begins with, whoever will write it.

    Args:
        layout: where the earlier sessions are.
        writer: whose they are.
        header: what the first line says beside what is known here; `config` is the config that was given.
        tags: the tags that were given.
    """
    steps = earlier_steps(layout.journal(writer))
    before = details_now(layout, writer)
    # What is given now is later than what was changed then.
    config = {key: value for key, value in before.config.items() if key not in header["config"]}
    details = replace(before, config=config, tags=tuple(dict.fromkeys([*before.tags, *tags])))
    known = {**({"steps": steps} if steps else {}), **({"details": found} if (found := details.line()) else {})}
    return Beginning({"writer": writer, **known, **header}, steps, details)


def _plus(details: Details, change: object) -> Details:
    try:
        return details.plus(change) if isinstance(change, Mapping) else details
    except ValueError:
        return details
