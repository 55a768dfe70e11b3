"""`rolecall clean` removes what every backend holds, and nothing else; what it removed is not lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall import DirectoryError, MonitorConfig, WriterConflict, launch, open_monitor
from rolecall.__main__ import main
from rolecall.config.commands import command
from rolecall.delivery.clean import clean, earlier
from rolecall.delivery.redeliver import Left, deliver
from rolecall.job.history import read_history
from rolecall.store.acks import Acknowledgements, undelivered
from rolecall.store.details import last_steps
from rolecall.store.layout import Layout
from rolecall.store.lease import Session

MakeConfig = Callable[..., MonitorConfig]
Output = pytest.CaptureFixture[str]
ROWS = 20


def run(config: MonitorConfig, rows: int = ROWS, *, large: bool = False) -> Path:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, rows + 1):
            monitor.log({"loss": 1 / step})
        if large:
            monitor.log({"text": "x" * 5_000_000})
    return config.monitor_dir


def journal(root: Path) -> Path:
    return root / "journal" / "trainer" / "1.jsonl"


def state_of(root: Path) -> dict[str, Any]:
    """What `show` says of the deliveries."""
    layout = Layout(root)
    return {"left": undelivered(layout, "lines", "trainer"), "state": read_history(root).writers[0].state}


def test_delivered_rows_are_removed(make_config: MakeConfig, server: LinesServer, capsys: Output) -> None:
    root = run(make_config(), large=True)
    before, size = state_of(root), journal(root).stat().st_size
    assert main(["clean", str(root), "--dry-run"]) == 0
    assert f"would be removed: {ROWS + 1} rows, 5,00" in capsys.readouterr().out
    assert journal(root).stat().st_size == size
    assert main(["clean", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"removed: {ROWS + 1} rows, 5,00")
    assert journal(root).stat().st_size < size / 4
    assert not journal(root).with_suffix(".files").exists()
    assert state_of(root) == before == {"left": 0, "state": "finished"}
    trainer = read_history(root).writers[0]
    assert (trainer.rows, trainer.cleaned, trainer.damages) == (0, ROWS + 1, [])
    assert clean(root) == [], "a second time there is nothing to do"
    sent = len(server.seqs("trainer"))
    assert deliver(root, None, {"lines": {"path": str(server.path)}}, 30.0) == []
    assert len(server.seqs("trainer")) == sent
    assert main(["show", str(root)]) == 0
    shown = capsys.readouterr().out
    assert f"0            {ROWS + 1} rows cleaned" in shown
    assert "damaged" not in shown
    assert main(["show", str(root), "--json"]) == 0


def test_job_goes_on_after_it(make_config: MakeConfig, server: LinesServer) -> None:
    """With the next step, and every row arrives once."""
    config = make_config(resume="allow")
    root = run(config, 3)
    assert clean(root)
    run(config, 2)
    rows = [(each["session"], each["seq"], each["step"]) for each in server.lines() if "seq" in each]
    assert rows == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 4), (2, 2, 5)]
    assert [(each.session, each.rows) for each in clean(root)] == [(2, 2)]


def plan(root: Path, *backends: str) -> None:
    """Make a job of `local` one of these backends."""
    record = root / "run.json"
    found = json.loads(record.read_text())
    found["plan"]["backends"] = [{"backend": name, "shared": False, "courier": "thread"} for name in backends]
    record.write_text(json.dumps(found))


def test_undelivered_rows_stay(make_config: MakeConfig, server: LinesServer) -> None:
    """Those of a session of which any row waits; they can be delivered afterwards."""
    config = make_config(monitor_type="local", monitor_args={}, resume="allow")
    args = {"lines": {"path": str(server.path)}}
    root = run(config, 3)
    assert deliver(root, "lines", args, 30.0) == []
    run(config, 2)
    plan(root, "lines")
    assert [(each.session, each.rows) for each in clean(root)] == [(1, 3)]
    assert undelivered(Layout(root), "lines", "trainer") == 2
    assert deliver(root, "lines", args, 30.0) == []
    assert [each["seq"] for each in server.lines() if "seq" in each] == [1, 2, 3, 1, 2]
    assert [(each.session, each.rows) for each in clean(root)] == [(2, 2)]


def test_rejected_rows_stay(make_config: MakeConfig, server: LinesServer) -> None:
    """Only the journal has them."""
    server.path.joinpath("picky").write_text("[2]")
    root = run(make_config(), 3)
    assert clean(root) == []
    assert b'"step":2' in journal(root).read_bytes()


def test_each_backend_must_hold_them(make_config: MakeConfig, server: LinesServer, capsys: Output) -> None:
    root = run(make_config(monitor_type="local", monitor_args={}))
    assert deliver(root, "lines", {"lines": {"path": str(server.path)}}, 30.0) == []
    plan(root, "lines", "lines-again")
    assert main(["clean", str(root)]) == 0
    assert capsys.readouterr().out == "removed: 0 rows, 0 bytes\n"


def test_later_backend_is_told(make_config: MakeConfig, two: tuple[Any, list[LinesServer]]) -> None:
    """What was removed cannot be copied to another backend."""
    root = run(make_config())
    assert [(each.session, each.rows) for each in clean(root)] == [(1, ROWS)]
    args = {"lines-again": {"path": str(two[1][1].path)}}
    assert deliver(root, "lines-again", args, 30.0) == [Left("lines-again", "trainer", 0, ROWS)]


@pytest.mark.parametrize("live", ["launcher", "role", "courier"])
def test_live_job_is_refused(make_config: MakeConfig, live: str, capsys: Output) -> None:
    root = run(make_config())
    before = journal(root).read_bytes()
    if live == "courier":
        acks = Acknowledgements(Layout(root), "lines", "trainer")
        with pytest.raises(WriterConflict, match="the courier of trainer to lines is alive"):
            clean(root)
        acks.release("finished")
    else:
        with launch(make_config(resume="allow")) as job:
            monitor = open_monitor(job.config, "trainer") if live == "role" else None
            with pytest.raises(WriterConflict, match="alive"):
                clean(root)
            assert main(["clean", str(root)]) == 2
            assert "is alive; wait for its end" in capsys.readouterr().err
            if monitor is not None:
                monitor.close()
    assert journal(root).read_bytes() == before


@pytest.mark.parametrize("backends", ["local", ["local", "lines"]])
def test_local_journals_are_the_run(make_config: MakeConfig, server: LinesServer, backends: Any) -> None:
    args = {"lines": {"path": server.path}} if "lines" in backends else {}
    root = run(make_config(monitor_type=backends, monitor_args=args))
    before = journal(root).read_bytes()
    with pytest.raises(DirectoryError, match="are its run in local"):
        clean(root)
    assert journal(root).read_bytes() == before


def test_earlier_jobs_are_cleaned_by_themselves(make_config: MakeConfig, capsys: Output) -> None:
    run(make_config(), large=True)
    root = run(make_config(resume="never"), large=True)
    (before,) = (root / "previous").iterdir()
    assert main(["clean", str(root), "--dry-run"]) == 0
    *_, said = capsys.readouterr().out.splitlines()
    assert (found := re.fullmatch(r"an earlier job takes (5,\d{3},\d{3}) bytes; to clean it: (.*)", said))
    assert found[2] == command("clean", before)
    assert main(["clean", str(root)]) == 0
    assert journal(before).with_suffix(".files").exists()
    assert main(["clean", str(before)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"removed: {ROWS + 1} rows, 5,00")
    trainer = read_history(before).writers[0]
    assert (trainer.rows, trainer.cleaned, trainer.state) == (0, ROWS + 1, "finished")
    assert clean(before) == []
    assert sum(earlier(root).values()) < 20_000


def test_many_earlier_jobs_are_counted(make_config: MakeConfig, capsys: Output) -> None:
    root = run(make_config(), 1)
    for number in range(12):
        (root / "previous" / str(number)).mkdir(parents=True)
    (root / "previous" / "link").symlink_to(root)
    assert main(["clean", str(root)]) == 0
    *_, tenth, said = capsys.readouterr().out.splitlines()
    assert tenth.startswith("an earlier job takes 0 bytes")
    assert said == f"2 more earlier jobs are in {root}/previous"


def test_no_link_is_followed(make_config: MakeConfig, tmp_path: Path) -> None:
    root = run(make_config(), large=True)
    files = journal(root).with_suffix(".files")
    files.rename(tmp_path / "elsewhere")
    files.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symlink"):
        clean(root)
    assert list((tmp_path / "elsewhere").iterdir())


def test_no_link_that_comes_meanwhile_is_followed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody swaps a directory for a symlink between the look at it and its use."""
    root = run(make_config(), large=True)
    folder, elsewhere = root / "journal" / "trainer", tmp_path / "elsewhere"

    def swap_and_look(session: Session) -> dict[str, int]:
        found = last_steps(session)
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        return found

    monkeypatch.setattr("rolecall.delivery.clean.last_steps", swap_and_look)
    before = snapshot(root / "journal" / "trainer")
    with pytest.raises(OSError, match="Not a directory"):
        clean(root)
    assert snapshot(elsewhere) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path.relative_to(folder): path.lstat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (each.st_size, each.st_ino) for path, each in found.items()}


def test_directory_without_a_job(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="not a monitor_dir"):
        clean(tmp_path)
