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
from rolecall.job.history import JobHistory, JobReader, MetricHistory, WriterHistory, read_history, read_rows
from rolecall.rows import TableData
from rolecall.store.codec import encode
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout, RunRecord, write_record
from rolecall.store.lease import FORMAT, Session, claim, end, succeed, this_process

TABLE = TableData(name="samples", columns=("a",), rows=((1,),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A job whose launcher runs."""
    layout = Layout(tmp_path)
    record = RunRecord(
        run_id="r1", nonce="n1", project="gsm8k", name="grpo-1", group=None, created=1.0, plan=Plan(backends=())
    )
    write_record(layout, record)
    claim(layout.journal(LAUNCH), {"writer": LAUNCH}, "it")
    return layout


def open_journal(layout: Layout, writer: str) -> JournalWriter:
    return JournalWriter(claim(layout.journal(writer), {"writer": writer}, "it"))


def plant_dead(layout: Layout, writer: str, number: int) -> Session:
    """A session whose process is no more."""
    session = Session(layout.journal(writer) / f"{number}.jsonl", number)
    session.path.parent.mkdir(parents=True, exist_ok=True)
    header = {"rolecall": FORMAT, "owner": asdict(replace(this_process(), start="0"))}
    session.path.write_bytes(encode(header, session.seed))
    return session


def writer_of(history: JobHistory, name: str) -> WriterHistory:
    return next(writer for writer in history.writers if writer.writer == name)


def test_metrics_are_in_logged_order(layout: Layout) -> None:
    journal = open_journal(layout, "explorer/0")
    for step in (1, 2, 3):
        journal.append({"reward": step / 2, "n": step}, step)
    journal.append({"reward": 9.0}, 2)
    journal.append({}, 4, values=[TABLE])
    journal.end("finished")
    trainer = open_journal(layout, "trainer")
    trainer.append({"loss": math.nan}, 1)
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


def test_sessions_make_a_single_history(layout: Layout) -> None:
    for number in (1, 2, 3):
        journal = open_journal(layout, "trainer")
        journal.append({"loss": float(number)}, number)
        journal.end("failed" if number == 3 else "finished")
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.sessions, trainer.rows, trainer.state) == (3, 3, "failed")
    assert trainer.metrics["loss"].values == [1.0, 2.0, 3.0]
    assert [(row.writer, row.session, row.seq) for row in read_rows(layout.root)] == [
        ("trainer", 1, 1),
        ("trainer", 2, 1),
        ("trainer", 3, 1),
    ]


def test_rows_of_a_changed_file(layout: Layout) -> None:
    """Its writer went on in a session that continues: each row counts once."""
    session = claim(layout.journal("trainer"), {"writer": "trainer"}, "it")
    journal = JournalWriter(session, succeed=lambda before, fill: succeed(before, {"writer": "trainer"}, fill))
    for step in (1, 2, 3):
        journal.append({"loss": 0.5}, step)
    session.path.rename(session.path.with_name("rotated"))
    journal._look_at = 0.0
    for step in (4, 5):
        journal.append({"loss": 0.5}, step)
    journal.end("finished")
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.rows, trainer.state) == (5, "finished")
    assert trainer.metrics["loss"].steps == [1, 2, 3, 4, 5]


def test_jobs_state_is_its_launchers(layout: Layout) -> None:
    for status in ("finished", "failed"):
        other = Layout(layout.root / status)
        write_record(other, read_history(layout.root).record)
        assert read_history(other.root).state == "none"
        end(claim(other.journal(LAUNCH), {}, "it"), status)
        assert read_history(other.root).state == status
    plant_dead(layout, LAUNCH, 2)
    assert read_history(layout.root).state == "killed"


def test_job_without_a_launcher_has_the_worst_state(tmp_path: Path, layout: Layout) -> None:
    """As its backends show it: see `test_run_ends_with_the_worst_status`."""
    job = Layout(tmp_path / "job")
    write_record(job, read_history(layout.root).record)
    launch = claim(job.journal(LAUNCH), {"ends": "with the last role"}, "it")
    trainer = claim(job.journal("trainer"), {}, "it")
    end(launch, "finished")
    assert read_history(job.root).state == "running"
    end(trainer, "finished")
    assert read_history(job.root).state == "finished"
    plant_dead(job, "explorer", 1)
    assert read_history(job.root).state == "killed"


def test_killed_writer_is_not_running(layout: Layout) -> None:
    session = plant_dead(layout, "trainer", 1)
    line = encode({"seq": 1, "step": 1, "time": 1.0, "data": {"loss": 0.5}}, session.seed)
    with session.path.open("ab") as file:
        file.write(line + line[:-9])
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.state, trainer.rows, trainer.damages) == ("killed", 1, [])


def test_damage_is_told_beside_rows(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append({"loss": 0.5}, 1)
    offset = journal.session.path.stat().st_size
    with journal.session.path.open("ab") as file:
        file.write(b"nonsense\n")
    journal.append({"loss": 0.25}, 2)
    trainer = writer_of(read_history(layout.root), "trainer")
    assert trainer.rows == 2
    assert [(damage.path, damage.offset) for damage in trainer.damages] == [(journal.session.path, offset)]
    journal.abandon()


def test_long_job_is_read_in_pieces(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    metrics = {f"layer/{at}": 0.5 for at in range(1000)}
    for step in range(200):
        journal.append(metrics, step)
    journal.end("finished")
    trainer = writer_of(read_history(layout.root), "trainer")
    assert trainer.rows == 200
    assert all(metric.steps == list(range(200)) for metric in trainer.metrics.values())


def test_summary_is_json(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    for step, value in ((1, 2.0), (2, math.nan), (3, -1.0), (4, math.inf)):
        journal.append({"loss": value, "odd": math.nan, "big": 2**63 - 1}, step)
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


def test_directory_without_a_job(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match=r"not a monitor_dir \(no run\.json\)"):
        read_history(tmp_path)


def test_other_folders_are_no_writers(layout: Layout) -> None:
    open_journal(layout, "trainer").end("finished")
    folder = layout.root / "journal"
    for name in (".hidden", "a@b", "a@1@2", "@launch2", "\x1b[2J", "a b", "x" * 80):
        (folder / name).mkdir()
    (folder / "file").touch()
    assert layout.writers() == ["trainer"]
    assert [writer.writer for writer in read_history(layout.root).writers] == ["trainer"]


CRAFTED: list[dict[str, Any]] = [
    {"seq": 1, "step": 1, "time": "late", "data": {"loss": 0.5}},
    {"seq": 1, "step": 1, "time": 1.0, "data": [0.5]},
    {"seq": 1, "step": 10**30, "time": 1.0, "data": {"loss": 0.5}},
    {"seq": 1, "step": True, "time": 1.0, "data": {"loss": 0.5}},
    {"seq": 1, "step": 1, "time": 1.0, "attached": {"name": "../../../run.json", "size": 1, "sum": "0"}},
    {"seq": 1, "step": 1, "time": 1.0, "values": [{"table": {"name": "t", "columns": ["a"], "rows": [[1, 2]]}}]},
    {"seq": {}, "end": {}},
]


def test_crafted_journal_breaks_nothing(layout: Layout) -> None:
    folder = layout.journal("trainer")
    journal = open_journal(layout, "trainer")
    with journal.session.path.open("ab") as file:
        file.write(b"".join(encode(line, journal.session.seed) for line in CRAFTED))
    journal.append({"loss": 0.5}, 1)
    journal.abandon()
    os.mkfifo(folder / "2.jsonl")
    (folder / "3.jsonl").symlink_to("/dev/zero")
    (folder / "4.jsonl").mkdir()
    trainer = writer_of(read_history(layout.root), "trainer")
    assert (trainer.rows, trainer.sessions, len(trainer.damages)) == (1, 4, len(CRAFTED))
    json.dumps(read_history(layout.root).summary())
    assert [row.step for row in read_rows(layout.root)] == [1]


def test_reading_changes_nothing(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append({"loss": 0.5}, 1)
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


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """New writers are looked for each time."""
    monkeypatch.setattr("rolecall.job.history._LOOK_INTERVAL", 0.0)
    monkeypatch.setattr("rolecall.job.history._LOOK_SHARE", math.inf)


@pytest.mark.usefixtures("at_once")
def test_only_what_is_new_is_read(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append({"loss": 1.0}, 1)
    reader = JobReader(layout.root)
    assert reader.refresh()
    assert not reader.refresh()
    # What was read before could not be read again.
    with journal.session.path.open("r+b") as file:
        file.write(b"x" * (journal.session.path.stat().st_size - 1))
    journal.append({"loss": 2.0}, 2)
    assert reader.refresh()
    explorer = open_journal(layout, "explorer/0")
    explorer.append({"reward": 0.5}, 1)
    assert reader.refresh()
    trainer = writer_of(reader.history, "trainer")
    assert (trainer.metrics["loss"].values, trainer.damages) == ([1.0, 2.0], [])
    assert [writer.writer for writer in reader.history.writers] == ["explorer/0", "trainer"]
    journal.end("finished")
    assert reader.refresh()
    assert writer_of(reader.history, "trainer").state == "finished"
    assert not reader.refresh()
    explorer.abandon()


@pytest.mark.usefixtures("at_once")
def test_rows_are_read_once_while_sessions_change(layout: Layout) -> None:
    """The file is cut, then replaced by one that continues it, and then the role is started again."""
    session = claim(layout.journal("trainer"), {"writer": "trainer"}, "it")
    journal = JournalWriter(session, succeed=lambda before, fill: succeed(before, {"writer": "trainer"}, fill))
    journal.append({"loss": 1.0}, 1)
    journal.append({"loss": 2.0}, 2)
    reader = JobReader(layout.root)
    reader.refresh()
    os.truncate(session.path, session.path.stat().st_size - 20)
    reader.refresh()
    journal._look_at = 0.0
    journal.append({"loss": 3.0}, 3)
    reader.refresh()
    journal.end("finished")
    again = open_journal(layout, "trainer")
    again.append({"loss": 4.0}, 4)
    reader.refresh()
    trainer = writer_of(reader.history, "trainer")
    assert trainer.metrics["loss"].values == [1.0, 2.0, 3.0, 4.0]
    assert (trainer.rows, trainer.sessions) == (4, 3)
    again.abandon()


@pytest.mark.usefixtures("at_once")
def test_another_job_takes_the_place_of_the_first(layout: Layout) -> None:
    journal = open_journal(layout, "trainer")
    journal.append({"loss": 1.0}, 1)
    journal.end("finished")
    reader = JobReader(layout.root)
    reader.refresh()
    (layout.root / "journal").rename(layout.root / "old")
    write_record(layout, replace(reader.history.record, run_id="r2"))
    open_journal(layout, "explorer").end("finished")
    assert reader.refresh()
    assert [(writer.writer, writer.rows) for writer in reader.history.writers] == [("explorer", 0)]
    layout.record.unlink()
    with pytest.raises(DirectoryError):
        reader.refresh()


def test_long_metric_keeps_its_extremes() -> None:
    metric = MetricHistory()
    values = [math.sin(at / 50) for at in range(100_000)]
    values[12_345], values[54_321], values[77_777] = 9.0, -9.0, math.nan
    for step, value in enumerate(values, start=1):
        metric.add(step, value)
    assert len(metric.steps) == len(metric.values) <= 512
    points = dict(zip(metric.steps, metric.values, strict=True))
    assert (points[12_346], points[54_322], points[100_000]) == (9.0, -9.0, values[-1])
    assert math.isnan(points[77_778])
    assert metric.steps == sorted(metric.steps)
    found = metric.statistics()
    assert (found.count, found.first_step, found.last_step) == (100_000, 1, 100_000)
    assert (found.low, found.high, found.last) == (-9.0, 9.0, values[-1])
    finite = [value for value in values if math.isfinite(value)]
    assert found.mean == pytest.approx(math.fsum(finite) / len(finite))


def test_metric_that_is_never_finite_is_thinned() -> None:
    metric = MetricHistory()
    for step in range(5000):
        metric.add(step, math.inf)
    assert len(metric.steps) <= 512
    found = metric.statistics()
    assert (found.count, found.low, found.high, found.mean, found.last) == (5000, None, None, None, math.inf)


def test_key_on_two_axes_is_two_metrics(layout: Layout) -> None:
    """Named as in the backends."""
    journal = open_journal(layout, "trainer")
    journal.append({"loss": 0.5})
    journal.append({"loss": 0.25, "accuracy": 0.5}, 7, more={"axis": "eval"})
    journal.append({"accuracy": 1.0})
    (writer,) = read_history(layout.root).writers
    assert {key: (each.steps, each.values) for key, each in writer.metrics.items()} == {
        "loss": ([1], [0.5]),
        "eval/loss": ([7], [0.25]),
        "accuracy": ([7], [0.5]),
        "step/accuracy": ([2], [1.0]),
    }
