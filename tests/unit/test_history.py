"""A job is read back from its journals, while it runs too, whatever state they are in."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rolecall.config.plan import Plan
from rolecall.errors import DirectoryError
from rolecall.job.history import JobHistory, WriterHistory, read_history, read_rows
from rolecall.rows import TableData
from rolecall.store.codec import encode
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import claim, end, this_process
from rolecall.store.manifest import RunRecord, write_record

TABLE = TableData(name="samples", columns=("a",), rows=((1,),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A job whose launcher runs."""
    layout = Layout(tmp_path)
    record = RunRecord(
        run_id="r1",
        nonce="n1",
        project="gsm8k",
        name="grpo-1",
        group=None,
        created=1.0,
        plan=Plan(backends=()),
    )
    write_record(layout, record)
    claim(layout.journal(LAUNCH), {"writer": LAUNCH}, "it")
    return layout


def open_journal(layout: Layout, writer: str) -> JournalWriter:
    return JournalWriter(claim(layout.journal(writer), {"writer": writer}, "it"))


def writer_of(history: JobHistory, name: str) -> WriterHistory:
    return next(writer for writer in history.writers if writer.writer == name)


def test_metrics_stand_in_the_order_in_which_they_were_logged(layout: Layout) -> None:
    journal = open_journal(layout, "explorer/0")
    for step in (1, 2, 3):
        journal.append(step, {"reward": step / 2, "n": step})
    journal.append(2, {"reward": 9.0})
    journal.append_table(4, TABLE)
    journal.end("finished")
    trainer = open_journal(layout, "trainer")
    trainer.append(1, {"loss": math.nan})
    history = read_history(layout.root)
    assert [writer.writer for writer in history.writers] == ["explorer/0", "trainer"]
    explorer = writer_of(history, "explorer/0")
    assert (explorer.state, explorer.sessions, explorer.rows, explorer.tables) == ("finished", 1, 5, 1)
    assert explorer.metrics["reward"].steps == [1, 2, 3, 2]
    assert explorer.metrics["reward"].values == [0.5, 1.0, 1.5, 9.0]
    assert explorer.metrics["n"].values == [1, 2, 3]
    assert explorer.first_time is not None
    assert explorer.last_time is not None
    assert explorer.first_time <= explorer.last_time
    assert writer_of(history, "trainer").state == "running"
    assert history.state == "running"
    trainer.abandon()


def test_sessions_of_a_writer_are_one_history(layout: Layout) -> None:
    for number in (1, 2, 3):
        journal = open_journal(layout, "trainer")
        journal.append(number, {"loss": float(number)})
        journal.end("failed" if number == 3 else "finished")
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.sessions, trainer.rows, trainer.state) == (3, 3, "failed")
    assert trainer.metrics["loss"].values == [1.0, 2.0, 3.0]
    assert [(row.writer, row.session, row.seq) for row in read_rows(layout.root)] == [
        ("trainer", 1, 1),
        ("trainer", 2, 1),
        ("trainer", 3, 1),
    ]


def test_the_jobs_state_is_its_launchers(layout: Layout) -> None:
    for status in ("finished", "failed"):
        other = Layout(layout.root / status)
        write_record(other, read_history(layout.root).record)
        assert read_history(other.root).state == "unknown"
        end(claim(other.journal(LAUNCH), {}, "it"), status)
        assert read_history(other.root).state == status
    dead = {"rolecall": 1, "owner": asdict(replace(this_process(), start="0"))}
    (layout.journal(LAUNCH) / "2.jsonl").write_bytes(encode(dead))
    assert read_history(layout.root).state == "killed"


def test_a_killed_writer_is_told_from_a_running_one(layout: Layout) -> None:
    dead = {"rolecall": 1, "owner": asdict(replace(this_process(), start="0"))}
    row = {"n": 1, "s": 1, "t": 1.0, "m": {"loss": 0.5}}
    layout.journal("trainer").mkdir(parents=True)
    (layout.journal("trainer") / "1.jsonl").write_bytes(encode(dead) + encode(row) + encode(row)[:-9])
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.state, trainer.rows, trainer.damages) == ("killed", 1, [])


def test_damage_is_told_beside_what_is_sound(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append(1, {"loss": 0.5})
    offset = journal.session.path.stat().st_size
    with journal.session.path.open("ab") as file:
        file.write(b"nonsense\n")
    journal.append(2, {"loss": 0.25})
    trainer = writer_of(read_history(layout.root), "trainer")
    assert trainer.rows == 2
    assert [(damage.path, damage.offset) for damage in trainer.damages] == [(journal.session.path, offset)]
    journal.abandon()


def test_a_job_longer_than_what_is_read_at_once(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    metrics = {f"layer/{at}": 0.5 for at in range(1000)}
    for step in range(200):
        journal.append(step, metrics)
    journal.end("finished")
    trainer = writer_of(read_history(layout.root), "trainer")
    assert trainer.rows == 200
    assert all(metric.steps == list(range(200)) for metric in trainer.metrics.values())


def test_the_summary_is_json_and_says_what_there_is(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    for step, value in ((1, 2.0), (2, math.nan), (3, -1.0), (4, math.inf)):
        journal.append(step, {"loss": value, "odd": math.nan, "big": 2**63 - 1})
    journal.end("finished")
    history = read_history(layout.root)
    summary = history.summary()
    (trainer,) = json.loads(json.dumps(summary))["writers"]
    assert {key: summary[key] for key in ("run_id", "project", "name", "state")} == {
        "run_id": "r1",
        "project": "gsm8k",
        "name": "grpo-1",
        "state": "running",
    }
    assert {key: trainer[key] for key in ("writer", "state", "sessions", "rows", "tables", "damaged")} == {
        "writer": "trainer",
        "state": "finished",
        "sessions": 1,
        "rows": 4,
        "tables": 0,
        "damaged": [],
    }
    assert trainer["metrics"]["loss"] == {
        "count": 4,
        "first_step": 1,
        "last_step": 4,
        "last": math.inf,
        "min": -1.0,
        "max": 2.0,
    }
    assert trainer["metrics"]["odd"]["min"] is None
    assert trainer["metrics"]["big"]["last"] == 2**63 - 1


def test_a_directory_without_a_job_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match=r"no run\.json is here, so it is no monitor_dir"):
        read_history(tmp_path)


def test_what_lies_about_in_the_journals_folder_is_no_writer(layout: Layout) -> None:
    open_journal(layout, "trainer").end("finished")
    folder = layout.root / "journal"
    for name in (".hidden", "a@b", "a@1@2", "@launch2", "\x1b[2J", "a b", "x" * 80):
        (folder / name).mkdir()
    (folder / "file").touch()
    assert layout.writers() == ["trainer"]
    assert [writer.writer for writer in read_history(layout.root).writers] == ["trainer"]


CRAFTED: list[dict[str, Any]] = [
    {"n": 1, "s": 1, "t": 10**400, "m": {"loss": 0.5}},
    {"n": 1, "s": 1, "t": 1.0, "m": {"loss": 10**400}},
    {"n": 1, "s": 1, "t": 1.0, "m": {"loss": True}},
    {"n": 1, "s": 1, "t": 1.0, "m": {}, "table": {"name": "t", "file": "../../../run.json"}},
    {"end": {}},
]


def test_a_crafted_journal_breaks_neither_history_nor_summary(layout: Layout) -> None:
    folder = layout.journal("trainer")
    journal = open_journal(layout, "trainer")
    with journal.session.path.open("ab") as file:
        file.write(b"".join(map(encode, CRAFTED)))
    journal.append(1, {"loss": 0.5})
    journal.abandon()
    os.mkfifo(folder / "2.jsonl")
    (folder / "3.jsonl").symlink_to("/dev/zero")
    (folder / "4.jsonl").mkdir()
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.rows, trainer.sessions, len(trainer.damages)) == (1, 4, len(CRAFTED))
    json.dumps(read_history(layout.root).summary())
    assert [row.step for row in read_rows(layout.root)] == [1]


def test_reading_a_history_changes_nothing(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append(1, {"loss": 0.5})
    journal.abandon()
    with journal.session.path.open("ab") as file:
        file.write(b"torn")
    files = sorted(path for path in layout.root.rglob("*") if path.is_file())
    for path in files:
        os.utime(path, (1, 1))
    before = [path.read_bytes() for path in files]
    read_history(layout.root)
    list(read_rows(layout.root))
    assert sorted(path for path in layout.root.rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == before
    assert {path.stat().st_mtime for path in files} == {1}
