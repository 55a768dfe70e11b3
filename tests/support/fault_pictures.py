"""Pictures that tell their step, for jobs that faults happen to."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rolecall import Image

__all__ = ["Pictures", "count_pictures", "picture", "step_in"]

_SIDE: Final = 128
"""Of a picture, in pixels: its file has 49,167 bytes, so a disk can be full in the midst of it."""
_NUMBER: Final = 4
"""Bytes of a step; they fill the picture again and again."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What became of the pictures of a job: how many the backend lacks, has more than once, and has damaged."""

    lost: int
    doubled: int
    damaged: int

    def __str__(self) -> str:
        return f"{self.lost} lost, {self.doubled} doubled, {self.damaged} damaged"


def picture(step: int) -> Image:
    """A picture whose pixels say the step."""
    import numpy as np

    pixels = step.to_bytes(_NUMBER, "big") * (_SIDE * _SIDE * 3 // _NUMBER)
    return Image(np.frombuffer(pixels, np.uint8).reshape(_SIDE, _SIDE, 3))


def step_in(file: bytes) -> int | None:
    """The step that a picture's file says; `None` if it is not whole."""
    from PIL import Image as Pillow

    try:
        pixels = Pillow.open(io.BytesIO(file)).tobytes()
    except (OSError, SyntaxError):  # Pillow raises the latter for a broken PNG
        return None
    number = pixels[:_NUMBER]
    is_whole = pixels == number * (_SIDE * _SIDE * 3 // _NUMBER)
    return int.from_bytes(number, "big") if is_whole else None


def count_pictures(held: Iterable[tuple[int, bytes]], logged: set[int]) -> Pictures:
    """Compare what a backend holds, as steps and files, with the steps that were logged."""
    whole, damaged = Counter[int](), 0
    for step, file in held:
        if step_in(file) == step:
            whole[step] += 1
        else:
            damaged += 1
    return Pictures(len(logged - whole.keys()), whole.total() - len(whole), damaged)
