"""`wandb.Table`, `wandb.Image` and the like: each becomes the value of rolecall's that holds the same."""

import io
import os
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Final

from rolecall import values
from rolecall.compat.wandb.absent import UnsupportedError, refuse

_MOST_BINS: Final = 512
_LONGEST_PATH: Final = 4096
_FRAMES: Final = 4
"""Dimensions of a video: time, channel, height, width."""


class Media:
    """What is logged under a key beside numbers and strings. `boxed` is the same as rolecall's own value."""

    boxed: Any


class Image(Media):
    """An image, as `wandb.Image`.

    Args:
        data_or_path: an array, a tensor, an image of Pillow, a figure of Matplotlib, or a path.
        mode: of Pillow; an array says itself how many channels it has.
        caption: a line below it.
        grouping: ignored; wandb ignores it, too.
        classes: unsupported, as `boxes` and `masks`.
        boxes: as above.
        masks: as above.
        file_type: ignored: trackers get PNG, or the file that you give.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - wandb's own
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Any = None,
        boxes: Any = None,
        masks: Any = None,
        file_type: str | None = None,
    ) -> None:
        refuse("Image", "draw them into the image", classes=classes, boxes=boxes, masks=masks)
        if isinstance(data_or_path, Image):
            self.boxed = values.Image(data_or_path.boxed.data, caption=caption or data_or_path.boxed.caption)
        else:
            self.boxed = values.Image(_drawn(data_or_path), caption=caption or "")


class Histogram(Media):
    """How values are distributed, as `wandb.Histogram`.

    Args:
        sequence: the values.
        np_histogram: what `numpy.histogram` returns, instead.
        num_bins: how many bins of one width they are sorted into.
    """

    def __init__(self, sequence: Any = None, np_histogram: tuple[Any, Any] | None = None, num_bins: int = 64) -> None:
        if np_histogram is not None:
            counts, edges = np_histogram
            self.boxed = values.Histogram(counts=[*counts], edges=[*edges])
            return
        if num_bins > _MOST_BINS:
            raise ValueError(f"a histogram has at most {_MOST_BINS} bins, not {num_bins}")
        self.boxed = values.Histogram(_kept(sequence), bins=num_bins)


class Html(Media):
    """A page of HTML, as `wandb.Html`.

    Args:
        data: HTML, the path of a file of it, or an open file.
        inject: ignored: the page stays as it is, without wandb's style sheet.
        data_is_not_path: whether a string is HTML in any case.
    """

    def __init__(self, data: Any, inject: bool = True, data_is_not_path: bool = False) -> None:
        if hasattr(data, "read"):
            data = data.read()
        elif isinstance(data, str) and not data_is_not_path and len(data) < _LONGEST_PATH and os.path.isfile(data):
            data = Path(data)
        self.boxed = values.Html(data)


class Audio(Media):
    """A sound, as `wandb.Audio`.

    Args:
        data_or_path: samples, or the path of a file.
        sample_rate: samples a second, for an array.
        caption: a line below it.
    """

    def __init__(self, data_or_path: Any, sample_rate: int | None = None, caption: str | None = None) -> None:
        self.boxed = values.Audio(_kept(data_or_path), rate=sample_rate, caption=caption or "")


class Video(Media):
    """A video, as `wandb.Video`.

    Args:
        data_or_path: an array of time by channel by height by width, the path of a file, or an open file.
        caption: a line below it.
        fps: frames a second, for an array; 4 if not given.
        format: ignored: an array becomes a GIF, and a file says itself what it is.
    """

    def __init__(
        self,
        data_or_path: Any,
        caption: str | None = None,
        fps: int | None = None,
        format: str | None = None,  # noqa: A002 - wandb's own
    ) -> None:
        data = data_or_path.read() if hasattr(data_or_path, "read") else _kept(data_or_path)
        if (dimensions := getattr(data, "ndim", _FRAMES)) != _FRAMES:
            raise UnsupportedError(f"Video: an array has 4 dimensions, not {dimensions}; log a list of videos")
        self.boxed = values.Video(data, fps=fps or 4, caption=caption or "")


class Table(Media):
    """A table, as `wandb.Table`.

    Args:
        columns: the names of the columns.
        data: rows; also a two-dimensional array, or a frame of pandas.
        rows: the same, under an older name.
        dataframe: a frame of pandas.
        dtype: ignored, as `optional` and `allow_mixed_types`: a cell is what it is.
        optional: as above.
        allow_mixed_types: as above.
        log_mode: with `INCREMENTAL`, each `log` has the rows that were added since the one before.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - wandb's own
        self,
        columns: Sequence[Any] | None = None,
        data: Any = None,
        rows: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        dtype: Any = None,
        optional: bool | Sequence[bool] = True,
        allow_mixed_types: bool = False,
        log_mode: str | None = "IMMUTABLE",
    ) -> None:
        given: Any = next((each for each in (dataframe, data, rows) if each is not None), [])
        if hasattr(given, "itertuples"):
            columns, given = list(given.columns), given.itertuples(index=False, name=None)
        records = given.tolist() if hasattr(given, "tolist") else given
        self.columns = list(columns) if columns is not None else ["Input", "Output", "Expected"]
        self.data: list[list[Any]] = []
        self._grows = log_mode == "INCREMENTAL"
        self._logged = 0
        for record in records:
            self.add_data(*record)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def boxed(self) -> values.Table:
        """The table as it is now, or what was added to one that grows."""
        start = self._logged if self._grows else 0
        self._logged = len(self.data)
        rows = [[plain(cell) for cell in row] for row in self.data[start:]]
        return values.Table(rows, [str(column) for column in self.columns], append=self._grows)

    def add_data(self, *data: Any) -> None:
        """Add a row.

        Raises:
            ValueError: it has another number of cells than there are columns.
        """
        if len(data) != len(self.columns):
            raise ValueError(f"this table has {len(self.columns)} columns, {self.columns}, and not {len(data)}")
        self.data.append(list(data))

    add_row = add_data

    def add_column(self, name: str, data: Sequence[Any]) -> None:
        """Add a column, of a cell for each row.

        Raises:
            ValueError: there are more rows, or fewer.
        """
        if self.data and len(data) != len(self.data):
            raise ValueError(f"this table has {len(self.data)} rows, and not {len(data)}")
        self.data = [[*row, cell] for row, cell in zip(self.data or [[] for _ in data], data, strict=True)]
        self.columns.append(name)

    def get_column(self, name: str) -> list[Any]:
        """The cells of a column."""
        at = self.columns.index(name)
        return [row[at] for row in self.data]


def plain(value: Any) -> Any:
    """A value as `Monitor.log` takes it."""
    if isinstance(value, Media):
        return value.boxed
    if isinstance(value, list | tuple) and value and isinstance(value[0], Media):
        return [plain(each) for each in value]
    return value


def flat(data: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping without mappings in it: wandb names what is in them with dots."""
    found: dict[Any, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            found.update({f"{key}.{name}": inner for name, inner in flat(value).items()})
        elif value is not None:
            found[key] = plain(value)
    return found


def _kept(data: Any) -> Any:
    """A copy, as wandb takes one at once: the script may fill its array with the next picture."""
    if isinstance(data, str | bytes | os.PathLike) or data is None:
        return data
    return data.clone() if hasattr(data, "clone") else copy(data)


def _drawn(data: Any) -> Any:
    """The image as rolecall takes it."""
    figure = data.gcf() if hasattr(data, "gcf") else data  # `matplotlib.pyplot` stands for its current figure
    if not hasattr(figure, "savefig"):
        return _kept(data)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
