"""`rolecall.init`: a job of one process, with defaults for all that need not be said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lines_server import LinesServer

import rolecall
from rolecall.job.history import read_history, read_rows
from rolecall.store.layout import Layout, RunRecord, read_record


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    for name in ("ROLECALL_DIR", "ROLECALL_MONITOR_TYPE"):
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


def test_turned_off_it_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_DISABLED", "1")
    with rolecall.init() as monitor:
        monitor.log({"loss": 0.5})
    assert list(folder.iterdir()) == []


def test_prints_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with rolecall.init(project="p", name="n"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"rolecall: p/n -> \S*rolecall show rolecall/p/n\n", err)


def test_prints_nothing_when_silenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLECALL_LOG", "error")
    with rolecall.init(project="p", name="n"):
        pass
    assert capsys.readouterr() == ("", "")
