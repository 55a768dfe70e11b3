"""What `Monitor.log` takes beside numbers and strings.

Each is a box for what it is given: nothing is looked at before it is logged. What cannot be logged is left out, counted
in `Monitor.dropped`, and reported once for each key.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        data: a list of mappings, a mapping of columns, a list of rows, a two-dimensional array, a data frame of pandas
            or polars, or `(columns, rows)`.
        columns: names of the columns, where `data` has none.
        append: whether these are more rows of the table that was logged under the key before.
    """

    data: Any
    columns: Sequence[str] | None = None
    _: KW_ONLY
    append: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Args:
        data: an array of height by width, with or without 1, 3 or 4 channels before or behind them, of `uint8` from 0
            to 255 or of floats from 0 to 1; an image of Pillow; the bytes of a PNG, JPEG, GIF or WebP file, or its
            path.
        caption: a line below it.
    """

    data: Any
    _: KW_ONLY
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How values are distributed.

    Args:
        values: numbers, as an array or a list; those that are not finite are left out.
        bins: how many bins of one width they are sorted into.
        counts: how many values are in each bin, instead of `values`.
        edges: where the bins begin, and where the last one ends.
    """

    values: Any = None
    _: KW_ONLY
    bins: int = 64
    counts: Any = None
    edges: Any = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text, as a plain `str` is one; also if it is `"NaN"` or another word for a number.

    Args:
        text: the text.
        markdown: whether it is shown as Markdown, in trackers that show such or HTML.
    """

    text: str
    _: KW_ONLY
    markdown: bool = False


@dataclass(frozen=True, slots=True)
class Html:
    """A page or a piece of HTML: a string, or the path of a file."""

    html: Any


@dataclass(frozen=True, slots=True)
class Audio:
    """A sound.

    Args:
        data: an array of samples, or of samples by channels, of `int16` or of floats from -1 to 1; the bytes of a file
            of WAV, MP3, OGG or FLAC, or its path.
        rate: samples a second, for an array.
        caption: a line below it.
    """

    data: Any
    _: KW_ONLY
    rate: int | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Video:
    """A video.

    Args:
        data: the bytes of a file of MP4, WebM, OGG or GIF, or its path; or an array of frames, each as an `Image` takes
            it. Frames become a GIF file, for which you need Pillow: `pip install pillow`.
        fps: frames a second, for an array. A GIF file counts in hundredths of a second, and browsers show 50 at most.
        caption: a line below it.
    """

    data: Any
    _: KW_ONLY
    fps: float = 24
    caption: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A copy of any file; a directory becomes an archive. Of what is larger than 1 GiB, only path, size and digest.

    Args:
        path: the file.
        name: what it is called in the run; by default, as it is called where it is.
    """

    path: Any
    _: KW_ONLY
    name: str | None = None


BOXES = (Table, Image, Histogram, Text, Html, Audio, Video, File)
"""All of them."""
