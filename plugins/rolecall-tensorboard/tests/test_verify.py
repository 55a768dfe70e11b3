"""`rolecall verify` finds what happened to event files behind rolecall's back, and puts back what is missing."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from rolecall import BackendRefused, MonitorConfig, Row, RunGone, RunTicket, launch, open_monitor
from rolecall.__main__ import main
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs
from rolecall_tensorboard.run import TensorBoardRun

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Open = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]
Verify = Callable[..., tuple[int, list[dict[str, Any]]]]
STEPS = range(1, 201)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A finished job of two writers; returns its directory."""
    config = MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="tensorboard", monitor_dir=tmp_path / "job", courier="thread"
    )
    with launch(config) as job:
        for role in ("trainer", "evaluator"):
            with open_monitor(job.config, role) as monitor:
                for step in STEPS:
                    monitor.log({"loss": 1 / step, "huge": 1e300, "odd": float("nan"), "note": f"at {step}"}, step)
    return config.monitor_dir


@pytest.fixture
def verify(job: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Verify:
    """Run the command; returns its status and what it reports of each run."""

    def run(*options: str) -> tuple[int, list[dict[str, Any]]]:
        capsysbinary.readouterr()
        status = main(["verify", str(job), "--json", *options])
        return status, json.loads(capsysbinary.readouterr().out)

    return run


def trainer(job: Path) -> Path:
    return job / "backends" / "tensorboard" / "trainer"


def event_file(directory: Path) -> Path:
    (file,) = directory.glob("*tfevents*")
    return file


def bodies(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def change(path: Path, edit: Callable[[list[Any]], list[Any]]) -> None:
    """Rewrite the rows of an event file with tensorboardX's own writer."""
    events = [Event.FromString(body) for body in bodies(path)]
    rows = [event for event in events if any(value.tag == "loss" for value in event.summary.value)]
    head = [event for event in events if event not in rows]
    path.unlink()
    writer = RecordWriter(str(path))
    for event in [*head, *edit(rows)]:
        writer.write(event.SerializeToString())
    writer.close()


def counts(report: dict[str, Any]) -> tuple[str, int, int, int]:
    return report["state"], report["missing"], report["extra"], report["different"]


def by_writer(reports: list[dict[str, Any]]) -> dict[str, tuple[str, int, int, int]]:
    return {report["writers"][0]: counts(report) for report in reports}


def damage(rows: list[Any]) -> list[Any]:
    """40 rows deleted, 10 altered, 10 doubled."""
    for event in rows[100:110]:
        event.summary.value[0].simple_value = 7.0
    return [*rows[:20], *rows[60:130], *rows[120:130], *rows[130:]]


def test_untouched_files_are_equal(verify: Verify) -> None:
    """Values that 32 bits cannot hold, NaN and strings included."""
    status, reports = verify()
    assert status == 0
    assert by_writer(reports) == dict.fromkeys(["trainer", "evaluator"], ("equal", 0, 0, 0))
    assert {report["points"] for report in reports} == {3 * len(STEPS)}


def test_deleted_altered_and_doubled_rows(job: Path, verify: Verify, read: Read) -> None:
    change(event_file(trainer(job)), damage)
    status, reports = verify()
    assert status == 1
    assert by_writer(reports) == {"trainer": ("different", 120, 30, 10), "evaluator": ("equal", 0, 0, 0)}
    (report,) = (each for each in reports if each["writers"] == ["trainer"])
    assert report["metrics"]["loss"] == {"missing": 40, "extra": 10, "different": 10}

    status, reports = verify("--repair")
    assert status == 1, "what was altered and doubled is still there"
    assert by_writer(reports)["trainer"] == ("different", 0, 30, 10)
    held = read(str(trainer(job)))["loss"]
    assert {step for step, _ in held} == set(STEPS)
    assert [step for step, value in held if value == 7.0] == [*range(101, 111)]


def test_repaired_rows_are_where_they_belong(job: Path, verify: Verify, read: Read) -> None:
    """TensorBoard would drop what comes before a row that is too late."""
    change(event_file(trainer(job)), lambda rows: [*rows[:20], *rows[60:]])
    status, reports = verify("--repair")
    assert (status, by_writer(reports)["trainer"]) == (0, ("equal", 0, 0, 0))
    assert [each["sent"] for each in reports] == [0, 40]
    assert [step for step, _ in read(str(trainer(job)))["loss"]] == list(STEPS)
    assert verify()[0] == 0


@pytest.mark.parametrize("fault", ["cut", "hole", "noise"])
def test_damaged_file_is_noticed(
    job: Path, verify: Verify, read: Read, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    path = event_file(trainer(job))
    data = path.read_bytes()
    half = len(data) // 2
    rest = {"cut": b"", "hole": bytes(100) + data[half + 100 :], "noise": b"\xff" * 100 + data[half + 100 :]}
    path.write_bytes(data[:half] + rest[fault])
    status, reports = verify()
    assert status == 1
    state, missing, extra, different = by_writer(reports)["trainer"]
    assert (state, extra, different) == ("different", 0, 0)
    assert 250 < missing < 350
    assert f"{path} is cut off or damaged" in caplog.text
    caplog.clear()
    assert verify("--repair")[0] == 0
    assert [step for step, _ in read(str(trainer(job)))["loss"]] == list(STEPS)
    # what cannot be read is left for people
    assert [kept.name for kept in trainer(job).glob("*damaged*")] == [path.name.replace("tfevents", "damaged")]
    caplog.clear()
    assert verify()[0] == 0
    assert "damaged" not in caplog.text


def test_lost_metric_of_a_row_comes_back_alone(job: Path, verify: Verify, read: Read) -> None:
    def drop(rows: list[Any]) -> list[Any]:
        for event in rows[50:60]:
            del event.summary.value[0]
        return rows

    change(event_file(trainer(job)), drop)
    status, reports = verify()
    assert (status, by_writer(reports)["trainer"]) == (1, ("different", 10, 0, 0))
    assert verify("--repair")[0] == 0
    held = read(str(trainer(job)))
    assert [step for step, _ in held["loss"]] == [step for step, _ in held["huge"]] == list(STEPS)


def test_deleted_run_goes_to_a_new_one(job: Path, verify: Verify, read: Read) -> None:
    shutil.rmtree(trainer(job))
    status, reports = verify()
    assert status == 1
    assert by_writer(reports)["trainer"][0] == "gone"
    assert verify("--repair")[0] == 1
    assert not trainer(job).exists()
    status, reports = verify("--repair", "--new-run")
    assert (status, by_writer(reports)["trainer"]) == (0, ("equal", 0, 0, 0))
    assert [report["new_run"] for report in reports] == [False, True]
    assert [step for step, _ in read(str(trainer(job)))["loss"]] == list(STEPS)
    assert verify()[0] == 0


def test_repaired_run_goes_on(open_run: Open, row: MakeRow, read: Read, ticket: Callable[..., RunTicket]) -> None:
    """What was put back is known to be held, and a restart still drops what it has to."""
    first = open_run()
    first.log([row(seq) for seq in range(1, 11)])
    first.log([row(1, session=2, step=6, time=1.8e9), row(2, session=2, step=7, time=1.8e9 + 1)])
    first.close("finished")
    lost = {(1, 3), (1, 9), (1, 10), (2, 2)}
    path = event_file(Path(first.id))
    events = [Event.FromString(body) for body in bodies(path)]
    path.unlink()
    writer = RecordWriter(str(path))
    for event in events:
        session = 2 if event.wall_time >= 1.8e9 else 1
        seq = event.step - 5 if session == 2 else event.step
        if not (event.summary.value and (session, seq) in lost):
            writer.write(event.SerializeToString())
    writer.close()

    repair = plugin.open_run(
        RunTicket(**{**{name: getattr(ticket(), name) for name in RunTicket.__slots__}, "repair": True}),
        TensorBoardArgs(),
    )
    repair.log([row(3), row(9), row(10)])
    repair.log([row(2, session=2, step=7, time=1.8e9 + 1)])
    repair.flush(1.0)
    repair.close("finished")

    # the restart at step 6 dropped the steps from there on
    assert [step for step, _ in read(first.id)["reward"]] == [1, 2, 3, 4, 5, 6, 7]
    again = open_run()
    assert (again.held("explorer/0", 1), again.held("explorer/0", 2)) == ([(1, 10)], [(1, 2)])
    again.log([row(2, session=2, step=7, time=1.8e9 + 1), row(3, session=2, step=8, time=1.8e9 + 2)])
    assert [step for step, _ in read(first.id)["reward"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(list(Path(first.id).iterdir())) == 2


def test_repair_that_is_not_flushed_changes_nothing(
    open_run: Open, row: MakeRow, ticket: Callable[..., RunTicket]
) -> None:
    run = open_run()
    run.log([row(1), row(3)])
    run.close("finished")
    path = event_file(Path(run.id))
    before = path.read_bytes()
    given = {name: getattr(ticket(), name) for name in RunTicket.__slots__}
    repair = plugin.open_run(RunTicket(**{**given, "repair": True}), TensorBoardArgs())
    repair.log([row(2)])
    repair.close("finished")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_readback_opens_nothing_anew(ticket: Callable[..., RunTicket], folder: Path) -> None:
    with pytest.raises(RunGone, match="has no event file of this run"):
        plugin.open_readback(ticket(), TensorBoardArgs())
    assert not folder.exists()
    assert issubclass(RunGone, BackendRefused)
