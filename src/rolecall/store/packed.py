"""Rows that look like rows before them, in a fraction of their length.

A role logs the same metrics at each step. A row whose keys and types stood in two rows before it is packed: what
changes stands in it as it is in memory, and its keys are named by where in the file those two rows are. Its frame
holds, little-endian and without gaps::

    n s t   first second   form   values
    q q d   q     q        I      d or q each

`n`, `s` and `t` as in `rolecall.store.journal`; `first` and `second` are the offsets of the two rows, each of them enough,
so that one damaged byte costs one row here as elsewhere; `form` is the CRC-32 of their keys and types, so that a file
that was changed gives no value a wrong name. Values are floats (`d`) and ints (`q`), in the order of the keys.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from zlib import crc32

from rolecall.delivery.keys import AS_IT_IS, Placement
from rolecall.rows import Metrics
from rolecall.store.codec import encode_packed
from rolecall.store.compiled import speedups

__all__ = ["Form", "Forms", "Told", "Unpacker"]

_CHANGES = struct.Struct("<qqd")
_NAMES = struct.Struct("<qqI")
_NAMED = slice(_CHANGES.size, _CHANGES.size + _NAMES.size)
_MOST = 1 << 18
"""Keys of all the forms that are remembered; beyond that, rows are seen with new eyes."""
_LETTERS = {float: "d", int: "q"}
_Look = tuple[tuple[str, ...], tuple[type, ...]]

Told = tuple[int, int, float, dict[str, int | float]]
"""A row's number, step, time and metrics."""


@dataclass(frozen=True, slots=True)
class Form:
    """What rows of the same keys and types have in common.

    Attributes:
        names: their keys.
        kinds: the types of their values.
        letters: the same, as the letters of `struct`.
        named: the bytes by which a row names them.
        pack: a row's number, step, time, `named` and values as bytes.
    """

    names: tuple[str, ...]
    kinds: list[type]
    letters: bytes
    named: bytes
    pack: Callable[..., bytes]

    def frame(self, seq: int, now: float, step: int, values: Sequence[float | int]) -> bytes:
        """A row of this form.

        Raises:
            struct.error: the step, or a value, is no number of 64 bits.
        """
        return encode_packed(self.pack(seq, step, now, self.named, *values))


class Forms:
    """The forms that a writer may pack rows of."""

    def __init__(self) -> None:
        self._known: dict[_Look, Form] = {}
        self._latest: dict[tuple[str, ...], Form] = {}
        self._seen: dict[_Look, int] = {}
        self._keys = 0

    def find(self, names: tuple[str, ...], kinds: list[type]) -> Form | None:
        """The form of a row of these keys and types, if two of it stand in the file."""
        try:
            form = self._latest.get(names)
            if form is not None and form.kinds == kinds:
                return form
            form = self._known.get((names, tuple(kinds)))
        except Exception:  # noqa: BLE001 - anyone's keys and values: not even a class need have a hash
            return None
        if form is not None:
            self._latest[form.names] = form
        return form

    def learn(self, metrics: Metrics, place: int) -> Form | None:
        """A row stands in the file, whole, at this offset; the form of the rows like it, if it is the second."""
        look = (tuple(metrics), tuple(map(type, metrics.values())))
        before = self._seen.pop(look, None)
        if before is not None and before != place:
            self._known[look] = form = _form(metrics, before, place)
            return form
        if metrics and look not in self._known and self._has_room(len(metrics)):
            self._seen[look] = place
        return None

    def forget(self) -> None:
        """The file is not what it was."""
        self._known.clear()
        self._latest.clear()
        self._seen.clear()
        self._keys = 0

    def _has_room(self, keys: int) -> bool:
        if keys > _MOST:
            return False
        if self._keys + keys > _MOST:
            self.forget()
        self._keys += keys
        return True


class _Known(NamedTuple):
    """How rows of a form are read.

    Attributes:
        keys: as they stand in the run.
        letters: of their values.
        struct: of the whole row.
    """

    keys: tuple[str, ...]
    letters: bytes
    struct: struct.Struct


_Unpack = Callable[[bytes, dict[bytes, _Known], str | None], Told | None]


def _unpack_none(line: bytes, forms: dict[bytes, _Known], axis: str | None) -> None:
    """Where nothing was compiled each line is decoded first, as one that is not packed."""


_unpack: Final[_Unpack] = getattr(speedups(), "unpack", _unpack_none)


class Unpacker:
    """Reads packed rows of one file, and each row that they name once.

    Args:
        row_at: the metrics of the row at an offset; `None` if none stands there.
        placement: how rows are to stand in a run. Their keys are placed once for all rows of a form.
    """

    def __init__(self, row_at: Callable[[int], Metrics | None], placement: Placement = AS_IT_IS) -> None:
        self._row_at = row_at
        self._placement = placement
        self._forms: dict[bytes, _Known] = {}
        self._keys = 0

    def unpack_line(self, line: bytes) -> Told | None:
        """What a line, without its newline, holds, if it is sound and its row looks like one that was unpacked.

        `None` says nothing of it: it is to be decoded then, and what it holds given to `unpack`.
        """
        return _unpack(line, self._forms, self._placement.axis)

    def unpack(self, body: bytes) -> Told:
        """What a packed row holds.

        Raises:
            ValueError: nothing, or the rows that it names are not those that it was made after.
        """
        named = body[_NAMED]
        try:
            known = self._forms.get(named) or self._form(named)
            told = known.struct.unpack(body)
        except struct.error:
            raise ValueError("it is packed, and not as long as it says") from None
        seq, step, time = told[:3]
        metrics = dict(zip(known.keys, told[3:]))  # noqa: B905 - a form has as many of either, and asking takes a third longer
        if self._placement.axis is not None:
            metrics[self._placement.axis] = step
        return seq, step, time, metrics

    def _form(self, named: bytes) -> _Known:
        first, second, crc = _NAMES.unpack(named)
        form = self._read(first, crc) or self._read(second, crc)
        if form is None:
            raise ValueError("it is packed, and the rows that it names are not there")
        self._remember(named, form)
        return form

    def _remember(self, named: bytes, form: _Known) -> None:
        if self._keys + len(form.keys) > _MOST:
            self._forms.clear()
            self._keys = 0
        self._forms[named] = form
        self._keys += len(form.keys)

    def _read(self, place: int, crc: int) -> _Known | None:
        metrics = self._row_at(place) or {}
        keys, letters = tuple(metrics), _letters(metrics)
        if not keys or _crc(keys, letters) != crc:
            return None
        row = struct.Struct(f"{_CHANGES.format}{_NAMES.size}x{letters}")
        return _Known(self._placement.keys(keys), letters.encode("ascii"), row)


def _form(metrics: Metrics, first: int, second: int) -> Form:
    names, letters = tuple(metrics), _letters(metrics)
    named = _NAMES.pack(first, second, _crc(names, letters))
    pack = struct.Struct(f"{_CHANGES.format}{_NAMES.size}s{letters}").pack
    return Form(names, [*map(type, metrics.values())], letters.encode("ascii"), named, pack)


def _letters(metrics: Metrics) -> str:
    return "".join(_LETTERS[type(value)] for value in metrics.values())


def _crc(keys: tuple[str, ...], letters: str) -> int:
    return crc32("\n".join((letters, *keys)).encode("utf-8", "surrogatepass"))
