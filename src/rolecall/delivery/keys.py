"""How a writer's rows are written into a run that others write too: under a prefix, with their step as a metric."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from rolecall.rows import Row
from rolecall.store.axes import axis_of

_RANK: Final = re.compile("([0-9]+)/")
_REPORT: Final = "'step' is {0}_ in the shared run, as {0} is the step that rows are logged at"


def shared_row(row: Row, declares_axes: bool, report: Callable[[str], None] = lambda _: None) -> Row:
    """The row as it is in a shared run: with an axis where the backend declares axes.

    Args:
        row: as it was logged.
        declares_axes: whether the step is a metric.
        report: called with a message for each key that has to give way.
    """
    axis = axis_of(row.writer) if declares_axes else None

    def shown(keys: Iterable[str], taken: str | None = axis) -> tuple[str, ...]:
        names, messages = _shown(row.writer, tuple(keys), taken)
        for message in messages:
            report(message)
        return names

    metrics = dict(zip(shown(row.metrics, None), row.metrics.values(), strict=True))
    if axis is not None:
        if (logged := metrics.get(axis, row.step)) != row.step:
            metrics[f"{axis}_"] = logged
            report(f"the metric {_REPORT.format(axis)}")
        metrics[axis] = row.step
    # Field by field, as `replace` takes twice as long, and this is done for every row.
    return Row(
        writer=row.writer,
        session=row.session,
        seq=row.seq,
        step=row.step,
        time=row.time,
        metrics=metrics,
        axis=row.axis,
        text=row.text and dict(zip(shown(row.text), row.text.values(), strict=True)),
        table=row.table and replace(row.table, name=shown([row.table.name])[0]),
        media=row.media and tuple(replace(media, key=shown([media.key])[0]) for media in row.media),
        commit=row.commit,
    )


@lru_cache(maxsize=256)  # the rows of a writer have few different sets of keys
def _shown(writer: str, keys: tuple[str, ...], taken: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys under the prefix of a writer, none as `taken`; and a message for each that has to give way."""
    messages: list[str] = []
    names = [_prefixed(writer, key, messages) for key in keys]
    if taken in names:
        names[names.index(taken)] = f"{taken}_"
        messages.append(f"the key {_REPORT.format(taken)}")
    return tuple(names), tuple(messages)


def _prefixed(writer: str, key: str, messages: list[str]) -> str:
    # `0/reward` of `agent` would be the `reward` of `agent/0`. A role with a rank has no keys of another one.
    if "/" not in writer and (rank := _RANK.match(key)):
        shown = f"{writer}/{rank[1]}_/{key[rank.end() :]}"
        messages.append(
            f"the key {key!r} is {shown} in the shared run, as {writer}/{rank[1]} may be another role's name"
        )
        return shown
    return f"{writer}/{key}"
