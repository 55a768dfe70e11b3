"""`rolecall.init`: a job of one process, with defaults for all that need not be said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer
from stopped import children

import rolecall
from rolecall.job.history import read_history, read_rows
from rolecall.store.layout import Layout, RunRecord, read_record


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    for name in ("ROLECALL_DIR", "ROLECALL_MONITOR_TYPE", "ROLECALL_MODE", "ROLECALL_LOG"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "cartpole"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def record_of(root: Path) -> RunRecord:
    record = read_record(Layout(root))
    assert record is not None
    return record


def job_below(root: Path) -> Path:
    """The directory of the only job below a directory."""
    (found,) = root.rglob("run.json")
    return found.parent


def test_five_lines(folder: Path) -> None:
    """All defaults; rows count 1, 2, 3 under the keys that they were logged with."""
    monitor = rolecall.init()
    for step in range(3):
        monitor.log({"loss": 1 / (step + 1)})
    monitor.finish()
    root = job_below(folder)
    record = record_of(root)
    assert root == folder / "rolecall" / "cartpole" / record.name
    assert record.project == "cartpole"
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9]{3}", record.name)
    assert [(row.writer, row.step, dict(row.metrics)) for row in read_rows(root)] == [
        ("main", 1, {"loss": 1.0}),
        ("main", 2, {"loss": 0.5}),
        ("main", 3, {"loss": 1 / 3}),
    ]
    history = read_history(root)
    assert (history.state, history.writers[0].state) == ("finished", "finished")


def test_arguments_win() -> None:
    monitor = rolecall.init("gsm8k", {"lr": 0.1}, "first", monitor_dir="runs/x")
    monitor.finish()
    record = record_of(Path("runs/x"))
    assert (record.project, record.name) == ("gsm8k", "first")
    header = next(iter((Path("runs/x") / "journal" / "main").glob("1.jsonl"))).read_text().splitlines()[0]
    assert '"config":{"lr":0.1}' in header


def test_generated_names_differ() -> None:
    """Or two jobs would share a directory."""
    for _ in range(3):
        rolecall.init().finish()
    assert len(list(Path("rolecall").rglob("run.json"))) == 3


def test_directory_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_DIR", str(tmp_path / "all"))
    rolecall.init("gsm8k", name="first").finish()
    assert job_below(tmp_path / "all") == tmp_path / "all" / "gsm8k" / "first"
    rolecall.init("gsm8k", name="second", monitor_dir="here").finish()
    assert Path("here/run.json").exists()


def test_names_lead_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with slashes is one folder, with `ROLECALL_DIR` and without."""
    for parent in (tmp_path / "all", None):
        if parent is None:
            monkeypatch.delenv("ROLECALL_DIR")
        else:
            monkeypatch.setenv("ROLECALL_DIR", str(parent))
        rolecall.init("team/gsm8k", name="../../x").finish()
        root = job_below(parent or Path("rolecall"))
        assert len(root.relative_to(parent or "rolecall").parts) == 2
        assert (record_of(root).project, record_of(root).name) == ("team/gsm8k", "../../x")


def test_backend_of_the_environment(server: LinesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"lines": {"path": server.path}}
    for value, names in (("lines", ["lines"]), ("lines, local", ["lines", "local"]), ("", ["local"])):
        monkeypatch.setenv("ROLECALL_MONITOR_TYPE", value)
        rolecall.init(monitor_args=args if "lines" in names else None, monitor_dir=f"job-{len(value)}").finish()
        plan = record_of(Path(f"job-{len(value)}")).plan
        assert [each.backend for each in plan.backends] == names
    rolecall.init(monitor_type="local", monitor_dir="given").finish()
    assert [each.backend for each in record_of(Path("given")).plan.backends] == ["local"]


def test_run_has_the_jobs_name(server: LinesServer) -> None:
    """And its keys are bare, on the run of the only role, which has the config."""
    monitor = rolecall.init("gsm8k", {"lr": 0.1}, "first", monitor_type="lines", monitor_args={"path": server.path})
    monitor.log({"loss": 0.5})
    assert monitor.url is not None
    monitor.finish()
    lines = server.lines()
    assert [line["name"] for line in lines if "open" in line] == ["first"]
    assert [line["metrics"] for line in lines if "metrics" in line] == [{"loss": 0.5}]
    assert [line["run_config"] for line in lines if "run_config" in line] == [{"lr": 0.1}]
    assert [line["closed"] for line in lines if "closed" in line] == ["finished"]


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (ZeroDivisionError, "failed")])
def test_closing_ends_job_and_role(folder: Path, error: type[Exception] | None, status: str) -> None:
    monitor = rolecall.init()
    if error is None:
        with monitor:
            pass
    else:
        with pytest.raises(error), monitor:
            raise error
    monitor.finish()
    history = read_history(job_below(folder))
    assert (history.state, history.writers[0].state) == (status, status)


def test_same_directory_again(folder: Path) -> None:
    """A new run, and the earlier one is kept."""
    for _ in range(2):
        rolecall.init("gsm8k", name="first").finish("failed")
    root = folder / "rolecall" / "gsm8k" / "first"
    assert (root / "run.json").exists()
    assert len(list((root / "previous").iterdir())) == 1


def test_prints_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with rolecall.init(project="p", name="n"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    said = [
        r"rolecall: run n -> \S*rolecall show rolecall/p/n",
        r"rolecall: 0 rows: local 0 · \S*rolecall show rolecall/p/n",
    ]
    assert re.fullmatch("\n".join([*said, ""]), err)


def test_prints_nothing_when_silenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLECALL_LOG", "error")
    with rolecall.init(project="p", name="n"):
        pass
    assert capsys.readouterr() == ("", "")


# --------------------------------------------------------------------------------------------- how it ends


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines, each command without the path of its program."""
    return re.sub(r"\S*rolecall show", "rolecall show", capsys.readouterr().err).splitlines()


def test_second_init_finishes_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so; the first one needs no name that somebody keeps."""
    first = rolecall.init("p", name="first")
    first.log({"loss": 0.5})
    with rolecall.init("p", name="second"):
        assert not first.is_open
    assert printed(capsys) == [
        "rolecall: run first -> rolecall show rolecall/p/first",
        "rolecall: finishing run first, as rolecall.init begins another one",
        "rolecall: 1 row: local 1 · rolecall show rolecall/p/first",
        "rolecall: run second -> rolecall show rolecall/p/second",
        "rolecall: 0 rows: local 0 · rolecall show rolecall/p/second",
    ]
    assert read_history(Path("rolecall/p/first")).state == "finished"


def test_one_of_two_threads_goes_on() -> None:
    """Each `init` finishes the run before it, also if both are called at once."""
    together = threading.Barrier(2)

    def begin(name: str) -> rolecall.Monitor:
        together.wait()
        return rolecall.init(name=name)

    with ThreadPoolExecutor(2) as threads:
        monitors = list(threads.map(begin, ["first", "second"]))
    still_open = [monitor for monitor in monitors if monitor.is_open]
    for monitor in still_open:
        monitor.finish()
    assert len(still_open) == 1


def test_finished_run_is_not_finished_again(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        rolecall.init("p", name=name).finish()
    assert "finishing" not in capsys.readouterr().err


def test_same_name_again_while_it_runs() -> None:
    """As a cell that is run again; with `resume` it goes on."""
    rolecall.init("p", name="n").log({"loss": 0.5})
    rolecall.init("p", name="n").log({"loss": 0.5})
    assert [row.step for row in read_rows(Path("rolecall/p/n"))] == [1]
    with rolecall.init("p", name="n", resume="allow") as monitor:
        monitor.log({"loss": 0.5})
    assert [row.step for row in read_rows(Path("rolecall/p/n"))] == [1, 2]


def test_wrong_settings_finish_nothing() -> None:
    first = rolecall.init()
    with pytest.raises(rolecall.UnknownBackend):
        rolecall.init(monitor_type="mlfow")
    assert first.is_open
    first.finish()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", "finished"),
        ("raise SystemExit(0)", "finished"),
        ("1 / 0", "failed"),
        ("import gc; gc.collect()", "finished"),
    ],
)
def test_end_of_the_program_finishes_it(folder: Path, code: str, status: str) -> None:
    """Also where nobody keeps the run."""
    lines = ["import rolecall", "rolecall.init('p', name='n').log({'loss': 0.5})", code]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    said = [line for line in ran.stderr.splitlines() if line.startswith("rolecall: ")]
    assert re.fullmatch(r"rolecall: run n -> \S*rolecall show rolecall/p/n", said[0])
    assert re.fullmatch(r"rolecall: 1 row: local 1 · \S*rolecall show rolecall/p/n", said[1])
    assert (len(said), "ResourceWarning" in ran.stderr) == (2, False)
    history = read_history(folder / "rolecall" / "p" / "n")
    assert (history.state, history.writers[0].state, history.writers[0].rows) == (status, status, 1)


def test_forked_child_finishes_nothing(folder: Path) -> None:
    """Neither at its end nor when it begins a run of its own."""
    code = """
import os, rolecall
run = rolecall.init("p", name="parent")
if os.fork() == 0:
    with rolecall.init("p", name="child") as own:
        own.log({"loss": 0.5})
else:
    assert os.wait()[1] == 0
    run.log({"loss": 0.5})
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for name in ("parent", "child"):
        history = read_history(folder / "rolecall" / "p" / name)
        assert (history.state, history.writers[0].rows) == ("finished", 1)
    assert "finishing" not in ran.stderr
    assert ran.stderr.count("1 row: local 1") == 2


def test_notebook_shows_where_to_look() -> None:
    with rolecall.init("p", name="n") as run:
        assert re.fullmatch(r"run <b>n</b>: <code>\S*rolecall show rolecall/p/n</code>", run._repr_html_())


@pytest.mark.parametrize("variable", ["ROLECALL_MODE", "ROLECALL_DISABLED"])
def test_turned_off_by_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv(variable, "disabled")
    with rolecall.init(monitor_type="nothing-installed") as monitor:
        monitor.log({"loss": 0.5})
    rolecall.init().finish()
    assert (list(folder.iterdir()), capsys.readouterr().err) == ([], "")


# ------------------------------------------------------------- system metrics


def samples(root: Path) -> list[rolecall.Row]:
    return [row for row in read_rows(root) if row.axis == "system"]


def probes() -> set[int]:
    """The processes that measure this one."""
    return {pid for pid in children() if b"rolecall.delivery.node.probe" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_system_is_measured_into_the_only_run(two: Any, wait_until: Callable[..., None], tmp_path: Path) -> None:
    _, servers = two
    args = {name: {"path": server.path} for name, server in zip(("lines", "lines-again"), servers, strict=True)}
    root = tmp_path / "here"
    run = rolecall.init(monitor_type=list(args), monitor_args=args, monitor_dir=root, system_metrics=True)
    before = set(sys.modules)
    run.log({"loss": 0.5})
    wait_until(lambda: samples(root))
    assert "psutil" not in set(sys.modules) - before
    run.log({"loss": 0.25})
    run.finish()
    assert not probes()
    sample = samples(root)[0]
    assert sample.step == 1
    assert {"system/cpu/percent", "system/memory/used_mb", "system/process/threads"} <= sample.metrics.keys()
    assert [(row.step, dict(row.metrics)) for row in read_rows(root) if row.axis is None] == [
        (1, {"loss": 0.5}),
        (2, {"loss": 0.25}),
    ]
    (name,) = servers[0].runs()
    assert servers[0].points(name, "main", "system/process/threads") != []
    # Its SDK measures by itself. A second axis, of rows that it does not get, changes none of those that it gets.
    (name,) = servers[1].runs()
    assert [line["metrics"] for line in servers[1].lines(name) if "metrics" in line] == [{"loss": 0.5}, {"loss": 0.25}]
    assert Layout(root).writers() == ["main"]


def test_killed_probe_is_started_again(wait_until: Callable[..., None], tmp_path: Path) -> None:
    root = tmp_path / "here"
    with rolecall.init(monitor_dir=root, system_metrics=True):
        wait_until(lambda: samples(root))
        (first,) = probes()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(samples(root)) > 1)
        assert first not in probes()
    assert [row.step for row in samples(root)][:2] == [1, 2]


def test_probe_ends_with_its_process(wait_until: Callable[..., None], tmp_path: Path) -> None:
    code = "import rolecall, sys\nrun = rolecall.init(monitor_dir=sys.argv[1], system_metrics=True)\ninput()"
    role = subprocess.Popen([sys.executable, "-c", code, tmp_path / "here"], stdin=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "here" / "run.json").exists() and samples(tmp_path / "here"))
    pids = children(role.pid)
    assert pids
    role.kill()
    role.communicate()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
