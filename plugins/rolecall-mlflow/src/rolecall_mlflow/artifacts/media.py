"""Stores images, histograms and other media as artifacts.

The bytes are stored as they are: nothing here needs Pillow, NumPy or Plotly, none of which mlflow-skinny installs. A
row that comes again has the same paths, so each of its files is there once.
"""

from __future__ import annotations

import json
import posixpath
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

from rolecall import Media, MediaKind, Row
from rolecall_mlflow.artifacts.files import Artifact, artifact_folder, moment, tracking_uri, upload
from rolecall_mlflow.artifacts.tables import json_number
from rolecall_mlflow.keys import valid_key
from rolecall_mlflow.sdk import Store, mlflow_version

__all__ = ["MEDIA_KINDS", "store_media"]

MEDIA_KINDS: Final[frozenset[MediaKind]] = frozenset(get_args(MediaKind))
"""The kinds that a run holds: all of them."""

_FOLDERS: Final = {
    "histogram": "histograms",
    "html": "html",
    "markdown": "markdown",
    "audio": "audio",
    "video": "videos",
    "figure": "figures",
}
_HAS_IMAGES: Final = "mlflow.loggedImages"

# How `MlflowClient.log_image` separates the parts of a file's name: `%` in 2.16, `+` in 3.10 and newer, whose UI reads
# both. In a URL, `%step%20` is damaged (mlflow#21085).
_PLUS_SINCE: Final = (3, 10)

# Of 255 that a file system allows, step, time, UUID and `compressed` take 103 at most.
_MOST_BYTES: Final = 140

_PLOTLY: Final = "application/vnd.plotly.v1+json"
_PLOTLY_PAGE: Final = """<!DOCTYPE html>
<html>
<head><meta charset="utf-8"><script src="https://cdn.plot.ly/plotly-3.0.1.min.js"></script></head>
<body><div id="figure"></div>
<script type="application/json" id="json">{}</script>
<script>
const figure = JSON.parse(document.getElementById("json").textContent);
Plotly.newPlot("figure", figure.data, figure.layout, {{responsive: true}});
</script>
</body>
</html>
"""


def store_media(store: Store, run_id: str, row: Row) -> None:
    """Write the media of a row, and tell MLflow's UI if they are images."""
    with tracking_uri(store.uri):
        for artifact in _artifacts(row):
            upload(store, run_id, artifact)
    if row.media[0].kind == "image":
        store.client.set_tag(run_id, _HAS_IMAGES, "True")


def _artifacts(row: Row) -> Iterator[Artifact]:
    for index, media in enumerate(row.media):
        if media.kind == "image":
            yield from _image(row, media, index)
        elif media.kind == "histogram":
            yield Artifact(_path(row, media, index, ".json"), _histogram(media))
        elif media.path is None:  # no other kind is without a file
            continue
        elif media.kind == "file":
            folder = artifact_folder("files", row, media.key)
            yield Artifact(f"{folder}/{moment(row)}/{_file_name(media.caption or media.path.name)}", media.path)
        elif media.mime == _PLOTLY:
            yield Artifact(_path(row, media, index, ".html"), _plotly_page(media.path))
        else:
            yield Artifact(_path(row, media, index, media.path.suffix), media.path)


def _path(row: Row, media: Media, index: int, suffix: str) -> str:
    """`audio/explorer/0/voice/00000012-1-345.wav`, or `...-345-0.wav` for the first of several."""
    number = f"-{index}" if len(row.media) > 1 else ""
    return f"{artifact_folder(_FOLDERS[media.kind], row, media.key)}/{moment(row)}{number}{suffix}"


def _image(row: Row, media: Media, index: int) -> Iterator[Artifact]:
    """The two files of an image, named as `MlflowClient.log_image` names them (2.16 to 3.17)."""
    if media.path is None:
        return
    # The grid shows one image for each key and step.
    key = valid_key(f"{media.key}/{index}" if len(row.media) > 1 else media.key, _MOST_BYTES)
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{row.writer} {row.session} {row.seq} {index}")
    parts = [
        # Not `#`, as in MLflow 2: artifacts with it in their names cannot be downloaded (mlflow#22165).
        key.replace("/", "~").replace(":", "_"),
        *("step", str(row.step), "timestamp", str(round(row.time * 1000)), str(name)),
    ]
    separator = "+" if (mlflow_version() or ()) >= _PLUS_SINCE else "%"
    # The grid leaves out every other ending. Browsers look at an image's bytes, not at its name.
    suffix = ".webp" if media.mime == "image/webp" else ".png"
    yield Artifact(f"images/{separator.join(parts)}{suffix}", media.path)
    # The grid draws this one, and the first only in full size. A smaller one would need Pillow.
    yield Artifact(f"images/{separator.join([*parts, 'compressed'])}{suffix}", media.path)


def _file_name(name: str) -> str:
    """The name of a file, with characters that every store takes, and its ending."""
    stem, suffix = posixpath.splitext(name)
    tidy = valid_key(stem, _MOST_BYTES) + (valid_key(suffix, _MOST_BYTES // 2) if suffix else "")
    return tidy.replace(":", "_")


def _histogram(media: Media) -> str:
    numbers = {"counts": media.counts, "edges": media.edges}
    return json.dumps(
        {name: [json_number(number) for number in each] for name, each in numbers.items()}, allow_nan=False
    )


def _plotly_page(path: Path) -> str:
    """A page that draws the figure, with Plotly's JavaScript from its server as `MlflowClient.log_figure` has it."""
    # `<` is only in strings, and could end the element.
    return _PLOTLY_PAGE.format(path.read_text(encoding="utf-8").replace("<", r"\u003c"))
