"""How a writer's rows are written into a run that others write too: under a prefix, with their step as a metric."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from rolecall.rows import Row
from rolecall.store.axes import axis_of

_RANK: Final = re.compile("([0-9]+)/")


def shared_row(row: Row, declares_axes: bool, report: Callable[[str], None] = lambda _: None) -> Row:
    """The row as it is in a shared run: with an axis where the backend declares axes.

    Args:
        row: as it was logged.
        declares_axes: whether the step is a metric.
        report: called with a message for each key that has to give way.
    """
    # A role with a rank has no keys that could be those of another one.
    shown = f"{row.writer}/".__add__ if "/" in row.writer else partial(_shown, row.writer, report)
    metrics = {shown(key): value for key, value in row.metrics.items()}
    if declares_axes:
        axis = axis_of(row.writer)
        if (logged := metrics.get(axis, row.step)) != row.step:
            metrics[f"{axis}_"] = logged
            report(f"the metric 'step' is {axis}_ in the shared run, as {axis} is the step that rows are logged at")
        metrics[axis] = row.step
    return replace(
        row,
        metrics=metrics,
        text={shown(key): value for key, value in row.text.items()},
        table=row.table and replace(row.table, name=shown(row.table.name)),
        media=tuple(replace(media, key=shown(media.key)) for media in row.media),
    )


def _shown(writer: str, report: Callable[[str], None], key: str) -> str:
    """The key under the prefix of a writer without a rank."""
    # `0/reward` of `agent` would be the `reward` of `agent/0`.
    if key[:1].isdigit() and (rank := _RANK.match(key)):
        shown = f"{writer}/{rank[1]}_/{key[rank.end() :]}"
        report(f"the key {key!r} is {shown} in the shared run, as {writer}/{rank[1]} may be another role's name")
        return shown
    return f"{writer}/{key}"
