"""What a job holds beside numbers: its tables, media and texts, the last of each key."""

from collections.abc import Iterator

from rolecall.cli.view.chart import number
from rolecall.cli.view.lines import Line, Look, cells
from rolecall.cli.view.metrics import by_rank
from rolecall.cli.view.summary import plural
from rolecall.job.history import Held, HeldTable, JobHistory
from rolecall.rows import Cell, Media

_LAST_ROWS = 3
"""Of a table, that are drawn."""
_WIDEST_CELL = 40
_INDENT = " " * 10
"""As wide as the longest kind, `histogram`, and a space."""


def describe_holdings(job: JobHistory, look: Look) -> Iterator[Line]:
    """A line for each key, with the path of a file; below that of a table its last rows."""
    for writer in by_rank(job.writers):
        for key, text in sorted(writer.last_text.items()):
            line = " ".join(text.last.split())
            yield look.line(_label("text"), f"{writer.writer}/{key}", ("  ", ""), f'"{line}"').cut(look.width)
        for key, media in sorted(writer.last_media.items()):
            yield from _media(f"{writer.writer}/{key}", media, look)
        for key, table in sorted(writer.last_tables.items()):
            yield from _table(f"{writer.writer}/{key}", table, look)


def _media(name: str, held: Held[tuple[Media, ...]], look: Look) -> Iterator[Line]:
    kinds = ", ".join(dict.fromkeys(each.kind for each in held.last))
    yield look.line(_label(kinds), name, (f"  logged {_times(held.count)}, last at step {held.step}", "dim"))
    for each in held.last:
        if each.path is not None:
            yield look.line(f"{_INDENT}{each.path}", is_whole=True)
        elif each.counts:
            total = f"{len(each.counts)} bins, {sum(each.counts):g} values"
            yield look.line(f"{_INDENT}{total} from {number(each.edges[0])} to {number(each.edges[-1])}")


def _table(name: str, held: HeldTable, look: Look) -> Iterator[Line]:
    table = held.last
    size = f"{plural(held.rows, 'row')} of {plural(len(table.columns), 'column')}"
    yield look.line(_label("table"), name, (f"  logged {_times(held.count)}, last at step {held.step}: {size}", "dim"))
    rows = [[_cell(cell, look) for cell in row] for row in table.rows[-_LAST_ROWS:]]
    heads = [look.shorten(column, _WIDEST_CELL) for column in table.columns]
    widths = [max(cells(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    for at, row in enumerate([heads, *rows]):
        line = look.line(_INDENT)
        for text, width in zip(row, widths, strict=True):
            line += look.line((text, "dim" if at == 0 else "")).padded(width + 2)
        yield line


def _label(kind: str) -> tuple[str, str]:
    return f"{kind:<{len(_INDENT) - 1}} ", "dim"


def _cell(cell: Cell, look: Look) -> str:
    match cell:
        case float():
            text = number(cell)
        case Media():
            text = cell.caption or (cell.path.name if cell.path else cell.kind)
        case _:
            text = str(cell)
    return look.shorten(" ".join(text.split()), _WIDEST_CELL)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
