"""Which process is the agent of this node."""

from __future__ import annotations

from rolecall.delivery.node.local import agent_names
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, newest

__all__ = ["find_agent"]


def find_agent(layout: Layout) -> Session | None:
    """The session of the live agent of this node, if there is one."""
    for name in agent_names():
        session = newest(layout.journal(name))
        owner = session.owner() if session is not None else None
        if session is not None and owner is not None and owner.is_here() and session.is_live():
            return session
    return None
