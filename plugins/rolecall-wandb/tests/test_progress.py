"""What a server holds of a session, as a new courier learns it, while the server shows lines late."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from wandb_emulator import WandbServer
from wandb_emulator.server import KEY

import rolecall_wandb.watch
from rolecall import RunTicket
from rolecall_wandb.progress import Progress
from rolecall_wandb.server import RunPath, Server
from rolecall_wandb.watch import Watch

PATH = RunPath("team", "gsm8k", "run-1")
SETTLE = 1.5
TRAINER = ("trainer", 1)


@pytest.fixture
def ticket(tmp_path: Path) -> RunTicket:
    return RunTicket(
        project=PATH.project,
        name="run",
        group=None,
        run_id=PATH.run,
        backend_run_id=None,
        shared=True,
        primary=False,
        writer="trainer",
        role="trainer",
        config={},
        directory=tmp_path / "wandb",
        pid=0,
    )


@pytest.fixture
def watch(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(rolecall_wandb.watch, "SETTLE", SETTLE)
    server.state.run(PATH.run, PATH.project)
    return Watch(Server(server.url, KEY), PATH)


def upload(server: WandbServer, *seqs: int, writer: str = "trainer") -> None:
    """What an SDK's process posts, as a client of its own."""
    lines = [f'{{"_rolecall/{writer}/1": {seq}, "{writer}/step": {seq}}}' for seq in seqs]
    run = server.run(PATH.run)
    run.is_shared = True
    chunk = {"offset": sum(entry.client == writer for entry in run.history), "content": lines}
    run.stream(writer, {"files": {"wandb-history.jsonl": chunk}})


def test_first_courier_waits_for_nothing(ticket: RunTicket, watch: Watch) -> None:
    began = time.monotonic()
    assert [*Progress(ticket, watch).of(TRAINER).rows] == []
    assert time.monotonic() - began < SETTLE


def test_next_courier_waits_for_what_is_shown_late(server: WandbServer, ticket: RunTicket, watch: Watch) -> None:
    server.state.late = 1.0
    Progress(ticket, watch)
    upload(server, 1, 2, 3)
    assert [*Progress(ticket, watch).of(TRAINER).rows] == [(1, 3)]


def test_another_run_has_no_predecessor(ticket: RunTicket, watch: Watch) -> None:
    Progress(ticket, watch)
    began = time.monotonic()
    Progress(replace(ticket, run_id="run-2"), watch).of(TRAINER)
    assert time.monotonic() - began < SETTLE


def test_other_writers_lines_are_not_waited_for(server: WandbServer, ticket: RunTicket, watch: Watch) -> None:
    over = threading.Event()

    def go_on() -> None:
        seq = 0
        while not over.wait(0.1):
            upload(server, seq := seq + 1, writer="trainer/0")

    Progress(ticket, watch)
    upload(server, 1)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        assert [*Progress(ticket, watch).of(TRAINER).rows] == [(1, 1)]
    finally:
        over.set()
        thread.join()
