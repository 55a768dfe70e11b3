"""How a writer's rows are written into a run that others write too: under a prefix, with their step as a metric."""

from dataclasses import replace

from rolecall.rows import Row
from rolecall.store.axes import axis_of


def shared_row(row: Row, declares_axes: bool) -> Row:
    """The row as it is in a shared run: with an axis where the backend declares axes."""
    prefix = f"{row.writer}/"
    metrics = {f"{prefix}{key}": value for key, value in row.metrics.items()}
    if declares_axes:
        metrics[axis_of(row.writer)] = row.step
    return replace(
        row,
        metrics=metrics,
        text={f"{prefix}{key}": value for key, value in row.text.items()},
        table=row.table and replace(row.table, name=f"{prefix}{row.table.name}"),
        media=tuple(replace(media, key=f"{prefix}{media.key}") for media in row.media),
    )
