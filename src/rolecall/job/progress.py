"""How far each backend holds each writer's rows, as the job's directory tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rolecall.config.plan import Plan
from rolecall.store.acks import LEFT, RunReference, delivered, read_reference, undelivered
from rolecall.store.codec import Frame, last_frame, read_frames
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, sessions

__all__ = ["Progress", "read_progress"]

Courier = Literal["at work", "ended", "left rows", "died", "none yet"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One writer's rows in one backend.

    Attributes:
        backend: the backend.
        writer: the writer.
        delivered: how many rows the backend holds.
        waiting: how many it does not hold yet; they are in the journal.
        rejected: how many it will never take; they stay in the journal.
        courier: what became of the courier.
        why: why rows wait, as far as the courier said.
        run: what the backend calls the run.
    """

    backend: str
    writer: str
    delivered: int
    waiting: int
    rejected: int
    courier: Courier
    why: str | None
    run: RunReference | None

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        run = {"id": self.run.id, "url": self.run.url} if self.run else None
        told = {
            name: getattr(self, name) for name in ("backend", "writer", "delivered", "waiting", "rejected")
        }
        return {**told, "courier": self.courier, "why": self.why, "run": run}


def read_progress(layout: Layout, plan: Plan) -> list[Progress]:
    """Of every writer in each backend of the job's plan, and in those that it was delivered to later."""
    return [
        _progress(layout, name, writer) for name in _backends(layout, plan) for writer in layout.writers()
    ]


def _backends(layout: Layout, plan: Plan) -> Iterator[str]:
    planned = [one.backend for one in plan.backends if one.carrier != "none"]
    yield from planned
    folder = layout.root / "delivery"
    if folder.is_dir():
        yield from sorted(
            path.name for path in folder.iterdir() if path.is_dir() and path.name not in planned
        )


def _progress(layout: Layout, backend: str, writer: str) -> Progress:
    found = sessions(layout.delivery(backend, writer))
    rejected = len({which for session in found for which in _rejections(session)})
    waiting = undelivered(layout, backend, writer)
    return Progress(
        backend=backend,
        writer=writer,
        delivered=max(0, delivered(layout, backend, writer).rows - rejected),
        waiting=waiting,
        rejected=rejected,
        courier=_courier(found),
        why=_why(found) if waiting else None,
        run=read_reference(layout, backend, writer),
    )


def _rejections(session: Session) -> Iterator[str]:
    """Which rows were set aside: a courier that died meanwhile may have said so twice."""
    offset = 0
    while frames := list(read_frames(session.path, offset)):
        told = (frame.value.get("rejected") for frame in frames if isinstance(frame, Frame))
        yield from (f"{one.get('session')}:{one.get('seq')}" for one in told if isinstance(one, dict))
        offset = frames[-1].end


def _courier(found: list[Session]) -> Courier:
    if not found:
        return "none yet"
    is_live, status = found[-1].look()
    if status is None:
        return "at work" if is_live else "died"
    return "left rows" if status == LEFT else "ended"


def _why(found: list[Session]) -> str | None:
    last: Mapping[str, Any] = (last_frame(found[-1].path) if found else None) or {}
    why = last.get("why")
    return str(why) if why is not None else None
