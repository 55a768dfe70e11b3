"""The checksum of a record. tensorboardX computes it at 2 MB a second (2.6.5), and images have megabytes.

A CRC is linear: that of a block is the exclusive or of the CRCs of its pieces, each shifted to its place. So numpy goes
through all pieces at once, and then the results are joined: 10 MB take 0.3 s, and not 4 s.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

__all__ = ["masked_crc32c"]

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, its bits reversed
_PIECE: Final = 1024
_Words = np.ndarray[Any, np.dtype[np.uint32]]


def masked_crc32c(data: bytes) -> int:
    """What tensorboardX's function of this name gives, for four bytes or more."""
    crc = _crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c(data: bytes) -> int:
    pieces = -(-len(data) // _PIECE)
    # Zeros in front change nothing, as the register begins with zero here. The standard begins with ones, which is the
    # same as inverting the first four bytes.
    padded = np.zeros(pieces * _PIECE, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    registers = np.zeros(pieces, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(pieces, _PIECE).T):
        registers = _next(registers, column)
    joined, (low, second, third, high) = 0, _shifts()
    for register in registers.tolist():
        joined = low[joined & 255] ^ second[joined >> 8 & 255] ^ third[joined >> 16 & 255] ^ high[joined >> 24]
        joined ^= register
    return joined ^ 0xFFFFFFFF


def _next(registers: _Words, column: Any) -> _Words:
    """Each register after one more byte."""
    following: _Words = _table()[(registers ^ column) & 255] ^ (registers >> 8)
    return following


@cache
def _table() -> _Words:
    """The register after one byte."""
    words: Any = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = words >> 1 ^ (words & 1) * np.uint32(_POLYNOMIAL)
    return np.asarray(words, np.uint32)


@cache
def _shifts() -> list[list[int]]:
    """For each byte of a register, what becomes of its values when a piece of zeros follows."""
    words = (np.arange(256, dtype=np.uint32)[None, :] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]).ravel()
    for _ in range(_PIECE):
        words = _next(words, 0)
    shifts: list[list[int]] = words.reshape(4, 256).tolist()
    return shifts
