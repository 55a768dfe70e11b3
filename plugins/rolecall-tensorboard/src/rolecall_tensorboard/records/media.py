"""Encodes media in the form that TensorBoard has for each kind.

That form is the one of `tf.summary`: a tensor, and the name of the plugin that shows it. A list of images is one tensor
and so one card, where tensorboardX would make a tag of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from rolecall import Media, MediaKind, TableData

__all__ = ["KINDS", "MOST_BYTES", "add_media", "table_images", "tagged", "why_not"]

KINDS: Final[frozenset[MediaKind]] = frozenset({"image", "histogram", "html", "markdown", "audio", "video", "figure"})
"""What a run holds."""

MOST_BYTES: Final = 64 << 20
"""How large the media of one row can be. Whoever reads event files has a whole record in memory, several times."""

_ONLY: Final[Mapping[MediaKind, tuple[str, str]]] = {
    "audio": ("audio/wav", "TensorBoard plays WAV files alone"),
    "video": ("image/gif", "TensorBoard shows no videos but GIF files"),
    "figure": ("image/png", "TensorBoard shows figures of Matplotlib alone"),
}
# The numbers of TensorFlow's types (tensorflow/core/framework/types.proto).
_DOUBLE: Final = 2
_STRING: Final = 7
_WAV: Final = b"\x10\x0b"  # an AudioPluginData whose `encoding` is WAV (tensorboard/plugins/audio/plugin_data.proto)


def why_not(media: Sequence[Media]) -> str | None:
    """Why TensorBoard cannot show them; `None` if it can."""
    mime, why = _ONLY.get(media[0].kind, (None, "")) if media else (None, "")
    if mime is not None and any(each.mime != mime for each in media):
        return f"{why}; others stay in the job's directory"
    if sum(each.path.stat().st_size for each in media if each.path is not None) > MOST_BYTES:
        return f"it puts at most {MOST_BYTES >> 20} MiB into one record; what is larger stays in the job's directory"
    return None


def table_images(table: TableData) -> list[Media]:
    """The images in the cells of a table, under its name and that of their column."""
    cells = (zip(table.columns, row, strict=True) for row in table.rows)
    return [replace(cell, key=f"{table.name}/{name}") for row in cells for name, cell in row if isinstance(cell, Media)]


def add_media(summary: Any, media: Sequence[Media]) -> None:
    """Add media of one key to a summary.

    Raises:
        ValueError: the key is not valid Unicode.
        OSError: a file cannot be read.
    """
    if media[0].kind in ("image", "figure", "video"):
        _add_images(summary, media)
        return
    for tag, each in tagged(media):
        if each.kind == "histogram":
            _add_histogram(summary, tag, each)
        elif each.path is not None:  # a sound
            value = _value(summary, tag, "audio", _STRING, (1,))
            value.metadata.plugin_data.content = _WAV
            value.tensor.string_val.append(each.path.read_bytes())


def tagged(media: Sequence[Media]) -> Iterator[tuple[str, Media]]:
    """The media of one key, each with a tag of its own."""
    # Sounds could be one tensor, too, but TensorBoard shows none of them if one step has fewer than another (2.21).
    for at, each in enumerate(media):
        yield (each.key if len(media) == 1 else f"{each.key}/{at}"), each


def _add_images(summary: Any, media: Sequence[Media]) -> None:
    """One tensor: width, height, and the bytes of each image, which the browser shows as they are."""
    files = [each.path.read_bytes() for each in media if each.path is not None]
    value = _value(summary, media[0].key, "images", _STRING, (2 + len(files),))
    # Nobody reads the width and the height (TensorBoard 2.21), and images of one list may differ in them.
    value.tensor.string_val.extend([b"0", b"0", *files])


def _add_histogram(summary: Any, tag: str, media: Media) -> None:
    """A row for each bin: where it begins, where it ends, and its count."""
    value = _value(summary, tag, "histograms", _DOUBLE, (len(media.counts), 3))
    for (left, right), count in zip(pairwise(media.edges), media.counts, strict=True):
        value.tensor.double_val.extend((left, right, count))


def _value(summary: Any, tag: str, plugin: str, dtype: int, shape: Sequence[int]) -> Any:
    value = summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = plugin
    value.tensor.dtype = dtype
    for size in shape:
        value.tensor.tensor_shape.dim.add(size=size)
    return value
