"""Every way in which rows get into a journal."""

from __future__ import annotations

import pytest

from rolecall.store.journal import JournalWriter
from rolecall.store.lease import Session
from rolecall.store.rowstore import CompiledStore, PlainStore

__all__ = ["KINDS", "make_journal"]

KINDS = (
    "written",
    "mapped",
    pytest.param("compiled", marks=pytest.mark.skipif(CompiledStore is None, reason="it was not built")),
)


def make_journal(session: Session, kind: str) -> JournalWriter:
    """Through a map by Python or by C, or each row by a write."""
    make_store = CompiledStore if kind == "compiled" else PlainStore
    assert make_store is not None
    return JournalWriter(session, kind != "written", make_store)
