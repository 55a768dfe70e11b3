"""What others may have put into a monitor_dir: symlinks, files of any size, pipes; and what this user may not touch."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lines_server import LinesServer

from rolecall import DirectoryError, MonitorConfig, RolecallError, WriterConflict, launch, open_monitor
from rolecall.__main__ import main
from rolecall.store.codec import encode, make_folder
from rolecall.store.layout import Layout
from rolecall.store.lease import newest

MakeConfig = Callable[..., MonitorConfig]
Output = pytest.CaptureFixture[str]
WRITER = "trainer"
FOLDERS = [
    "journal",
    f"journal/{WRITER}",
    f"journal/{WRITER}/1.files",
    "journal/@launch",
    "delivery",
    "delivery/lines",
    f"delivery/lines/{WRITER}",
    "axes",
    "backends",
    "courier",
    "launching",
    "previous",
]
COMMANDS = ["show", "export", "deliver"]


@pytest.fixture
def config(make_config: MakeConfig) -> MonitorConfig:
    """That of an unfinished job."""
    config = make_config(shared_run=False)
    run(config)
    for name in ("backends", "courier", "previous"):
        (config.monitor_dir / name).mkdir(exist_ok=True)
    return config


def run(config: MonitorConfig) -> None:
    """A role that logs a row, and one that is stored beside its journal, and then is interrupted."""
    with suppress(KeyboardInterrupt), launch(config) as job, open_monitor(job.config, WRITER) as monitor:
        monitor.log({"loss": 0.125})
        monitor.log({"text": "x" * 5_000_000})
        raise KeyboardInterrupt


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


# ---------------------------------------------------------------- symlinks


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_is_followed(config: MonitorConfig, tmp_path: Path, capsys: Output, name: str) -> None:
    """Neither by those who read nor by those who write; whoever has to go through it says so."""
    folder, elsewhere = config.monitor_dir / name, tmp_path / "elsewhere"
    if folder.exists():
        folder.rename(elsewhere)
    else:
        elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    before = snapshot(elsewhere)
    said = ""
    for command in COMMANDS:
        status = main([command, str(config.monitor_dir)])
        printed = capsys.readouterr()
        said += printed.err
        assert status == 0 or "symlink" in printed.err
        assert "Traceback" not in printed.err
        assert name != f"journal/{WRITER}" or "0.125" not in printed.out, "its rows were read"
    for resume in ("auto", "never"):
        try:
            run(config.model_copy(update={"resume": resume, "courier": "process"}))
        except RolecallError as error:
            said += str(error)
    assert snapshot(elsewhere) == before
    assert f"{folder}: is a symlink" in said or name.endswith(".files")


def test_job_is_set_aside_into_no_link(config: MonitorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes between the look at a directory and its use."""
    previous, elsewhere = config.monitor_dir / "previous", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def make_and_swap(path: Path) -> None:
        make_folder(path)
        path.rmdir()
        path.symlink_to(elsewhere)

    monkeypatch.setattr("rolecall.job.place.make_folder", make_and_swap)
    with pytest.raises(DirectoryError, match="cannot be used"):
        launch(config.model_copy(update={"resume": "never"}))
    assert previous.is_symlink()
    assert not list(elsewhere.iterdir())
    assert (config.monitor_dir / "run.json").exists()


def test_directory_itself_may_be_a_symlink(make_config: MakeConfig, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    config = make_config(monitor_dir=tmp_path / "link")
    run(config)
    assert main(["show", str(config.monitor_dir)]) == 0
    assert "0.125" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["1.jsonl", "1.header.json", "1.files/2.json"])
def test_no_file_is_followed(config: MonitorConfig, tmp_path: Path, capsys: Output, name: str) -> None:
    path = config.monitor_dir / "journal" / WRITER / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").stat()
    for command in COMMANDS:
        assert main([command, str(config.monitor_dir)]) in {0, 1}
    assert "Traceback" not in capsys.readouterr().err
    with suppress(WriterConflict):  # without the end of a journal, its owner counts as long as it lives
        run(config)
    after = (tmp_path / "elsewhere").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_folder_swapped_under_a_role(make_config: MakeConfig, tmp_path: Path) -> None:
    """It goes on where it was, and what comes later is not led away."""
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        folder = Layout(job.config.monitor_dir).journal(WRITER)
        monitor = open_monitor(job.config, WRITER)
        monitor.log({"loss": 1.0})
        folder.rename(tmp_path / "moved")
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
        monitor._journal._look(0.0)  # type: ignore[union-attr]
        monitor.log({"loss": 0.5})
        monitor.log({"text": "x" * 5_000_000})
        monitor.close()
        with pytest.raises(DirectoryError, match=f"{folder}: is a symlink"):
            open_monitor(job.config, WRITER)
        folder.unlink()
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert b'"loss":0.5' in (tmp_path / "moved" / "1.jsonl").read_bytes()


# ------------------------------------------------- files that are none of ours

FILES = [
    f"journal/{WRITER}/1.jsonl",
    f"journal/{WRITER}/1.header.json",
    f"journal/{WRITER}/1.files/2.json",
    f"delivery/lines/{WRITER}/1.jsonl",
    f"delivery/lines/{WRITER}/run.json",
    f"axes/{WRITER}.jsonl",
    "journal/@launch/1.jsonl",
    "launching/1.jsonl",
    "run.json",
]


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """This process can have so many bytes more."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def plant(path: Path, kind: str) -> None:
    """Put something else in the place of a file, or behind what it holds."""
    if kind == "behind":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(20 << 30)
        return
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(20 << 30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "kind", ["behind", "pipe", *(pytest.param(kind, marks=pytest.mark.servers) for kind in ("sparse", "device"))]
)
@pytest.mark.parametrize("name", FILES)
def test_odd_file_costs_little(config: MonitorConfig, capsys: Output, name: str, kind: str) -> None:
    """Of time and memory; whoever cannot go on says so."""
    path = config.monitor_dir / name
    plant(path, kind)
    try:
        with little_memory(1 << 30):
            for command in COMMANDS:
                status = main([command, str(config.monitor_dir)])
                said = capsys.readouterr().err
                assert status in {0, 1} or said.startswith(f"rolecall: {config.monitor_dir}")
                assert "Traceback" not in said
            said = ""
            try:
                run(config)
            except RolecallError as error:
                said = str(error)
            assert not said or str(config.monitor_dir) in said
    finally:
        path.unlink(missing_ok=True)
        for left in config.monitor_dir.rglob("*"):
            if left.is_file() and left.stat().st_size > 1 << 30:  # it was moved below `previous`
                left.unlink()


def test_crafted_reference_to_a_sparse_file(config: MonitorConfig, capsys: Output) -> None:
    session = newest(Layout(config.monitor_dir).journal(WRITER))
    assert session is not None
    row = {"seq": 3, "step": 3, "time": 1.0, "attached": {"name": "3.json", "size": 20 << 30, "sum": "0" * 8}}
    with session.path.open("ab") as file:
        file.write(encode(row, session.seed) + encode({"end": "killed", "seq": 3}, session.seed))
    path = session.attachments / "3.json"
    plant(path, "sparse")
    with little_memory(1 << 30):
        assert main(["show", str(config.monitor_dir)]) == 0
    path.unlink()
    assert "its attachment 3.json is damaged" in capsys.readouterr().out


@pytest.mark.servers
@pytest.mark.parametrize("length", [1, 100])
def test_millions_of_damaged_lines(config: MonitorConfig, server: LinesServer, capsys: Output, length: int) -> None:
    """One place of damage, whose rows are counted by the row that comes after it."""
    session = newest(Layout(config.monitor_dir).journal(WRITER))
    assert session is not None
    with session.path.open("ab") as file:
        file.write((b"x" * length + b"\n") * 3_000_000)
        file.write(encode({"seq": 9, "step": 9, "time": 1.0, "data": {"loss": 0.5}}, session.seed))
        file.write(encode({"end": "killed", "seq": 9}, session.seed))
    with little_memory(1 << 29):
        assert main(["show", str(config.monitor_dir)]) == 0
        assert "rows 3 to 8 are lost" in capsys.readouterr().out
        assert main(["deliver", str(config.monitor_dir)]) == 1
    session.path.unlink()
    assert "6 rows are not in its journal" in capsys.readouterr().err
    assert server.seqs(WRITER)[-1] == (1, 9)


def test_many_places_are_counted(config: MonitorConfig, capsys: Output) -> None:
    session = newest(Layout(config.monitor_dir).journal(WRITER))
    assert session is not None
    with session.path.open("ab") as file:
        for seq in range(10, 500):
            file.write(b"damaged\n" + encode({"seq": seq, "step": 1, "time": 1.0, "data": {}}, session.seed))
        file.write(encode({"end": "killed", "seq": 499}, session.seed))
    assert main(["show", str(config.monitor_dir)]) == 0
    drawn = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged: ")]
    assert len(drawn) == 21
    assert drawn[-1] == "damaged: trainer: 470 more places"
    # To a courier they are damage only where a row is missing.
    assert main(["deliver", str(config.monitor_dir)]) == 1
    assert len(capsys.readouterr().err.splitlines()) < 10


# ------------------------------------------------------- what is not this user's

NOBODY = 65_534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user who may do nothing, in all threads."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def others(config: MonitorConfig) -> Iterator[Path]:
    """A job of this user, which everybody can see."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    root = Path(tempfile.mkdtemp(dir="/var/tmp"), "job")  # pytest's own directories are closed to others
    root.parent.chmod(0o755)
    shutil.copytree(config.monitor_dir, root)
    for command in COMMANDS:  # imports what another user cannot read
        main([command, str(config.monitor_dir)])
    yield root
    shutil.rmtree(root.parent)


@pytest.mark.parametrize("name", ["run.json", f"journal/{WRITER}", f"journal/{WRITER}/1.jsonl", "journal", "."])
def test_unreadable_files_are_named(others: Path, capsys: Output, name: str) -> None:
    (others / name).chmod(0)
    capsys.readouterr()
    for command in COMMANDS:
        with as_nobody():
            status = main([command, str(others), *(["--trust"] if command == "deliver" else [])])
        said = capsys.readouterr().err
        assert status == 2, said
        assert said.startswith(f"rolecall: {others}")
        assert "Permission denied" in said


def test_read_only_directory(others: Path, capsys: Output) -> None:
    """It can be shown and exported, and not be delivered."""
    for command in ("show", "export"):
        with as_nobody():
            assert main([command, str(others)]) == 0
    capsys.readouterr()
    with as_nobody():
        assert main(["deliver", str(others), "--to", "console"]) == 1
    said = capsys.readouterr().err
    assert f"{others}/delivery" in said
    assert "Permission denied" in said
    assert "Traceback" not in said


def test_job_delivered_to_the_console(config: MonitorConfig, capsys: Output) -> None:
    assert main(["deliver", str(config.monitor_dir), "--to", "console"]) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "all rows are delivered" in printed.out


@pytest.mark.parametrize("name", ["journal", f"journal/{WRITER}", "launching", "run.json"])
def test_launch_names_what_it_cannot_use(config: MonitorConfig, name: str) -> None:
    """A file where a directory has to be, and the other way round."""
    path = config.monitor_dir / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    with pytest.raises(RolecallError, match=str(config.monitor_dir)):
        run(config)
