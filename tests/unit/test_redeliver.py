"""Rows that a job's backends miss are sent again, by few threads; rows missing from the journal are reported."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lines_server import LinesServer

from rolecall import DirectoryError, MonitorConfig, launch, open_monitor
from rolecall.__main__ import main
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.redeliver import Held, Left, deliver
from rolecall.store.acks import Acknowledgements, Position
from rolecall.store.codec import end_of_lines
from rolecall.store.layout import Layout
from rolecall.store.lease import sessions

MakeConfig = Callable[..., MonitorConfig]
ROWS = 5


def run_job(config: MonitorConfig, writers: int = 1) -> Path:
    """A finished local job of some explorers, of which each has logged `ROWS` rows; returns its directory."""
    with launch(config) as job:
        for rank in range(writers):
            with open_monitor(job.config, "explorer", rank) as monitor:
                for step in range(1, ROWS + 1):
                    monitor.log({"loss": 1 / step}, step)
    return config.monitor_dir


@pytest.fixture
def local(make_config: MakeConfig) -> MonitorConfig:
    return make_config(monitor_type="local", monitor_args={})


@pytest.fixture
def args(server: LinesServer) -> dict[str, dict[str, object]]:
    return {"lines": {"path": str(server.path)}}


def damage(root: Path, *seqs: int) -> None:
    path = root / "journal" / "explorer@0" / "1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for seq in seqs:
        lines[seq] = lines[seq].replace(b'"data"', b'"DATA"')
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("damaged", [(2,), (1,), (3, 4), (5,), (4, 5), (1, 2, 3, 4, 5)])
def test_missing_rows_are_told(
    local: MonitorConfig, server: LinesServer, args: dict[str, dict[str, object]], damaged: tuple[int, ...]
) -> None:
    """Each time, and nothing else is said to be left."""
    root = run_job(local)
    damage(root, *damaged)
    for _ in range(2):
        assert deliver(root, "lines", args, 30.0) == [Left("lines", "explorer/0", 0, len(damaged))]
    assert [seq for _, seq in server.seqs("explorer/0")] == [seq for seq in (1, 2, 3, 4, 5) if seq not in damaged]


def test_command_does_not_say_all(
    local: MonitorConfig, server: LinesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the journal has lost a row."""
    root = run_job(local)
    command = ["deliver", str(root), "--to", "lines", "--args", f"{{path: {server.path}}}"]
    assert main(command) == 0
    assert capsys.readouterr().out == "all rows are delivered\n"
    damage(root, 3)
    shutil.rmtree(root / "delivery")
    assert main(command) == 1
    assert "all rows" not in capsys.readouterr().out


def test_backend_has_a_thread_a_run(
    local: MonitorConfig, server: LinesServer, args: dict[str, dict[str, object]]
) -> None:
    """The launcher's and that of each writer; besides there is the thread that may be left behind."""
    root = run_job(local, writers=4)
    before = set(threading.enumerate())
    most: set[threading.Thread] = set()

    def look(_: object) -> None:
        most.update(set(threading.enumerate()) - before)

    assert deliver(root, "lines", args, 30.0, on_event=look, on_progress=look) == []
    opened = [line for line in server.lines() if "open" in line]
    assert len(opened) == 5
    assert len(most) == len(opened) + 1


def test_nothing_left_opens_no_run(
    local: MonitorConfig, server: LinesServer, args: dict[str, dict[str, object]]
) -> None:
    root = run_job(local)
    assert deliver(root, "lines", args, 30.0) == []
    before = len(server.lines())
    assert deliver(root, "lines", args, 30.0) == []
    assert len(server.lines()) == before


def test_listener_hears_how_far(local: MonitorConfig, args: dict[str, dict[str, object]]) -> None:
    root = run_job(local, writers=2)
    events: list[CourierEvent] = []
    held: list[Held] = []
    assert deliver(root, "lines", args, 30.0, on_event=events.append, on_progress=held.extend) == []
    assert held[0] == Held("lines", 0, 2 * ROWS)
    assert held[-1] == Held("lines", 2 * ROWS, 2 * ROWS)
    assert {event.writer for event in events if event.kind == "ended"} == {"@launch", "explorer/0", "explorer/1"}
    acknowledged = {event.writer: event.acknowledged for event in events if event.kind == "progress"}
    assert acknowledged == {"@launch": 0, "explorer/0": ROWS, "explorer/1": ROWS}


def test_backend_that_is_away(
    local: MonitorConfig, server: LinesServer, args: dict[str, dict[str, object]], wait_until: Callable[..., None]
) -> None:
    """Its rows are left after the time-out, and delivered by the same couriers when it is back."""
    root = run_job(local)
    server.fail("down")
    assert deliver(root, "lines", args, 0.5) == [Left("lines", "explorer/0", ROWS)]
    server.fix("down")
    wait_until(lambda: len(server.seqs("explorer/0")) == ROWS)
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "rolecall-deliver"])


@pytest.mark.parametrize("is_done", [False, True])
def test_waits_for_a_live_courier(
    local: MonitorConfig,
    server: LinesServer,
    args: dict[str, dict[str, object]],
    wait_until: Callable[..., None],
    is_done: bool,
) -> None:
    """A role has ended and its courier still drains: deliver takes over, or finds all of it done."""
    root = run_job(local)
    layout = Layout(root)
    held = Acknowledgements(layout, "lines", "explorer/0")
    waiting = threading.Event()
    left: list[list[Left]] = []

    def hear(event: CourierEvent) -> None:
        if event.kind == "waiting":
            waiting.set()

    thread = threading.Thread(target=lambda: left.append(deliver(root, "lines", args, 30.0, on_event=hear)))
    thread.start()
    wait_until(waiting.is_set)
    if is_done:
        session = sessions(layout.journal("explorer/0"))[-1]
        held.acknowledge(Position(session.number, end_of_lines(session.path), ROWS), ROWS)
    held.release("finished" if is_done else None)
    thread.join(30.0)
    assert left == [[]]
    assert len(server.seqs("explorer/0")) == (0 if is_done else ROWS)


# ------------------------------------------------------------- whose directory it is


def lines_job(config: MonitorConfig, server: LinesServer) -> Path:
    """A job whose rows its backend does not have yet."""
    server.fail("down")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0})
        monitor.close(timeout=0)
    server.fix("down")
    return config.monitor_dir


@pytest.fixture
def undelivered_job(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[str]]:
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 0.1)
    root = lines_job(make_config(open_timeout=0.5), server)
    return root, ["deliver", str(root), "--timeout", "30"]


def test_own_record_names_the_server(undelivered_job: tuple[Path, list[str]], server: LinesServer) -> None:
    root, command = undelivered_job
    assert (root / "run.json").stat().st_mode & 0o022 == 0
    assert main(command) == 0
    assert server.seqs("trainer") == [(1, 1)]


@pytest.mark.parametrize("whose", ["writable", "another's"])
def test_record_of_somebody_else_names_no_server(
    undelivered_job: tuple[Path, list[str]], server: LinesServer, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    """Its arguments would say where this user's credentials go."""
    root, command = undelivered_job
    if whose == "writable":
        (root / "run.json").chmod(0o664)
        words = "others can write it"
    elif os.geteuid() == 0:
        os.chown(root / "run.json", 65534, 65534)
        words = "it belongs to user 65534"
    else:
        pytest.skip("only root can give files away")
    capsys.readouterr()
    assert main(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{words}, so its arguments of lines (path) are not used" in said
    assert "use --trust if you know who wrote it" in said
    assert server.seqs("trainer") == []
    assert main([*command, "--args", f"{{lines: {{path: {server.path}}}}}"]) == 0
    assert server.seqs("trainer") == [(1, 1)]


def test_record_of_somebody_else_can_be_trusted(undelivered_job: tuple[Path, list[str]], server: LinesServer) -> None:
    root, command = undelivered_job
    (root / "run.json").chmod(0o666)
    assert main([*command, "--trust"]) == 0
    assert server.seqs("trainer") == [(1, 1)]


def test_nobody_else_can_write_a_record(make_config: MakeConfig) -> None:
    before = os.umask(0)
    try:
        root = run_job(make_config(monitor_type="local", monitor_args={}))
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "run.json").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("run_id", "/abs/path"),
        ("run_id", "../../elsewhere"),
        ("run_id", ".."),
        ("nonce", "a/b"),
        ("name", "a\nb"),
        ("project", ""),
        ("plan", {"backends": [{"backend": "../x", "shared": False, "courier": "thread"}]}),
    ],
)
def test_record_is_checked_as_user_input_is(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str], setting: str, value: object
) -> None:
    config = make_config(monitor_type="local", monitor_args={})
    record = run_job(config) / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), setting: value}))
    assert main(["deliver", str(config.monitor_dir)]) == 2
    assert "run.json: is damaged" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DirectoryError, match="is damaged"):
        launch(config)
    assert {path.name for path in config.monitor_dir.iterdir()} >= {"run.json", "journal"}


@pytest.mark.parametrize("kind", ["pipe", "device", "large", "link"])
def test_record_that_is_no_file(make_config: MakeConfig, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """In bounded time and memory, in words."""
    root = run_job(make_config(monitor_type="local", monitor_args={}))
    record = root / "run.json"
    record.rename(root / "true.json")
    if kind == "pipe":
        os.mkfifo(record)
    elif kind == "device":
        record.symlink_to("/dev/zero")
    elif kind == "large":
        with record.open("wb") as file:
            file.truncate(20 << 30)
    else:
        record.symlink_to("true.json")
    capsys.readouterr()  # what the job itself has printed
    assert main(["show", str(root)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"rolecall: {record}: ")
    assert "Traceback" not in said
    record.unlink()


def test_arguments_without_a_backend(
    undelivered_job: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, command = undelivered_job
    capsys.readouterr()
    assert main([*command, "--args", "{path: elsewhere}"]) == 2
    assert "--args: path: must be the arguments of a backend" in " ".join(capsys.readouterr().err.split())
