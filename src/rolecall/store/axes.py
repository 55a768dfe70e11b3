"""Bindings of keys to axes, and their exchange among writers.

Each of a writer's keys is bound to the writer's axis. Some trackers keep only what the last writer declared, so every
writer declares the union of all bindings, and of all configs.

`<monitor_dir>/axes/` holds a file of lines for each writer, appended to by that writer's courier alone and synced::

    {"config": {"lr": 0.1}}
    {"tags": ["baseline"]}
    {"axes": {"explorer/reward": "explorer/step", "explorer/length": "explorer/step"}}

A reader remembers how far it read each file: looking again costs one `stat` a writer, and nothing for keys that
were read before.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rolecall.store.codec import Line, append_line, make_folder, open_own, read_lines
from rolecall.store.layout import Layout, writer_of


def axis_of(writer: str) -> str:
    """The key of a writer's step axis in a shared run."""
    return f"{writer}/step"


class AxisBook:
    """The union of all writers' bindings and configs, shared by the couriers of one writer."""

    def __init__(self, layout: Layout, writer: str) -> None:
        self._layout = layout
        self._writer = writer
        self._lock = threading.Lock()
        self._offsets: dict[str, int] = {}
        self._known: dict[str, str] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._tags: dict[str, Sequence[str]] = {}
        self.refresh()

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Each writer's config."""
        return dict(self._configs)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of all writers, each once."""
        return tuple(dict.fromkeys(tag for _, tags in sorted(self._tags.items()) for tag in tags))

    def bindings(self, since: int = 0) -> dict[str, str]:
        """The bindings of all writers, in the order in which they came to be known, from the `since`th on."""
        # The list is made in one step, so another courier's thread may learn keys meanwhile.
        return dict(list(self._known.items())[since:])

    def publish(self, writer: str, keys: Iterable[str]) -> None:
        """Bind these keys to the writer's axis, for every writer to see; known ones cost a look-up each."""
        axis = axis_of(writer)
        with self._lock:
            new = {key: axis for key in keys if key not in self._known and key != axis}
            if new:
                self._append({"axes": new})
                self._known.update(new)

    def publish_config(self, config: Mapping[str, Any]) -> None:
        """Make the writer's config known to all, if it is not yet."""
        with self._lock:
            if config and self._configs.get(self._writer) != config:
                self._append({"config": config})
                self._configs[self._writer] = dict(config)

    def publish_tags(self, tags: Sequence[str]) -> None:
        """Make the writer's tags known to all, if they are not yet."""
        with self._lock:
            if tuple(self._tags.get(self._writer, ())) != tuple(tags):
                self._append({"tags": tags})
                self._tags[self._writer] = tuple(tags)

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
                            for key, axis in axes.items():
                                self._known.setdefault(str(key), str(axis))
                        if isinstance(config := value.get("config"), dict):
                            self._configs[writer_of(path.stem)] = config
                        if isinstance(tags := value.get("tags"), list):
                            self._tags[writer_of(path.stem)] = list(map(str, tags))
                    self._offsets[name] = offset = lines[-1].end

    def _append(self, value: Mapping[str, Any]) -> None:
        """One synced write to this writer's file; a line that a dead process left torn is closed first."""
        path = self._layout.bindings(self._writer)
        make_folder(path.parent)
        with os.fdopen(open_own(path, create=True), "ab", buffering=0) as file:
            append_line(file.fileno(), value)
            os.fsync(file.fileno())
