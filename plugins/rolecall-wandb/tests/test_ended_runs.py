"""Runs of the SDK that ended before the server showed all rows: rows that were handed over do not count then."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from wandb_emulator import Fault, WandbServer
from wandb_scene import RUN, services_of

import rolecall_wandb.sdk
import rolecall_wandb.separate
import rolecall_wandb.service
import rolecall_wandb.shared
import rolecall_wandb.watch
from rolecall import Row, RunTicket, Status, TableData, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.separate import SeparateRun
from rolecall_wandb.server import Server, server_of
from rolecall_wandb.shared import SharedRun

pytestmark = pytest.mark.processes

AnyRun = TypeVar("AnyRun", SharedRun, SeparateRun)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK that cannot send its rows is given two seconds, and the server little longer to show them."""
    monkeypatch.setattr(rolecall_wandb.sdk, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.sdk, "GRACE", 1.0)
    monkeypatch.setattr(rolecall_wandb.service, "END_TIMEOUT", 1.0)
    monkeypatch.setattr(rolecall_wandb.watch, "SETTLE", 2.0)
    monkeypatch.setattr(rolecall_wandb.shared, "SETTLE", 2.0)
    monkeypatch.setattr(rolecall_wandb.separate, "SETTLE", rolecall_wandb.sdk.TRANSMIT_EVERY + 3.0)


def ticket(directory: Path, *, shared: bool, writer: str = "trainer") -> RunTicket:
    return RunTicket(
        project="gsm8k",
        name="grpo-1",
        group=None,
        run_id=RUN,
        backend_run_id=None,
        shared=shared,
        primary=False,
        writer=writer,
        role=writer,
        config={},
        directory=directory,
        pid=os.getpid(),
    )


@pytest.fixture
def shared(server: WandbServer, tmp_path: Path) -> SharedRun:
    args = WandbArgs()
    return SharedRun(ticket(tmp_path, shared=True), args, server_of(args))


@pytest.fixture
def separate(server: WandbServer, tmp_path: Path) -> Iterator[SeparateRun]:
    args = WandbArgs(init_timeout=2.0)
    run = SeparateRun(ticket(tmp_path, shared=False), args, server_of(args))
    yield run
    run.close("finished")


def row(seq: int, metrics: dict[str, float], step: int, *, commit: bool, writer: str = "trainer") -> Row:
    return Row(writer=writer, session=1, seq=seq, step=step, time=1.7e9 + seq, metrics=metrics, commit=commit)


def rows(first: int, last: int, *, commit: bool = True) -> list[Row]:
    return [row(seq, {"n": seq}, seq, commit=commit) for seq in range(first, last + 1)]


def hand_over(run: AnyRun, given: list[Row]) -> None:
    """As the courier does: what is held is not handed over again."""
    held = {seq for first, last in run.held("trainer", 1) for seq in range(first, last + 1)}
    run.log([row for row in given if row.seq not in held])


def flush_as_the_server_goes(
    server: WandbServer, run: SharedRun, monkeypatch: pytest.MonkeyPatch, *, delivers: bool
) -> None:
    """It goes before the SDK's run has ended, or right after that; then it is there again, and refuses nothing."""
    finish = run._finish

    def end(status: Status) -> None:
        if delivers:
            finish(status)
        server.faults.add(Fault("query", answer=500))
        finish(status)

    with monkeypatch.context() as patched:
        patched.setattr(run, "_finish", end)
        with pytest.raises(Unavailable):
            run.flush(60.0)
    server.faults.clear()


def stored(server: WandbServer) -> Counter[int]:
    return Counter(int(entry.line["n"]) for entry in server.run(RUN).history if "n" in entry.line)


def test_later_rows_confirm_no_lost_ones(
    server: WandbServer, shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes while the last rows are pressed out, and is not back when it is asked for them."""
    server.faults.add(Fault("stream", answer=503))
    shared.log(rows(1, 5))
    flush_as_the_server_goes(server, shared, monkeypatch, delivers=False)
    hand_over(shared, rows(1, 6))
    shared.flush(60.0)
    assert shared.confirmed("trainer", 1) == 6
    assert stored(server) == Counter(range(1, 7))
    shared.close("finished")


def test_only_the_refused_stream_is_lost(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolecall_wandb.watch, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(rolecall_wandb.watch, "STALL", rolecall_wandb.sdk.TRANSMIT_EVERY + 3.0)
    trainer = SharedRun(ticket(tmp_path, shared=True), WandbArgs(), server_of(WandbArgs()))
    server.faults.add(Fault("stream", answer=403, client=server.run(RUN).upserts[0].client))
    other = SharedRun(ticket(tmp_path, shared=True, writer="explorer"), WandbArgs(), server_of(WandbArgs()))
    trainer.log(rows(1, 5))

    def all_get_on() -> None:
        for seq in range(1, 300):
            other.log([row(seq, {"other": seq}, seq, commit=False, writer="explorer")])
            trainer.tend()
            time.sleep(0.1)

    with pytest.raises(Unavailable):
        all_get_on()
    server.faults.clear()
    hand_over(trainer, rows(1, 5))
    trainer.flush(60.0)
    assert stored(server) == Counter(range(1, 6))
    trainer.close("finished")
    other.close("finished")


def test_ended_sdks_rows_are_not_resent(
    server: WandbServer, shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server could not say so when the run ended."""
    shared.log(rows(1, 5))
    flush_as_the_server_goes(server, shared, monkeypatch, delivers=True)
    hand_over(shared, rows(1, 6))
    shared.flush(60.0)
    assert stored(server) == Counter(range(1, 7))
    shared.close("finished")


def ended(run: AnyRun) -> None:
    """The SDK's process is gone, and the SDK knows it."""
    run._sdk.service.kill()
    process = run._sdk.service.process
    assert process is not None
    process.wait()


def retried(action: Callable[[], None]) -> None:
    """As the courier does, but without end in no test."""
    for _ in range(3):
        try:
            action()
        except Unavailable:
            continue
        return
    raise AssertionError("it was not available in three tries")


@pytest.mark.parametrize("news", ["axes", "config"])
def test_every_call_notices_a_dead_sdk(server: WandbServer, shared: SharedRun, news: str) -> None:
    shared.define({"n": "trainer/step"})
    shared.log(rows(1, 5))
    ended(shared)

    def go_on() -> None:
        if news == "axes":
            shared.define({"more": "trainer/step"})
        else:
            shared.merge_config({"trainer": {"lr": 0.5}})
        hand_over(shared, rows(1, 6))
        shared.flush(60.0)

    retried(go_on)
    assert stored(server) == Counter(range(1, 7))
    shared.close("finished")


def test_primary_with_dead_sdk_ends_run(server: WandbServer, tmp_path: Path) -> None:
    primary = SharedRun(replace(ticket(tmp_path, shared=True), primary=True), WandbArgs(), server_of(WandbArgs()))
    primary.define({"n": "trainer/step"})
    ended(primary)
    retried(lambda: primary.close("finished"))
    assert server.run(RUN).state == "finished"


def test_table_uses_another_sdk_after_death(server: WandbServer, separate: SeparateRun) -> None:
    table = replace(row(1, {}, 1, commit=True), table=TableData(name="samples", columns=("prompt",), rows=(("1+1",),)))
    ended(separate)
    retried(lambda: separate.log_table(table))
    separate.flush(60.0)
    (line,) = server.run(RUN).history
    assert line.line["samples"]["_type"] == "table-file"


TEXTS = {"note": "a|b *x*\n平", "answer": ""}


def test_shared_run_has_strings_beside_numbers(server: WandbServer, shared: SharedRun) -> None:
    first, second = rows(1, 2)
    shared.log([replace(first, text=TEXTS), replace(second, metrics={}, text={"note": "alone"})])
    shared.flush(60.0)
    lines = [entry.line for entry in server.run(RUN).history]
    assert [{key: line.get(key) for key in ("n", "note", "answer")} for line in lines] == [
        {"n": 1, **TEXTS},
        {"n": None, "note": "alone", "answer": None},
    ]
    assert shared.confirmed("trainer", 1) == 2
    assert server.run(RUN).summary["note"] == "alone"
    shared.close("finished")


def test_separate_run_has_strings_beside_numbers(server: WandbServer, separate: SeparateRun) -> None:
    first, second = rows(1, 2)
    separate.log([replace(first, text=TEXTS), replace(second, metrics={}, text={"note": "alone"})])
    separate.flush(60.0)
    lines = [(entry.step, entry.line) for entry in server.run(RUN).history]
    assert [(step, line.get("n"), line.get("note"), line.get("answer")) for step, line in lines] == [
        (1, 1, TEXTS["note"], ""),
        (2, None, "alone", None),
    ]
    assert separate.confirmed("trainer", 1) == 2


def test_run_that_ended_is_not_repaired(server: WandbServer, shared: SharedRun) -> None:
    shared.define({"n": "trainer/step"})
    hand_over(shared, rows(1, 1))
    shared.flush(60.0)
    shared._watch.was_away = True
    shared._repaired = 0.0
    shared.tend()
    assert stored(server) == Counter([1])


def test_failed_opening_leaves_no_process(server: WandbServer, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SharedRun(ticket(tmp_path, shared=True), WandbArgs(), Server("http://127.0.0.1:9", None))
    assert list(services_of(os.getpid())) == []


def test_lost_runs_rows_are_not_resent(
    server: WandbServer, separate: SeparateRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolecall_wandb.watch, "STALL", -1.0)
    monkeypatch.setattr(rolecall_wandb.watch, "LOOK_EVERY", 0.0)
    separate.log(rows(1, 5))
    refused = server.faults.add(Fault("upsert", answer=409))
    with pytest.raises(Unavailable):
        separate.tend()
    monkeypatch.undo()
    assert refused.hits
    server.faults.clear()
    hand_over(separate, rows(1, 8))
    separate.flush(60.0)
    assert separate.confirmed("trainer", 1) == 8
    assert stored(server) == Counter(range(1, 9))


def test_slow_step_is_not_lost(server: WandbServer, separate: SeparateRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line is still to come: nobody has lost it."""
    monkeypatch.setattr(rolecall_wandb.watch, "STALL", -1.0)
    monkeypatch.setattr(rolecall_wandb.watch, "LOOK_EVERY", 0.0)
    separate.log(rows(1, 1, commit=False))
    separate.tend()
    separate.log([row(2, {"more": 2.0}, 1, commit=False)])
    separate.tend()
    monkeypatch.undo()
    separate.flush(60.0)
    (line,) = server.run(RUN).history
    assert (line.step, line.line["n"], line.line["more"]) == (1, 1, 2.0)


def test_open_line_of_dead_sdk_returns(server: WandbServer, separate: SeparateRun) -> None:
    separate.log(rows(1, 1, commit=False))
    separate._sdk.service.kill()
    with pytest.raises(Unavailable):
        separate.flush(60.0)
    hand_over(separate, rows(1, 1, commit=False))
    separate.flush(60.0)
    assert stored(server) == Counter([1])


@pytest.mark.servers
def test_rows_are_confirmed_after_all_arrived(server: WandbServer, shared: SharedRun) -> None:
    """36 MB, in requests of 10 MiB at most."""
    server.faults.add(Fault("stream", delay=0.3))
    wide = {f"{at}/{'奖励' * 35}": 0.5 for at in range(100)}
    ahead = []
    for seq in range(1, 1501):
        shared.log([row(seq, {"n": seq, **wide}, seq, commit=False)])
        if seq % 50 == 0:
            shared._learn(shared._watch.look(counts=True))
            ahead.append(shared.confirmed("trainer", 1) - len(server.run(RUN).history))

    def end() -> None:
        hand_over(shared, [row(seq, {"n": seq, **wide}, seq, commit=False) for seq in range(1, 1501)])
        shared.flush(60.0)

    retried(end)
    assert max(ahead) <= 0
    assert stored(server) == Counter(range(1, 1501))
    shared.close("finished")
