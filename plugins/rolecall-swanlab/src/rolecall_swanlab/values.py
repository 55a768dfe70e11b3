"""What swanlab holds of a row, as `swanlab.Run.log` would be given it."""

import hashlib
import re
from io import BytesIO
from itertools import pairwise
from typing import Any, Final

import swanlab

from rolecall import Media, Row

__all__ = ["contents", "renamed"]

# What `MetricKey` of `swanlab.sdk.internal.pkg.constraints` refuses, and the prefix of the SDK's own keys (0.10).
_REFUSED: Final = re.compile(r"[\x00-\x1f\x7f]|^[./\s]+|[./\s]+$|^__swanlab__")
_LONGEST: Final = 512


def renamed(key: str) -> str:
    """The key as swanlab takes it. One that changes ends with its hash, so that two keys never become one."""
    clean = _REFUSED.sub("_", key)
    if clean == key and len(key) <= _LONGEST:
        return key
    return f"{clean[: _LONGEST - 9]}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def contents(row: Row) -> dict[str, Any]:
    """The row's metrics, strings, table and media.

    Raises:
        TypeError, ValueError: the SDK does not take a table or media of this form.
    """
    found: dict[str, Any] = {**row.metrics, **{key: swanlab.Text(text) for key, text in row.text.items()}}
    if row.table is not None:
        table = swanlab.echarts.Table().add(list(row.table.columns), [list(cells) for cells in row.table.rows])
        found[row.table.name] = swanlab.ECharts(table)
    for each in row.media:
        found.setdefault(each.key, []).append(_medium(each))
    return found


def _medium(media: Media) -> Any:
    if media.path is None:
        bars = swanlab.echarts.Bar().add_xaxis([f"{low:.6g} to {high:.6g}" for low, high in pairwise(media.edges)])
        return swanlab.ECharts(bars.add_yaxis("", list(media.counts), category_gap=0), media.caption)
    if media.kind == "html":
        return swanlab.Html(media.path, media.caption)
    content = BytesIO(media.path.read_bytes())
    if media.kind == "video":
        return swanlab.Video(content, media.caption)  # only as GIF
    if not media.mime.startswith(("image/", "audio/")):
        raise TypeError("a figure of Plotly")
    # Without `__init__`, which decodes the file and encodes it again, with Pillow or soundfile.
    made = object.__new__(swanlab.Audio if media.kind == "audio" else swanlab.Image)
    vars(made).update(buffer=content, caption=media.caption, file_type=media.mime.partition("/")[2])
    return made
