"""Bindings of keys to axes, and their exchange among writers.

A writer has an axis of its own, `{prefix}step`, and others by name, such as `{prefix}eval/step`. Each of its keys is
bound to the axis on which it was first logged. Some trackers keep only what the last writer declared, so every writer
declares the union of all bindings, and of all configs.

`<monitor_dir>/axes/` holds a file of lines for each writer, appended to by that writer's courier alone and synced::

    {"config": {"lr": 0.1}}
    {"tags": ["baseline"]}
    {"axes": {"explorer/reward": "explorer/step", "explorer/accuracy": "explorer/eval/step"}}

Writers may share a prefix, and so bind one key to two axes. Then the first writer by name has its way.

A reader remembers how far it read each file: looking again costs one `stat` a writer, and nothing for keys that
were read before.
"""

import copy
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from rolecall.store.codec import Line, append_line, make_folder, open_own, read_lines
from rolecall.store.layout import Layout, writer_of
from rolecall.store.lease import newest


def axis_key(prefix: str, axis: str | None = None) -> str:
    """The key under which the steps of an axis are; the writer's own axis without a name."""
    return f"{prefix}{axis}/step" if axis else f"{prefix}step"


class AxisBook:
    """The union of all writers' bindings and configs, shared by the couriers of one writer.

    Args:
        layout: the job's files.
        writer: whose bindings are published here.
        writes: whether they are written down, as couriers do.

    Attributes:
        writer: as given.
        axes: the keys of all axes that have a key bound to them.
    """

    def __init__(self, layout: Layout, writer: str, *, writes: bool = True) -> None:
        self.writer = writer
        self.axes: set[str] = set()
        self._layout = layout
        self._writes = writes
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}
        # Whose binding of a key counts, and all that ever did, in the order in which they came to be known.
        self._known: dict[str, tuple[str, str]] = {}
        self._news: list[tuple[str, str]] = []
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._tags: dict[str, Sequence[str]] = {}
        self.refresh()

    def of(self, writer: str) -> "AxisBook":
        """The same book in the hands of another writer: a relay reads each file once, and publishes for all writers."""
        found = copy.copy(self)  # what is known is in containers, which both have
        found.writer = writer
        return found

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Each writer's config."""
        return dict(self._configs)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of all writers, each once."""
        return tuple(dict.fromkeys(tag for _, tags in sorted(self._tags.items()) for tag in tags))

    @property
    def changes(self) -> int:
        """How often a binding came to be known, or changed; a position for `bindings`."""
        return len(self._news)

    def bindings(self, since: int = 0) -> dict[str, str]:
        """The bindings of all writers, in the order in which they came to be known, from the `since`th change on."""
        return dict(self._news[since:])

    def axis(self, key: str) -> str | None:
        """The axis that a key is bound to; `None` if to none yet."""
        known = self._known.get(key)
        return known[1] if known else None

    def own(self) -> dict[str, str]:
        """The bindings that the writer made."""
        return {key: axis for key, (writer, axis) in list(self._known.items()) if writer == self.writer}

    @property
    def has_axes(self) -> bool:
        """Whether keys of the writer are on other axes than its default one."""
        prefix = self.prefix()
        default = axis_key(f"{self.writer}/" if prefix is None else prefix)
        return any(axis != default for axis in self.own().values())

    def prefix(self) -> str | None:
        """The prefix that the writer's keys were given; `None` if none was, so that its name is its prefix."""
        session = newest(self._layout.journal(self.writer))
        given = session.header().get("prefix") if session else None
        return given if isinstance(given, str) else None

    def publish(self, axes: Mapping[str, str]) -> None:
        """Bind each of these keys to its axis, for every writer to see, unless it is bound; costs a look-up each."""
        with self._lock:
            if new := {key: axis for key, axis in axes.items() if key != axis and self._is_new(key, self.writer)}:
                self._append({"axes": new})
                self._learn(new, self.writer)

    def publish_config(self, config: Mapping[str, Any]) -> None:
        """Make the writer's config known to all, if it is not yet."""
        with self._lock:
            if config and self._configs.get(self.writer) != config:
                self._append({"config": config})
                self._configs[self.writer] = dict(config)

    def publish_tags(self, tags: Sequence[str]) -> None:
        """Make the writer's tags known to all, if they are not yet."""
        with self._lock:
            if tuple(self._tags.get(self.writer, ())) != tuple(tags):
                self._append({"tags": tags})
                self._tags[self.writer] = tuple(tags)

    def refresh(self) -> None:
        """Read what any writer appended since the last look."""
        with self._lock:
            try:
                folder = self._layout.axes
                # By names and sizes alone: every writer looks at the files of all, each second.
                with os.scandir(folder) as found:
                    files = sorted((file.name, file.stat(follow_symlinks=False).st_size) for file in found)
            except FileNotFoundError:
                return
            for name, size in files:
                path, offset = folder / name, self._offsets.get(name, 0)
                while offset < size and name.endswith(".jsonl") and (lines := list(read_lines(path, offset))):
                    for line in lines:
                        value = line.value if isinstance(line, Line) else {}
                        if isinstance(axes := value.get("axes"), dict):
                            self._learn(axes, writer_of(path.stem))
                        if isinstance(config := value.get("config"), dict):
                            self._configs[writer_of(path.stem)] = config
                        if isinstance(tags := value.get("tags"), list):
                            self._tags[writer_of(path.stem)] = list(map(str, tags))
                    self._offsets[name] = offset = lines[-1].end

    def _is_new(self, key: str, writer: str) -> bool:
        known = self._known.get(key)
        return known is None or writer < known[0]

    def _learn(self, axes: Mapping[Any, Any], writer: str) -> None:
        for key, axis in ((str(key), str(axis)) for key, axis in axes.items()):
            if self._is_new(key, writer):
                if axis != self.axis(key):
                    self._news.append((key, axis))
                self._known[key] = writer, axis
                self.axes.add(axis)

    def _append(self, value: Mapping[str, Any]) -> None:
        """One synced write to this writer's file; a line that a dead process left torn is closed first."""
        if not self._writes:
            return
        path = self._layout.bindings(self.writer)
        make_folder(path.parent)
        with os.fdopen(open_own(path, create=True), "ab", buffering=0) as file:
            append_line(file.fileno(), value)
            os.fsync(file.fileno())
