"""What the files hold after a restart of the courier or of the whole role."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rolecall import Row
from rolecall_tensorboard.ledger import Ledger, Marker
from rolecall_tensorboard.run import TensorBoardRun

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Open = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]


def files(directory: str) -> list[Path]:
    return sorted(Path(directory).iterdir())


def test_files_of_one_second_stay_apart(open_run: Open, row: MakeRow, read: Read) -> None:
    for session in range(1, 21):
        open_run().log([row(1, {f"m{session}": 1.0}, session=session, step=session)])
    directory = open_run().id
    assert len(files(directory)) == 21
    assert len(read(directory)) == 20


def test_roles_starting_together_write_separate_files(open_run: Open, row: MakeRow, read: Read) -> None:
    runs = {writer: open_run(writer) for writer in ("explorer/0", "explorer/1", "explorer", "trainer")}
    for seq in range(1, 101):
        for writer, run in runs.items():
            run.log([row(seq, writer=writer)])
    for run in runs.values():
        assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 101))


def test_reopened_run_knows_what_it_holds(open_run: Open, row: MakeRow, read: Read) -> None:
    open_run().log([row(seq) for seq in range(1, 51)])
    run = open_run()
    assert run.held("explorer/0", 1) == [(1, 50)]
    assert run.held("explorer/0", 2) == []
    run.log([row(seq) for seq in range(40, 61)])
    assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 61))
    assert open_run().held("explorer/0", 1) == [(1, 60)]


def test_row_in_gap_is_not_held(open_run: Open, row: MakeRow, read: Read) -> None:
    """A row that was refused leaves a gap: what follows is held, and is there once if it comes again."""
    open_run().log([row(seq) for seq in (1, 2, 4, 5)])
    run = open_run()
    assert run.held("explorer/0", 1) == [(1, 2), (4, 5)]
    run.log([row(seq) for seq in (4, 5, 6)])
    assert [step for step, _ in read(run.id)["reward"]] == [1, 2, 4, 5, 6]
    run.log([row(3)])
    assert open_run().held("explorer/0", 1) == [(1, 6)]


def test_ledger_joins_ranges_and_notes_them() -> None:
    """What a repaired file says of a session with gaps is what its ledger knew."""
    ledger = Ledger()
    for seq in (1, 2, 7, 4, 9, 8):
        ledger.mark(Marker(writer="trainer", session=1, seq=seq))
        ledger.count(seq)
    assert ledger.held("trainer", 1) == [(1, 2), (4, 4), (7, 9)]
    repaired = Ledger()
    for note in ledger.notes():
        repaired.restore(note)
    assert repaired.held("trainer", 1) == ledger.held("trainer", 1)
    assert repaired.top_step == 9


def test_torn_end_counts_for_nothing(open_run: Open, row: MakeRow, read: Read) -> None:
    first = open_run()
    first.log([row(seq) for seq in range(1, 11)])
    (file,) = files(first.id)
    file.write_bytes(file.read_bytes()[:-7])
    run = open_run()
    assert run.held("explorer/0", 1) == [(1, 9)]
    run.log([row(10), row(11)])
    assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 12))


def test_block_of_zeros_counts_for_nothing(open_run: Open, row: MakeRow) -> None:
    """As after a power cut, when a file's size came to the disk before its content."""
    first = open_run()
    first.log([row(1)])
    (file,) = files(first.id)
    file.write_bytes(file.read_bytes() + bytes(4096))
    assert open_run().held("explorer/0", 1) == [(1, 1)]


def test_restart_from_checkpoint_drops_later_rows(open_run: Open, row: MakeRow, read: Read) -> None:
    open_run().log([row(seq, {"reward": 1.0}) for seq in range(1, 11)])
    run = open_run()
    run.log([row(seq, {"reward": 2.0}, session=2, step=seq + 5) for seq in range(1, 4)])
    assert read(run.id)["reward"] == [*((step, 1.0) for step in range(1, 6)), *((step, 2.0) for step in (6, 7, 8))]
    assert open_run().held("explorer/0", 2) == [(1, 3)]


def test_two_sessions_through_one_opening(open_run: Open, row: MakeRow, read: Read) -> None:
    """As when a finished job is delivered afterwards."""
    run = open_run()
    rows = [row(seq, {"reward": 1.0}) for seq in range(1, 11)]
    run.log(rows + [row(seq, {"reward": 2.0}, session=2, step=seq + 5) for seq in range(1, 4)])
    assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 9))
    assert [open_run().held("explorer/0", session) for session in (1, 2)] == [[(1, 10)], [(1, 3)]]


def test_restart_that_goes_on_drops_nothing(open_run: Open, row: MakeRow, read: Read) -> None:
    open_run().log([row(seq) for seq in range(1, 11)])
    run = open_run()
    run.log([row(seq, session=2, step=seq + 10) for seq in range(1, 11)])
    assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 21))


def test_config_outlives_a_restart_from_nothing(
    open_run: Open, row: MakeRow, read_text: Callable[[str], dict[str, list[tuple[int, str]]]]
) -> None:
    open_run(lr=0.1).log([row(seq) for seq in range(3)])
    run = open_run(lr=0.2)
    run.log([row(1, session=2, step=0)])
    assert '"lr": 0.2' in read_text(run.id)["run_config/text_summary"][-1][1]


def test_another_run_in_directory_stays_apart(open_run: Open, row: MakeRow, read: Read) -> None:
    first = open_run(run_id="one")
    first.log([row(seq) for seq in range(1, 6)])
    second = open_run(run_id="two")
    assert second.id == f"{first.id}/two"
    assert second.held("explorer/0", 1) == []
    second.log([row(1)])
    assert open_run(run_id="two").id == second.id
    assert open_run(run_id="one").held("explorer/0", 1) == [(1, 5)]
    assert read(second.id) == {"reward": [(1, 0.5)]}


def test_strange_event_files_are_left_alone(open_run: Open, row: MakeRow) -> None:
    run = open_run()
    (Path(run.id) / "events.out.tfevents.1.not-ours").write_bytes(b"\0" * 7)
    run.log([row(1)])
    assert open_run().held("explorer/0", 1) == [(1, 1)]
