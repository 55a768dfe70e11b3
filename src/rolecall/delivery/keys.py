"""Under which names a writer's rows are in a run, and on which axis.

In a run that others write too, keys have the writer's prefix. A key belongs to the axis on which it was first logged; a
point on another one goes to `{prefix}{axis}/{key}`. The `AxisBook` knows these bindings, by the names of a shared run,
also where runs are separate: so a key has one axis in all backends, and after a restart.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from rolecall.rows import Metrics, Row
from rolecall.store.axes import AxisBook, axis_key

_RANK: Final = re.compile("([0-9]+)/")
_MOST_SETS: Final = 256
"""Of keys that are logged together: a writer has few."""
_TAKEN: Final = "{0} is {0}_ in the run, as {0} is the step that rows are logged at"
_RANKED: Final = "the key {!r} is {} in the shared run, as {} may be another role's name"


class Keys:
    """How the rows of one writer are written into one run.

    Args:
        book: the bindings of all writers, as this one has it; new ones are published there.
        shared: whether rows of other writers are in the run, too.
        declares_axes: whether the backend takes steps as metrics.
        report: called with a message for each key that has to give way.

    Attributes:
        carries_axes: whether each row has its step as a metric. In a run of the writer's own it has from the first row
            on that is on another axis than the writer's default one.
    """

    def __init__(
        self, book: AxisBook, *, shared: bool, declares_axes: bool, report: Callable[[str], None] = lambda _: None
    ) -> None:
        given, writer = book.prefix(), book.writer
        self._book = book
        self._full = f"{writer}/" if given is None else given
        self._prefix = self._full if shared or given is not None else ""
        self._own = axis_key(self._full)
        self._is_shared = shared
        self._may_be_role = given is None and "/" not in writer
        self._declares_axes = declares_axes
        self._report = report
        self._names: dict[tuple[str | None, ...], tuple[str, ...]] = {}
        self._changes = book.changes
        # Of a run of the writer's own, as they are there.
        self._bound = {self._unprefixed(key): self._unprefixed(axis) for key, axis in book.own().items()}
        self.carries_axes = declares_axes and (shared or book.has_axes)

    def carry_axes(self) -> None:
        """From here on, each row has its step as a metric."""
        if not self.carries_axes:
            self.carries_axes = True
            self._names.clear()

    def bindings(self, since: int) -> tuple[Mapping[str, str], int]:
        """The bindings that the run needs and that are new since a position; and the position for the next call."""
        if not self.carries_axes:
            return {}, since
        if self._is_shared:
            known = self._book.changes  # first: another courier's thread may learn more meanwhile
            return self._book.bindings(since), known
        return dict(list(self._bound.items())[since:]), len(self._bound)

    def rename(self, row: Row) -> None:
        """Give a row the names that it has in the run, and its step if that is a metric there.

        The axes of its keys are published. Once for each row: a second time, it would get another prefix.
        """
        if row.axis is not None and self._declares_axes:
            self.carry_axes()
        row.metrics = self._metrics(row)
        if not (self._prefix or self.carries_axes):
            return
        if row.text:
            row.text = {self._other_name(key): text for key, text in row.text.items()}
        if row.table is not None:
            row.table = replace(row.table, name=self._other_name(row.table.name))
        if row.media:
            row.media = tuple(replace(media, key=self._other_name(media.key)) for media in row.media)

    def _metrics(self, row: Row) -> Metrics:
        """The metrics as they are in the run, with the step if the run has it as one."""
        if self._changes != self._book.changes:  # another writer may have bound the same key
            self._names.clear()
        given = (row.axis, *row.metrics)
        if (names := self._names.get(given)) is None:
            if len(self._names) >= _MOST_SETS:
                self._names.clear()
            names = self._names[given] = self._resolve(list(row.metrics), row.axis)
            self._changes = self._book.changes
        if not self.carries_axes and names == given[1:]:
            return row.metrics
        metrics = dict(zip(names, row.metrics.values(), strict=True))
        if self.carries_axes:
            axis = axis_key(self._prefix, row.axis)
            if (logged := metrics.get(axis, row.step)) != row.step:
                metrics[self._bind(f"{axis_key('', row.axis)}_", row.axis)] = logged
                self._report(f"the metric {_TAKEN.format(axis)}")
            metrics[axis] = row.step
        return metrics

    def _resolve(self, keys: Sequence[str], axis: str | None) -> tuple[str, ...]:
        """The names of metrics that are logged together, each bound to an axis."""
        own = axis_key(self._full, axis)
        # All at once, as this writes to the disk.
        self._book.publish({full: own for key in keys if not self._is_taken(full := self._full_name(key))})
        return tuple(self._name(key, axis) for key in keys)

    def _name(self, key: str, axis: str | None) -> str:
        full = self._full_name(key)
        if full == axis_key(self._full, axis) or (self._is_taken(full) and not self.carries_axes):
            return self._shown(full, key)  # most probably its step once more; `_metrics` looks at the value
        if self._is_taken(full):
            self._report(f"the key {_TAKEN.format(self._shown(full, key))}")
            key = f"{key}_"
        return self._bind(key, axis)

    def _bind(self, key: str, axis: str | None) -> str:
        """The name of a metric that is logged on this axis: another one if the key belongs to another axis."""
        own, name = axis_key(self._full, axis), key
        while (bound := self._book.axis(full := self._full_name(name))) != own:
            if bound is None:
                self._book.publish({full: own})
            else:
                name = f"{axis or 'step'}/{key}" if name == key else f"{name}_"
        shown = self._shown(full, name)
        if name != key:
            where, there = self._shown(self._full_name(key), key), axis_key(self._prefix, axis)
            self._report(f"{where} belongs to another axis, on which it was logged first; on {there} it is {shown}")
        self._bound[shown] = axis_key(self._prefix, axis)
        return shown

    def _other_name(self, key: str) -> str:
        """The name of what is no metric. In wandb, a string or an image of an axis' key would replace the step."""
        full = self._full_name(key)
        shown = self._shown(full, key)
        if self.carries_axes and self._is_taken(full):
            self._report(f"the key {_TAKEN.format(shown)}")
            return f"{shown}_"
        return shown

    def _is_taken(self, full: str) -> bool:
        """Whether it is the key of an axis."""
        return full in self._book.axes or full == self._own

    def _full_name(self, key: str) -> str:
        # `0/reward` of `agent` would be the `reward` of `agent/0`. A role with a rank has no keys of another one.
        if self._may_be_role and (rank := _RANK.match(key)):
            return f"{self._full}{rank[1]}_/{key[rank.end() :]}"
        return self._full + key

    def _unprefixed(self, full: str) -> str:
        return self._prefix + full.removeprefix(self._full)

    def _shown(self, full: str, key: str) -> str:
        if not self._is_shared:
            return self._prefix + key
        if full != self._full + key:
            self._report(_RANKED.format(key, full, full.partition("_/")[0]))
        return full
