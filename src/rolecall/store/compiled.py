"""What was compiled when rolecall was installed: `_speedups.c`, if there was a compiler."""

from __future__ import annotations

from types import ModuleType

__all__ = ["speedups"]

_MADE_FOR = 2
"""What `_speedups.c` says too: another number with each change of what is packed, or of what it offers."""


def speedups() -> ModuleType | None:
    """Not a module that is older or newer, as where a checkout was updated and not installed again."""
    try:
        from rolecall.store import _speedups
    except ImportError:
        return None
    return _speedups if getattr(_speedups, "MADE_FOR", None) == _MADE_FOR else None
