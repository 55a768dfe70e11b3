"""What a writer says of its run beside its series: its config, its summary and its tags.

Each change is a line of the journal, numbered as a row is, so that it is delivered, and delivered again, like one::

    {"seq": 7, "step": 3, "time": 1764000001.5, "config": {"lr": 1e-6}, "sum": "..."}
    {"seq": 8, "step": 3, "time": 1764000001.6, "summary": {"best": 0.9, "draft": null}, "sum": "..."}
    {"seq": 9, "step": 3, "time": 1764000001.7, "tags": ["baseline"], "sum": "..."}

A config is merged by top-level key. So is a summary, in which `null` removes a key. Tags are all that the writer has.

A line with `steps` holds in `details` what all changes before it came to, and so does the header of a session that
follows another one. So what holds now is found from the end of a file, within 1,000 lines, and whoever delivers a
change hands over all of it: an old change that comes again undoes no new one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Self

from rolecall.store.codec import lines_from_end
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, newest

KINDS: Final = ("config", "summary", "tags")
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What one writer said of its run, as it holds now.

    Attributes:
        config: what it changed of its config since it was opened.
        summary: numbers and strings.
        tags: labels, each once.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, float | str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def plus(self, change: Mapping[str, Any]) -> Self:
        """These details with a change, as a line of a journal holds it.

        Raises:
            ValueError: it is none: a stranger may have written it.
        """
        config, summary = change.get("config", {}), change.get("summary", {})
        tags = change.get("tags", self.tags)
        if not (isinstance(config, dict) and isinstance(summary, dict) and isinstance(tags, list | tuple)):
            raise ValueError("it changes nothing that can be changed")  # noqa: TRY004 - one error for all damage
        # A loop may set thousands of values one by one: only what changes is looked at, the rest is copied.
        merged = {**self.summary}
        for key, value in summary.items():
            if isinstance(value, int | float | str):
                merged[key] = _value(value)
            else:
                merged.pop(key, None)
        return type(self)(config={**self.config, **config}, summary=merged, tags=tuple(dict.fromkeys(map(str, tags))))

    def line(self) -> dict[str, Any]:
        """The same as a part of a line; empty if nothing was said."""
        return {kind: value for kind in KINDS if (value := getattr(self, kind))}


def is_change(line: Mapping[str, Any]) -> bool:
    """Whether a line of a journal changes the details, and holds no row."""
    return "seq" in line and "end" not in line and any(kind in line for kind in KINDS)


def details_of(session: Session) -> Details:
    """What holds at the end of a session; reads at most 1,000 lines."""
    start = Details()
    changes: list[Mapping[str, Any]] = []
    for line in lines_from_end(session.path, session.seed):
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
    if session is None:
        return {}
    given = session.header().get("config")
    return {**(given if isinstance(given, dict) else {}), **details_of(session).config}


def _value(value: float | str) -> float | str:
    # As in a row: JSON has no NaN, so it is a string there.
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _plus(details: Details, change: object) -> Details:
    try:
        return details.plus(change) if isinstance(change, Mapping) else details
    except ValueError:
        return details
