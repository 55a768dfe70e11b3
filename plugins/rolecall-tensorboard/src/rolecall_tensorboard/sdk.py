"""Imports tensorboardX on first use.

Importing it takes 0.6 s and imports numpy and protobuf (2.6.5, measured), so only a process that writes event files
does it. Where PyTorch is installed, tensorboardX imports that too, for models and tensors, which never come here:
another 2 s and 200 MB in each courier.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from rolecall import BackendRefused

__all__ = ["Sdk", "installed", "load"]

OLDEST = "2.6"
INSTALL = f"pip install 'tensorboardX>={OLDEST}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """The parts of tensorboardX that this backend uses; the same from 2.6 to 2.6.5.

    Attributes:
        Event: the protobuf class of one record of an event file.
        DecodeError: what parsing a damaged record raises.
        SessionLog: the protobuf class that marks the step at which a restarted job continues.
        text: makes a summary for TensorBoard's Text tab, from a tag and a string.
        hparams: makes the summaries of its HParams tab, from values and from names of metrics.
        masked_crc32c: the checksum of a record.
    """

    Event: Any
    DecodeError: type[Exception]
    SessionLog: Any
    text: Callable[[str, str], Any]
    hparams: Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any, Any]]
    masked_crc32c: Callable[[bytes], int]


def installed() -> str:
    """Find the version of tensorboardX without importing it.

    Raises:
        BackendRefused: it is missing or older than 2.6; the message says what to install.
    """
    try:
        version = metadata.version("tensorboardX")
    except metadata.PackageNotFoundError:
        raise BackendRefused(f"tensorboardX is not installed; run: {INSTALL}") from None
    if _release(version) < _release(OLDEST):
        raise BackendRefused(f"tensorboardX {version} is too old, {OLDEST} or newer is needed; run: {INSTALL}")
    return version


def load() -> Sdk:
    """Import tensorboardX.

    Raises:
        BackendRefused: it is missing, too old, or cannot be imported.
    """
    version = installed()
    try:
        with _hidden("torch"):
            event = import_module("tensorboardX.proto.event_pb2")
            summary = import_module("tensorboardX.summary")
        return Sdk(
            Event=event.Event,
            DecodeError=import_module("google.protobuf.message").DecodeError,
            SessionLog=event.SessionLog,
            text=summary.text,
            hparams=summary.hparams,
            masked_crc32c=import_module("tensorboardX.record_writer").masked_crc32c,
        )
    # An import can raise anything: 2.6 with protobuf 4 or newer raises `TypeError`, as it needs `protobuf<4`. Only
    # another installation fixes that, so it is not worth another try.
    except Exception as error:
        detail = str(error).strip().partition("\n")[0]
        raise BackendRefused(f"tensorboardX {version} cannot be imported ({detail}); run: {INSTALL}") from error


class _Hiding:
    """A finder that finds nothing, and ends the search for one module by one thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        # With `courier: thread`, training may import it at this moment.
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """As `importlib.abc.MetaPathFinder.find_spec`."""
        if name == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not imported here", name=name)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """As if a module that was not imported yet were not installed, for this thread."""
    hiding = _Hiding(name)
    sys.meta_path.insert(0, hiding)
    try:
        yield
    finally:
        sys.meta_path.remove(hiding)


def _release(version: str) -> tuple[int, ...]:
    """`"2.6.2.2"` as `(2, 6, 2, 2)`; a suffix such as `rc1` is ignored."""
    digits = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in digits.group().split(".")) if digits else ()
