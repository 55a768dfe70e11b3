"""Tables that are logged, made ready for the journal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rolecall.job.media import image_in, names_of
from rolecall.rows import Cell, TableData
from rolecall.store.journal import Draft, TableDraft
from rolecall.values import BOXES, Table

INT64: Final = 1 << 63
LEAST_INT64: Final = -INT64
MOST_IMAGES: Final = 1000
PLAIN: Final = frozenset([float, int, str, bool, type(None)])
BYTES: Final = (bytes, bytearray, memoryview)


def table_in(value: Any) -> Table | None:
    """The table that a logged value is; `None` if it is none."""
    if isinstance(value, BOXES):
        return value if isinstance(value, Table) else None
    names = names_of(value)
    if ("wandb", "Table") in names:
        return Table(value.data, value.columns)
    return Table(value) if ("pandas", "DataFrame") in names or ("polars", "DataFrame") in names else None


def table_data(name: str, table: Table) -> TableData | TableDraft:
    """A table under a name.

    Raises:
        Exception: it is none, for a reason that a `ValueError` or `TypeError` says; others are anyone's.
    """
    columns, rows = _read(table.data, table.columns)
    names = tuple(utf8(str(column)) for column in columns)
    images: dict[tuple[int, int], Draft] = {}
    cells = tuple(_cells(row, len(names), number, images) for number, row in enumerate(rows))
    plain = TableData(name=name, columns=names, rows=cells, append=table.append)
    return TableDraft(plain, images) if images else plain


def _read(data: Any, columns: Sequence[str] | None) -> tuple[Iterable[object], Iterable[Any]]:
    """The columns and rows of a table in one of its forms."""
    if hasattr(data, "columns") and hasattr(data, "itertuples"):  # pandas
        return data.columns, data.itertuples(index=False, name=None)
    if hasattr(data, "columns") and hasattr(data, "iter_rows"):  # polars
        return data.columns, data.iter_rows()
    if isinstance(data, tuple) and columns is None:
        names, rows = data
        return names, rows
    if isinstance(data, Mapping):
        return data.keys(), zip(*data.values(), strict=True)
    records = list(data.tolist() if hasattr(data, "tolist") else data)
    if columns is not None and not any(isinstance(record, Mapping) for record in records):
        return columns, records
    if not all(isinstance(record, Mapping) for record in records):
        raise TypeError("its records are not mappings, and it has no columns")
    names = columns or list(dict.fromkeys(column for record in records for column in record))
    return names, ([record.get(column) for column in names] for record in records)


def utf8(value: str) -> str:
    """A string that can be sent: no backend takes a lone surrogate."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def words(error: Exception) -> str:
    """What anyone's error says, on one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}"[:200].split()).removesuffix(":")
    except Exception:  # noqa: BLE001 - anyone's object
        return type(error).__name__


def _cells(row: Iterable[object], width: int, number: int, images: dict[tuple[int, int], Draft]) -> tuple[Cell, ...]:
    """The cells of a row; those that are images go to `images`."""
    if isinstance(row, (Mapping, str, *BYTES)):
        raise TypeError(f"a row of it is a {type(row).__name__}")
    values = list(row)
    for column, value in enumerate(values):
        if type(value) not in PLAIN and (image := image_in(value)) is not None:
            if len(images) == MOST_IMAGES:
                raise ValueError(f"it has more than {MOST_IMAGES} images")
            images[number, column], values[column] = image, None
    cells = tuple(map(_cell, values))
    if len(cells) != width:
        raise ValueError("its rows are not as wide as its columns")
    return cells


def _cell(value: Any) -> Cell:
    """A plain cell; what is not a number, a string or `None` becomes a string."""
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # numpy and torch raise these where there are several values
        plain = value
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, int) and -INT64 <= plain < INT64:
        return int.__int__(plain)
    return float.__float__(plain) if isinstance(plain, float) else utf8(str(plain))
