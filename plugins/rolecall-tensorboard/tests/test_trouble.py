"""Full disks, lost files and killed processes: no row is acknowledged that is not there, and nothing hangs."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rolecall import Row, Unavailable
from rolecall_tensorboard.run import TensorBoardRun

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Open = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def event_file(run: TensorBoardRun) -> Path:
    return max(Path(run.id).iterdir())


def descriptor(path: Path) -> int:
    """The descriptor with which this process holds a file."""
    names = Path("/proc/self/fd").iterdir()
    return next(int(name.name) for name in names if name.exists() and name.resolve() == path)


def steps(points: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]


def test_full_disk_is_unavailable_without_loss(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(seq) for seq in range(1, 11)])
    size = event_file(run).stat().st_size
    with disk_of(size + 100):
        for _ in range(3):
            with pytest.raises(Unavailable, match="File too large"):
                run.log([row(seq) for seq in range(11, 31)])
        run.flush(1.0)
        assert event_file(run).stat().st_size == size
        assert run.held("explorer/0", 1) == [(1, 10)]
        assert steps(read(run.id)["reward"]) == list(range(1, 11))
    run.log([row(seq) for seq in range(11, 31)])
    run.flush(1.0)
    assert steps(read(run.id)["reward"]) == list(range(1, 31))
    assert len(list(Path(run.id).iterdir())) == 1


def fill(run: TensorBoardRun, row: MakeRow) -> None:
    """Log until the run raises."""
    for seq in range(1, 100_000):
        run.log([row(seq, {"k" * 100: 1.0})])


def test_full_file_system_is_always_unavailable(folder: Path, open_run: Open, row: MakeRow, read: Read) -> None:
    disk = folder / "disk"
    disk.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        run = open_run(log_dir="disk")
        with pytest.raises(Unavailable, match="No space left on device"):
            fill(run, row)
        ((_, taken),) = run.held("explorer/0", 1)
        run.flush(1.0)
        assert steps(read(run.id)["k" * 100]) == list(range(1, taken + 1))
        with pytest.raises(Unavailable, match="No space left on device"):
            open_run("trainer", log_dir="disk", config="c" * 70_000)
        assert list((disk / "trainer").iterdir()) == []
        run.close("failed")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_deleted_directory_is_noticed_before_acknowledgement(
    open_run: Open, row: MakeRow, read: Read, folder: Path
) -> None:
    run = open_run()
    run.log([row(1), row(2)])
    run.flush(1.0)
    run.log([row(3)])
    shutil.rmtree(folder)
    with pytest.raises(Unavailable, match="deleted or moved"):
        run.flush(1.0)
    run.log([row(3), row(4)])
    run.flush(1.0)
    assert steps(read(run.id)["reward"]) == [3, 4]


def test_directory_that_cannot_return_is_unavailable(open_run: Open, row: MakeRow, folder: Path) -> None:
    run = open_run()
    run.log([row(1)])
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(Unavailable):
        run.flush(1.0)
    with pytest.raises(Unavailable):
        run.log([row(1)])
    folder.unlink()
    run.log([row(1)])
    run.flush(1.0)
    assert run.held("explorer/0", 1) == [(1, 1)]


def test_damaged_file_is_left_for_another(open_run: Open, row: MakeRow, read: Read) -> None:
    """Writing fails, and so does removing what was half written."""
    run = open_run()
    run.log([row(1), row(2)])
    run.flush(1.0)
    run.log([row(3)])
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), descriptor(event_file(run)))
    with pytest.raises(Unavailable, match="No space left on device"):
        run.log([row(4)])
    with pytest.raises(Unavailable, match="damaged file"):
        run.flush(1.0)
    assert run.held("explorer/0", 1) == [(1, 2)]
    run.log([row(3), row(4)])
    run.flush(1.0)
    assert set(steps(read(run.id)["reward"])) == {1, 2, 3, 4}
    assert steps(read(run.id)["reward"])[:2] == [1, 2]


def test_sync_that_fails_acknowledges_nothing(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1)])
    run.flush(1.0)
    run.log([row(2)])
    reading, writing = os.pipe()
    os.dup2(writing, descriptor(event_file(run)))
    os.close(writing)
    with pytest.raises(Unavailable, match="Invalid argument"):
        run.flush(1.0)
    os.close(reading)
    assert run.held("explorer/0", 1) == [(1, 1)]
    run.log([row(2)])
    run.flush(1.0)
    assert set(steps(read(run.id)["reward"])) == {1, 2}


ROLE = """
import os, sys
from pathlib import Path
from rolecall import Row, RunTicket
from rolecall_tensorboard import plugin

directory, last = Path(sys.argv[1]), int(sys.argv[2])
ticket = RunTicket(
    project="p", name="n", group=None, run_id="k3x9", backend_run_id=None, shared=False, primary=True,
    writer="explorer/0", role="explorer", config={}, directory=directory, pid=os.getpid(),
)
run = plugin.open_run(ticket, plugin.backend_args()())
first = max((last for _, last in run.held("explorer/0", 1)), default=0) + 1
print(first, flush=True)
for seq in range(first, last + 1):
    run.log([Row(writer="explorer/0", session=1, seq=seq, step=seq, time=float(seq), metrics={"reward": seq / 2})])
    run.flush(1.0)
    print(seq, flush=True)
"""


def killed_after(directory: Path, lines: int, last: int) -> int:
    """Kill a process that logs after it has printed this number of lines; return the last row it acknowledged."""
    command = [sys.executable, "-c", ROLE, str(directory), str(last)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        printed = [int(next(process.stdout)) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
    return printed[-1]


@pytest.mark.processes
def test_acknowledged_rows_survive_sigkill_once(folder: Path, read: Read) -> None:
    directory = str(folder / "explorer" / "0")
    for lines in (20, 2, 35):
        acknowledged = killed_after(folder, lines, last=10_000)
        found = steps(read(directory)["reward"])
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged
    assert len(list(Path(directory).iterdir())) == 3
