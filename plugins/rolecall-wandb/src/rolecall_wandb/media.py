"""Media as a run of wandb has them: files of the run, and an entry of a line of history that names them.

The entries are those that the SDK writes (`to_json` and `seq_to_json` of `wandb/sdk/data_types/*.py`, 0.19.10 and
0.31.0). The SDK's own classes need Pillow for an image that is a file, soundfile for a list of sounds, and plotly for a
figure, although they change nothing of the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final, Self

from rolecall import Media, MediaKind, Rejected, Row
from rolecall_wandb.pictures import size_of_picture

__all__ = ["KINDS", "entry_of", "media_key"]

KINDS: Final[frozenset[MediaKind]] = frozenset({"image", "histogram", "html", "audio", "video", "file", "figure"})

MOST_BINS: Final = 512
"""Bins of a histogram, by the SDK's own check."""
_PLOTLY: Final = "application/vnd.plotly.v1+json"
_TYPES: Final = {
    "image": ("image-file", "images"),
    "html": ("html-file", "html"),
    "audio": ("audio-file", "audio"),
    "video": ("video-file", "videos"),
    "file": ("file", "files"),  # what the SDK calls a file that is nothing else; wandb's pages do not draw it
}
_SUFFIXES: Final = {_PLOTLY: ".plotly.json", "video/ogg": ".ogg"}
"""Suffixes that wandb knows a file by, where the file has another."""
_LISTS: Final = {"audio-file": ("audio", "audio"), "video-file": ("videos", "videos"), "html-file": ("html", "html")}
"""What a list is, and its key for the entries."""
_LONGEST: Final = 100
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def media_key(row: Row) -> str | None:
    """The key of the row's media; `None` if it has none."""
    return row.media[0].key if row.media else None


def entry_of(row: Row) -> tuple[Mapping[str, Any], Mapping[str, Path]]:
    """What a line of history has of a row with media, and the files of the run that it names.

    Raises:
        Rejected: wandb cannot hold them, or a file cannot be read.
    """
    key = row.media[0].key
    if row.media[0].kind == "histogram":
        return {key: _alone([_histogram(row, media) for media in row.media])}, {}
    try:
        files = [_File.of(media, row.step) for media in row.media]
    except OSError as error:
        raise Rejected([row], f"a file of {key!r} cannot be read: {error}") from error
    return {key: _listed(files)}, {file.name: file.path for file in files}


def _histogram(row: Row, media: Media) -> Mapping[str, Any]:
    if len(media.counts) > MOST_BINS:
        raise Rejected(
            [row], f"wandb holds histograms of up to {MOST_BINS} bins, {media.key!r} has {len(media.counts)}"
        )
    return {"_type": "histogram", "values": list(media.counts), "bins": list(media.edges)}


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the run: the type of its entry, its name in the run, and where it is."""

    type: str
    name: str
    path: Path
    digest: str
    caption: str

    @classmethod
    def of(cls, media: Media, step: int) -> Self:
        if media.path is None:
            raise FileNotFoundError("it has none")
        with media.path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        type_, folder = _type_of(media)
        # With its digest, so that it is the same file when it is uploaded again, and no other has its name.
        name = f"media/{folder}/{_safe(media.key)}_{step}_{digest[:20]}"
        if media.kind == "file":
            return cls(type_, f"{name}/{_safe(media.caption or media.path.name)}", media.path, digest, "")
        return cls(type_, name + _SUFFIXES.get(media.mime, media.path.suffix), media.path, digest, media.caption)

    def entry(self) -> dict[str, Any]:
        caption = {"caption": self.caption} if self.caption else {}
        size = self.path.stat().st_size
        return {"_type": self.type, "path": self.name, "sha256": self.digest, "size": size, **caption, **self.looks()}

    def looks(self) -> dict[str, Any]:
        """The format and the size of a picture."""
        if self.type != "image-file":
            return {}
        width, height = size_of_picture(self.path) or (None, None)
        measures = {} if width is None else {"width": width, "height": height}
        return {"format": self.path.suffix[1:], **measures}


def _type_of(media: Media) -> tuple[str, str]:
    if media.kind == "figure":
        return ("plotly-file", "plotly") if media.mime == _PLOTLY else _TYPES["image"]
    return _TYPES[media.kind]


def _safe(name: str) -> str:
    """A part of a path on any system, which hides nothing and leads nowhere else."""
    return _UNSAFE.sub("_", name)[-_LONGEST:].lstrip(".") or "_"


def _listed(files: Sequence[_File]) -> Any:
    """The entry of one file, or of several as the SDK lists what is of one type."""
    type_, *others = {file.type for file in files}
    if len(files) == 1 or others or type_ not in {"image-file", *_LISTS}:
        return _alone([file.entry() for file in files])
    several: dict[str, Any] = {"count": len(files)}
    if any(file.caption for file in files):
        several["captions"] = [file.caption for file in files]
    if type_ == "image-file":
        names = [file.name for file in files]
        return {"_type": "images/separated", **files[0].looks(), **several, "filenames": names}
    name, key = _LISTS[type_]
    return {"_type": name, **several, key: [file.entry() for file in files]}


def _alone(entries: Sequence[Any]) -> Any:
    return entries[0] if len(entries) == 1 else list(entries)
