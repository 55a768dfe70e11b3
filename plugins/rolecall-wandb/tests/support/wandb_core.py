"""What the tests look up in a job's directory. Only this module imports private modules of rolecall."""

from __future__ import annotations

from pathlib import Path

import pytest

import rolecall.timings
from rolecall import Row
from rolecall.job.history import read_rows
from rolecall.store.acks import acknowledged, is_carried
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest

__all__ = ["carried_writers", "courier_of", "delivered_rows", "logged_rows", "shorten_drain"]


def logged_rows(monitor_dir: Path) -> list[Row]:
    """All rows in the journals of a job."""
    return list(read_rows(monitor_dir))


def delivered_rows(monitor_dir: Path, writer: str) -> int:
    """How many rows of a writer are acknowledged."""
    return acknowledged(Layout(monitor_dir), "wandb", writer).rows


def courier_of(monitor_dir: Path, writer: str) -> int | None:
    """The process that delivers a writer's rows, if one lives."""
    session = newest(Layout(monitor_dir).delivery("wandb", writer))
    owner = session.owner() if session is not None and session.is_live() else None
    return owner.pid if owner else None


def shorten_drain(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let couriers on threads try for this many seconds to deliver the last rows."""
    monkeypatch.setattr(rolecall.timings, "DRAIN_TIMEOUT", seconds)


def carried_writers(monitor_dir: Path) -> list[str]:
    """The writers, and the launcher, that still have a courier."""
    layout = Layout(monitor_dir)
    return [writer for writer in (*layout.writers(), LAUNCH) if is_carried(layout, "wandb", writer)]
