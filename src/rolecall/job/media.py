"""Images, histograms and other objects that are logged, made ready for the journal.

Nothing is compressed in `log`: the pixels or samples of an array are stored as they are. A figure is drawn, as it may
change afterwards. No library is imported for a value that is not of that library.
"""

import hashlib
import io
import math
import os
import stat
import tarfile
import tempfile
import wave
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from rolecall.rows import MediaKind
from rolecall.store.codec import LARGEST_ATTACHMENT
from rolecall.store.journal import Content, Draft
from rolecall.store.pictures import FRAMES, NETPBM, netpbm
from rolecall.values import Audio, File, Histogram, Html, Image, Text, Video

_MOST_ITEMS: Final = 1000
_NOTHING: Final = "a histogram needs a value that is finite"
_WHITE: Final = 255
_CHANNELS: Final = (1, 3, 4)


class _Format(NamedTuple):
    """A format of files: how such a file begins, and from which byte on."""

    name: str
    suffix: str
    mime: str
    start: bytes
    at: int = 0


_FORMATS: Final[Mapping[str, Sequence[_Format]]] = {
    "image": [
        _Format("PNG", ".png", "image/png", b"\x89PNG"),
        _Format("JPEG", ".jpg", "image/jpeg", b"\xff\xd8\xff"),
        _Format("GIF", ".gif", "image/gif", b"GIF8"),
        _Format("WebP", ".webp", "image/webp", b"WEBP", 8),
    ],
    "audio": [
        _Format("WAV", ".wav", "audio/wav", b"WAVE", 8),
        _Format("MP3", ".mp3", "audio/mpeg", b"ID3"),
        _Format("MP3", ".mp3", "audio/mpeg", b"\xff\xfb"),
        _Format("OGG", ".ogg", "audio/ogg", b"OggS"),
        _Format("FLAC", ".flac", "audio/flac", b"fLaC"),
    ],
    "video": [
        _Format("MP4", ".mp4", "video/mp4", b"ftyp", 4),
        _Format("WebM", ".webm", "video/webm", b"\x1aE\xdf\xa3"),
        _Format("OGG", ".ogv", "video/ogg", b"OggS"),
        _Format("GIF", ".gif", "image/gif", b"GIF8"),
    ],
}


def drafts_of(value: Any) -> Sequence[Draft] | None:
    """The media that a value is, or that a list holds; `None` if it is something else.

    Raises:
        Exception: it is one that cannot be read, for a reason that a `ValueError` says; others are anyone's.
    """
    if isinstance(value, list | tuple):
        found = [_draft(each) for each in value[:_MOST_ITEMS]] if value and _reader(value[0]) else []
        if not found:
            return None
        if len(value) > _MOST_ITEMS or None in found or len({each.kind for each in found if each}) > 1:
            raise ValueError(f"a list of media holds up to {_MOST_ITEMS} of one kind")
        return [each for each in found if each is not None]
    draft = _draft(value)
    return None if draft is None else [draft]


def markdown_draft(value: Text) -> Draft:
    """A text that is shown as Markdown."""
    return Draft(kind="markdown", data=str(value.text).encode("utf-8", "replace"), suffix=".md", mime="text/markdown")


def image_in(value: Any) -> Draft | None:
    """The image that a cell of a table is; `None` if it is something else.

    Raises:
        Exception: as `drafts_of`.
    """
    draft = _draft(value)
    return draft if draft is not None and draft.kind == "image" else None


def _draft(value: Any) -> Draft | None:
    read = _reader(value)
    if read is None:
        return None
    draft = read(value)
    size = _size_of(draft.data) if isinstance(draft.data, Path) else len(draft.data or b"")
    if size > LARGEST_ATTACHMENT:
        raise ValueError(f"it has {size} bytes, and nothing can have more than {LARGEST_ATTACHMENT}")
    return draft


def _size_of(path: Path) -> int:
    """The size of a file that can be read."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would wait for a writer
        raise ValueError(f"{path} is not a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} cannot be read")
    return found.st_size


def _reader(value: Any) -> Callable[[Any], Draft] | None:
    """What makes a draft of such a value."""
    return _OWN.get(type(value)) or next(filter(None, map(_FOREIGN.get, names_of(value))), None)


def names_of(value: object) -> tuple[tuple[str, str], ...]:
    """The packages and names of a value's class and its bases: they tell a library's class without an import of it."""
    return tuple((str(each.__module__).partition(".")[0], each.__name__) for each in type(value).__mro__)


# ------------------------------------------------------------------ our own


def _image(value: Image) -> Draft:
    data = value.data
    if isinstance(data, bytes | str | os.PathLike):
        return _file("image", data, value.caption)
    # What has a `dtype` is an array, whatever its class is called.
    if not hasattr(data, "dtype") and _reader(data) is _pillow:
        return _pillow(data, value.caption)
    pixels = _pixels(_array(data))
    height, width, channels = pixels.shape
    return _drawn(pixels.data, width, height, channels, value.caption)


def _histogram(value: Histogram) -> Draft:
    if value.counts is not None or value.edges is not None:
        counts, edges = (tuple(map(float, given)) for given in (value.counts, value.edges))
        if len(edges) != len(counts) + 1:
            raise ValueError(f"a histogram of {len(counts)} counts has {len(counts) + 1} edges, not {len(edges)}")
        return Draft(kind="histogram", counts=counts, edges=edges)
    counts, edges = _sorted_into_bins(value.values, value.bins)
    return Draft(kind="histogram", counts=counts, edges=edges)


def _html(value: Html) -> Draft:
    data = Path(value.html) if isinstance(value.html, os.PathLike) else str(value.html).encode("utf-8", "replace")
    return Draft(kind="html", data=data, suffix=".html", mime="text/html")


def _audio(value: Audio) -> Draft:
    if isinstance(value.data, bytes | str | os.PathLike):
        return _file("audio", value.data, value.caption)
    if value.rate is None:
        raise ValueError("samples of a sound need a rate")
    samples = _array(value.data)
    if samples.dtype.kind == "f":
        samples = (samples.clip(-1, 1) * 32767).round().astype("int16")
    if samples.dtype != "int16" or samples.ndim not in (1, 2):
        raise ValueError(f"samples are int16 or floats, in one or two dimensions, not {samples.dtype}{samples.shape}")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(samples.shape[1] if samples.ndim > 1 else 1)
        sound.setsampwidth(2)
        sound.setframerate(value.rate)
        sound.writeframes(samples.astype("<i2").tobytes())
    return Draft(kind="audio", data=file.getvalue(), suffix=".wav", mime="audio/wav", caption=value.caption)


def _video(value: Video) -> Draft:
    if isinstance(value.data, bytes | str | os.PathLike):
        return _file("video", value.data, value.caption)
    if find_spec("PIL") is None:
        raise ValueError("frames of a video need Pillow: pip install pillow")
    if not 0 < value.fps < math.inf:
        raise ValueError(f"a video has some frames a second, not {value.fps}")
    frames = [_pixels(frame) for frame in _array(value.data)]
    if len({frame.shape for frame in frames}) != 1:
        raise ValueError("a video has frames, all of one size")
    return _played(frames, value)


def _any_file(value: File) -> Draft:
    path = Path(value.path)
    name = value.name or path.absolute().name
    if (size := _size_below(path)) > LARGEST_ATTACHMENT:
        return _too_large(path, name, size)
    if not path.is_dir():
        return Draft(kind="file", data=path, suffix=path.suffix, mime="application/octet-stream", caption=name)
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(path, arcname=path.absolute().name)
        file.seek(0)
        return Draft(kind="file", data=file.read(), suffix=".tar", mime="application/x-tar", caption=f"{name}.tar")


def _size_below(path: Path) -> int:
    """The size of a file, or of all files of a directory."""
    if not path.is_dir():
        return _size_of(path)
    return sum(each.lstat().st_size for each in path.rglob("*"))


def _too_large(path: Path, name: str, size: int) -> Draft:
    """In place of what is too large to copy, a file that says what it is."""
    about: dict[str, Any] = {"path": str(path.absolute()), "size": size}
    if path.is_file():
        with path.open("rb") as file:
            about["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    data, note = to_json(about), f"{path} has {size} bytes, more than {LARGEST_ATTACHMENT}; not its content is recorded"
    return Draft(kind="file", data=data, suffix=".json", mime="application/json", caption=f"{name}.json", note=note)


# ----------------------------------------------------------- other libraries'


def _pillow(value: Any, caption: str = "") -> Draft:
    channels = {"L": 1, "RGB": 3, "RGBA": 4}
    plain = value if value.mode in channels else value.convert("RGBA" if "A" in value.getbands() else "RGB")
    width, height = plain.size
    return _drawn(plain.tobytes(), width, height, channels[plain.mode], caption)


def _matplotlib(value: Any) -> Draft:
    file = io.BytesIO()
    value.savefig(file, format="png")
    return Draft(kind="figure", data=file.getvalue(), suffix=".png", mime="image/png")


def _plotly(value: Any) -> Draft:
    mime = "application/vnd.plotly.v1+json"
    return Draft(kind="figure", data=str(value.to_json()).encode(), suffix=".plotly.json", mime=mime)


def _wandb_histogram(value: Any) -> Draft:
    return _histogram(Histogram(counts=value.histogram, edges=value.bins))


def _wandb_html(value: Any) -> Draft:
    return _html(Html(value.html))


def _wandb_file(kind: MediaKind, value: Any) -> Draft:
    # wandb keeps what it was given in a file from the start.
    return _file(kind, Path(value._path), str(getattr(value, "_caption", None) or ""))  # noqa: SLF001


_OWN: Final[Mapping[type, Callable[[Any], Draft]]] = {
    Image: _image,
    Histogram: _histogram,
    Html: _html,
    Audio: _audio,
    Video: _video,
    File: _any_file,
}
_FOREIGN: Final[Mapping[tuple[str, str], Callable[[Any], Draft]]] = {
    ("PIL", "Image"): _pillow,
    ("matplotlib", "Figure"): _matplotlib,
    ("plotly", "BaseFigure"): _plotly,
    ("wandb", "Histogram"): _wandb_histogram,
    ("wandb", "Html"): _wandb_html,
    ("wandb", "Image"): partial(_wandb_file, "image"),
    ("wandb", "Audio"): partial(_wandb_file, "audio"),
    ("wandb", "Video"): partial(_wandb_file, "video"),
}


# --------------------------------------------------------------------- bytes


def _file(kind: MediaKind, given: Any, caption: str) -> Draft:
    """A file of one of the formats that a browser opens."""
    data: Content = bytes(given) if isinstance(given, bytes) else Path(given)
    start = data[:16] if isinstance(data, bytes) else _start_of(data)
    for each in _FORMATS[kind]:
        if start.startswith(each.start, each.at):
            return Draft(kind=kind, data=data, suffix=each.suffix, mime=each.mime, caption=caption)
    known = ", ".join(dict.fromkeys(each.name for each in _FORMATS[kind]))
    raise ValueError(f"it is not a file of {known}")


def _start_of(path: Path) -> bytes:
    _size_of(path)
    with path.open("rb") as file:
        return file.read(16)


def _drawn(pixels: bytes | memoryview, width: int, height: int, channels: int, caption: str) -> Draft:
    data, suffix = netpbm(pixels, width, height, channels)
    return Draft(kind="image", data=data, suffix=suffix, mime=NETPBM, caption=caption)


def _played(frames: Sequence[Any], value: Video) -> Draft:
    """The frames as they are, one behind the other; a courier makes a GIF of them."""
    height, width, channels = frames[0].shape
    colours = min(channels, 3)  # GIF has no alpha worth the name
    files = [netpbm(frame[:, :, :colours].tobytes(), width, height, colours) for frame in frames]
    data, suffix = b"".join(each for each, _ in files), files[0][1]
    mime = f"{FRAMES}{float(value.fps)}"
    return Draft(kind="video", data=data, suffix=suffix, mime=mime, caption=value.caption)


# -------------------------------------------------------------------- arrays


def _array(value: Any) -> Any:
    """An array of numpy; of a GPU tensor, a copy."""
    import numpy as np

    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def _pixels(array: Any) -> Any:
    """Height by width by channels, of `uint8`, one row after the other in memory."""
    import numpy as np

    match array.shape:
        case (_, _):
            array = array[:, :, None]
        case (first, _, last) if first in _CHANNELS and last not in _CHANNELS:
            array = array.transpose(1, 2, 0)
    match array.shape:
        case (height, width, channels) if height and width and channels in _CHANNELS:
            kind = array.dtype.kind
        case shape:
            raise ValueError(f"an image has a height, a width and 1, 3 or 4 channels, not the shape {shape}")
    if kind == "b":
        return np.ascontiguousarray(array, "uint8") * _WHITE
    if kind == "f":
        # NaN is black: a cast of it would be anything.
        array = np.where(array > 0, array.clip(0, 1), 0) * _WHITE + 0.5
        return np.ascontiguousarray(array, "uint8")
    if array.dtype != "uint8" and (kind not in "iu" or array.min() < 0 or array.max() > _WHITE):
        raise ValueError(f"an image has numbers from 0 to 255 or floats from 0 to 1, not {array.dtype}")
    return np.ascontiguousarray(array, "uint8")


def _sorted_into_bins(values: Any, bins: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The counts and edges of bins of one width."""
    if not 0 < bins <= _MOST_ITEMS:
        raise ValueError(f"a histogram has 1 to {_MOST_ITEMS} bins")
    if isinstance(values, list | tuple):
        return _counted(sorted(filter(math.isfinite, map(float, values))), bins)
    import numpy as np

    array = _array(values)
    finite = array[np.isfinite(array)]
    if not finite.size:
        raise ValueError(_NOTHING)
    counts, edges = np.histogram(finite, bins)
    return tuple(map(float, counts)), tuple(map(float, edges))


def _counted(finite: list[float], bins: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same, of numbers in order."""
    if not finite:
        raise ValueError(_NOTHING)
    low, high = finite[0], finite[-1]
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = [low + (high - low) * at / bins for at in range(bins)]
    # A value on an edge is in the bin behind it, but for the last edge.
    begins = [0, *(bisect_left(finite, edge) for edge in edges[1:]), len(finite)]
    return tuple(float(end - begin) for begin, end in pairwise(begins)), (*edges, high)
