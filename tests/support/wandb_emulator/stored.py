"""What the server keeps of its runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

__all__ = ["HistoryLine", "Policy", "State", "StoredRun", "Upsert", "bindings_of", "patterns_of"]

ARTIFACTS = "artifacts"
"""Where the files of artifacts are stored: in place of a run's id."""
_NAMES = {
    "displayName": "name",
    "groupName": "group",
    "jobType": "job_type",
    "tags": "tags",
    "notes": "notes",
    "program": "program",
    "host": "host",
    "commit": "commit",
    "repo": "repo",
}


class Policy(StrEnum):
    """What an upsert does to the config that is there."""

    REPLACE = "replace"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class Upsert:
    """One upsert of a run, as it came."""

    time: float
    client: str | None
    variables: Mapping[str, Any]
    config: Mapping[str, Any] | None
    size: int

    def bindings(self) -> dict[str, str]:
        """The bindings of keys to axes in it."""
        return bindings_of(self.config or {})


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of history, with the step that the server gave it."""

    time: float
    client: str | None
    line: Mapping[str, Any]
    step: int


@dataclass(slots=True)
class StoredRun:
    """A run, and how it came to be so."""

    id: str
    entity: str
    project: str
    is_shared: bool = False
    named: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    config: dict[str, Any] = field(default_factory=dict)
    upserts: list[Upsert] = field(default_factory=list)
    history: list[HistoryLine] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    console: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    posts: list[tuple[float, str | None, Mapping[str, Any]]] = field(default_factory=list)
    exits: list[tuple[float, str | None, int]] = field(default_factory=list)
    changes: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    _received: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)
    _last: dict[str, Any] = field(default_factory=dict)

    def bindings(self) -> dict[str, str]:
        """Which key is bound to which axis, by the config that the server has now."""
        return bindings_of(self.config)

    def patterns(self) -> dict[str, str]:
        """Which pattern is bound to which axis."""
        return patterns_of(self.config)

    def rows(self, axis: str) -> list[Mapping[str, Any]]:
        """The lines that carry this key, in the order of their arrival."""
        return [entry.line for entry in self.history if axis in entry.line]

    def upsert(self, client: str | None, variables: Mapping[str, Any], policy: Policy) -> None:
        """Take an upsert."""
        text = variables.get("config")
        config = json.loads(text) if text else None
        given = {key: value for key, value in variables.items() if key != "config" and value is not None}
        self.upserts.append(Upsert(time.time(), client, given, config, len(text or "")))
        self.named.update({_NAMES[key]: value for key, value in given.items() if key in _NAMES})
        self.state = "running"
        if config is not None:
            self.config = config if policy is Policy.REPLACE else _merged(self.config, config)
            self.changes.append((time.time(), self.bindings()))

    def stream(self, client: str | None, body: Mapping[str, Any]) -> None:
        """Take a request of the file stream."""
        self.posts.append((time.time(), client, {key: value for key, value in body.items() if key != "files"}))
        for name, chunk in (body.get("files") or {}).items():
            self._take(client, name, chunk)
        if body.get("complete"):
            code = int(body.get("exitcode") or 0)
            self.exits.append((time.time(), client, code))
            self.state = "failed" if code else "finished"

    def _take(self, client: str | None, name: str, chunk: Mapping[str, Any]) -> None:
        if name == "wandb-summary.json":
            for text in chunk["content"]:
                self.summary.update(json.loads(text))
        elif name == "output.log":
            self.console.setdefault(client or "", []).extend(chunk["content"])
        else:
            for text in self._unseen(client, name, chunk):
                self._add(client, name, json.loads(text))

    def _unseen(self, client: str | None, name: str, chunk: Mapping[str, Any]) -> list[str]:
        offset, content = int(chunk.get("offset") or 0), list(chunk["content"])
        known = self._received[client, name]
        self._received[client, name] = max(known, offset + len(content))
        return content[max(0, known - offset) :]

    def _add(self, client: str | None, name: str, line: Mapping[str, Any]) -> None:
        if name == "wandb-history.jsonl":
            step = len(self.history) if self.is_shared else int(line.get("_step", len(self.history)))
            self.history.append(HistoryLine(time.time(), client, line, step))
            self._counts.update(line.keys())
            self._last.update(line)
        elif name == "wandb-events.jsonl":
            self.events.append(line)

    def keys(self) -> dict[str, Any]:
        """`historyKeys`: how often each key came, and its last value."""
        keys = {
            key: {"typeCounts": [{"type": "number", "count": count}], "previousValue": self._last[key]}
            for key, count in self._counts.items()
        }
        return {"keys": keys, "lastStep": self.history[-1].step if self.history else -1, "sets": []}

    def page(self, first: int, end: int, most: int) -> list[str]:
        """The lines of history with a step from `first` up to `end`, evenly chosen if there are more than `most`."""
        found = [entry for entry in self.history if first <= entry.step < end]
        chosen = found if len(found) <= most else [found[at * len(found) // most] for at in range(most)]
        return [json.dumps({**entry.line, "_step": entry.step}) for entry in chosen]

    def forget(self, lines: Collection[int]) -> None:
        """Lose lines of history, by their places: somebody deleted them, or the server lost them."""
        self.history = [entry for at, entry in enumerate(self.history) if at not in lines]
        self._counts = Counter(key for entry in self.history for key in entry.line)
        # The only writer of a run that is not shared goes on behind the lines that the server says it has
        # (`historyLineCount`), so these are all that it knows of.
        self._received = self._received.copy()
        self._received[None, "wandb-history.jsonl"] = len(self.history)

    def as_shown(self, late: float) -> StoredRun:
        """The run as it was so many seconds ago: without the lines that came since."""
        if not late:
            return self
        shown = replace(self)
        shown.forget([at for at, entry in enumerate(self.history) if entry.time > time.time() - late])
        return shown


@dataclass(slots=True)
class State:
    """All that a server knows."""

    policy: Policy = Policy.REPLACE
    runs: dict[str, StoredRun] = field(default_factory=dict)
    keys: set[str] | None = None
    unknown: list[str] = field(default_factory=list)
    entity: str = "team"
    late: float = 0.0
    """Seconds after which a query shows a line of history."""

    def run(self, name: str, project: str = "", entity: str = "") -> StoredRun:
        """The run, made if it is not there."""
        if name not in self.runs:
            self.runs[name] = StoredRun(name, entity or self.entity, project)
        return self.runs[name]


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """By key; definitions by their metric's name, their axes by name too, as places in the list shift."""
    merged = {**old, **new}
    both = {**bindings_of(old), **bindings_of(new)}
    patterns = {**patterns_of(old), **patterns_of(new)}
    definitions = [{"1": key, "4": axis} for key, axis in both.items()]
    definitions += [{"2": key, "4": axis} for key, axis in patterns.items()]
    value = {**_own(old), **_own(new), "m": definitions}
    return {**merged, "_wandb": {"value": value}}


def bindings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys and their axes."""
    return _bound(config, "1")


def patterns_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Patterns and their axes."""
    return _bound(config, "2")


def _bound(config: Mapping[str, Any], name: str) -> dict[str, str]:
    definitions = _own(config).get("m") or []
    return {
        entry[name]: axis for entry in definitions if name in entry and (axis := _axis(entry, definitions)) is not None
    }


def _axis(entry: Mapping[str, Any], definitions: list[Mapping[str, Any]]) -> str | None:
    if "4" in entry:
        return str(entry["4"])
    return str(definitions[entry["5"] - 1]["1"]) if entry.get("5") else None


def _own(config: Mapping[str, Any]) -> Mapping[str, Any]:
    value = (config.get("_wandb") or {}).get("value")
    return value if isinstance(value, dict) else {}
