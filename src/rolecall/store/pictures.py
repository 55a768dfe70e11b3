"""PNG and GIF files of the pixels that `log` stored.

`log` stores an image as a file of netpbm: a short text, and the pixels as they are. Checksums and compression, which
PNG asks for, take longer than all the rest of a call, so whoever shows the image makes the PNG.
"""

import io
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Final

NETPBM: Final = "image/x-portable-anymap"
FRAMES: Final = f"{NETPBM};fps="
"""Of a video: several pictures, one behind the other, and how many of them a second has."""
RGBA: Final = 4
_GRAY_OR_RGB: Final = re.compile(rb"P(?P<kind>[56])\n(?P<width>\d{1,9}) (?P<height>\d{1,9})\n255\n", re.ASCII)
_RGB_ALPHA: Final = re.compile(
    rb"P7\nWIDTH (?P<width>\d{1,9})\nHEIGHT (?P<height>\d{1,9})\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n",
    re.ASCII,
)
_COLOUR_TYPES: Final = {1: 0, 3: 2, RGBA: 6}
"""PNG's, by the number of channels."""
_LEVEL: Final = 1  # of compression: a photo gets hardly smaller with more


def netpbm(pixels: bytes | memoryview, width: int, height: int, channels: int) -> tuple[bytes, str]:
    """A file of pixels, 8 bits a channel, row by row; and the suffix of its name."""
    if channels == RGBA:
        start = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
        suffix = ".pam"
    else:
        kind, suffix = (5, ".pgm") if channels == 1 else (6, ".ppm")
        start = f"P{kind}\n{width} {height}\n255\n"
    # `join` copies an array's memory once, without bytes of the pixels alone in between.
    return b"".join((start.encode(), pixels)), suffix


def png_of(path: Path) -> bytes:
    """The PNG file of a file of netpbm that `netpbm` made.

    Raises:
        ValueError: it is another file.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    match = _GRAY_OR_RGB.match(data) or _RGB_ALPHA.match(data)
    if match is None:
        raise ValueError(f"{path} does not hold the pixels of an image")
    width, height = int(match["width"]), int(match["height"])
    channels = {b"5": 1, b"6": 3}[match["kind"]] if "kind" in match.groupdict() else RGBA
    stride, pixels = width * channels, memoryview(data)[match.end() :]
    if not stride or len(pixels) != stride * height:
        raise ValueError(f"{path} does not hold the pixels that it says")
    # Each row begins with the filter that PNG applies to it: none.
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, _LEVEL)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif_of(path: Path, fps: float) -> bytes:
    """The GIF file of a file of frames; needs Pillow.

    Raises:
        ValueError: it is another file, or Pillow is not there.
        OSError: it cannot be read.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("frames of a video need Pillow: pip install pillow") from error
    if not 0 < fps < math.inf:
        raise ValueError(f"{path} does not say how long its frames are shown")
    size, mode, pixels = _frames(path)
    first, *others = (Image.frombytes(mode, size, each) for each in pixels)
    file = io.BytesIO()
    # In hundredths of a second; browsers show what is shorter than two as ten.
    duration = 10 * max(2, round(100 / fps))
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return file.getvalue()


def _frames(path: Path) -> tuple[tuple[int, int], str, list[bytes]]:
    """Width and height, Pillow's name of the colours, and the pixels of each frame."""
    data = path.read_bytes()
    match = _GRAY_OR_RGB.match(data)
    if match is None:
        raise ValueError(f"{path} does not hold the frames of a video")
    head, mode = match[0], {b"5": "L", b"6": "RGB"}[match["kind"]]
    width, height = int(match["width"]), int(match["height"])
    length = len(head) + width * height * len(mode)
    frames = [data[at : at + length] for at in range(0, len(data), length)]
    if length == len(head) or any(len(each) != length or not each.startswith(head) for each in frames):
        raise ValueError(f"{path} does not hold the frames that it says")
    return (width, height), mode, [each[len(head) :] for each in frames]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
