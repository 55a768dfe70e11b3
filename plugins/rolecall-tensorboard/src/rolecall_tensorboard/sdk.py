"""tensorboardX, imported on first use and never before.

Importing it takes 0.6 s and brings numpy and protobuf (2.6.5, measured), so only the process that writes
event files does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
        SessionLog: the protobuf class that says where a restarted job goes on.
        text: makes a summary for TensorBoard's text tab.
        masked_crc32c: the checksum of a record.
    """

    Event: Any
    SessionLog: Any
    text: Callable[[str, str], Any]
    masked_crc32c: Callable[[bytes], int]


def installed() -> str:
    """The version of tensorboardX, found without importing it.

    Raises:
        BackendRefused: it is missing or older than 2.6; the message says what to install.
    """
    try:
        version = metadata.version("tensorboardX")
    except metadata.PackageNotFoundError:
        raise BackendRefused(f"tensorboardX is not installed; {INSTALL}") from None
    if _release(version) < _release(OLDEST):
        raise BackendRefused(
            f"tensorboardX {version} is too old, {OLDEST} is the oldest that works; {INSTALL}"
        )
    return version


def load() -> Sdk:
    """Import tensorboardX.

    Raises:
        BackendRefused: missing, too old, or at odds with what is installed beside it (2.6 with protobuf 4 or
            newer raises `TypeError` at import; it wants `protobuf<4`).
    """
    version = installed()
    try:
        return _parts()
    except Exception as error:  # an import can raise anything, and nothing but another install mends it
        told = str(error).strip().partition("\n")[0]
        raise BackendRefused(f"tensorboardX {version} cannot be imported ({told}); {INSTALL}") from error


def _parts() -> Sdk:
    event = import_module("tensorboardX.proto.event_pb2")
    return Sdk(
        Event=event.Event,
        SessionLog=event.SessionLog,
        text=import_module("tensorboardX.summary").text,
        masked_crc32c=import_module("tensorboardX.record_writer").masked_crc32c,
    )


def _release(version: str) -> tuple[int, ...]:
    """`"2.6.2.2"` as `(2, 6, 2, 2)`; what follows the first part that is no number does not count."""
    digits = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in digits.group().split(".")) if digits else ()
