"""`rolecall ls` finds the jobs below a directory, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sample_job import CREATED, plant_job

from rolecall.__main__ import main
from rolecall.cli import ls


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("first", "deep/er/second"):
        plant_job(tmp_path / "runs" / name, Path(name).name)
    return tmp_path / "runs"


def listed(directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> tuple[list[dict[str, Any]], str]:
    """The jobs, and what is on standard error."""
    assert main(["ls", str(directory), "--json"]) == 0
    out, err = capfdbinary.readouterr()
    return json.loads(out), err.decode()


def names(jobs: list[dict[str, Any]]) -> list[str]:
    return [job["name"] for job in jobs]


def test_jobs_at_any_depth(runs: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    jobs, err = listed(runs, capfdbinary)
    assert (names(jobs), err) == (["second", "first"], "")
    roles = [f"explorer/{rank}" for rank in range(4)] + ["trainer/0", "trainer/1"]
    assert jobs[1] == {
        "directory": str(runs / "first"),
        "project": "gsm8k",
        "name": "first",
        "state": "finished",
        "started": CREATED,
        "roles": ["buffer", "evaluator", *roles],
        "rows": 717,
        "backends": ["local", "mlflow"],
    }


def test_earlier_jobs_of_a_directory(runs: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    plant_job(runs / "first" / "previous" / "r0", "earlier")
    plant_job(runs / "first" / "backends" / "other", "inside")
    assert names(listed(runs / "first", capfdbinary)[0]) == ["first", "earlier"]


def test_symlinks_are_not_followed(runs: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (runs / "deep" / "link").symlink_to(runs / "first")
    (runs / "loop").symlink_to(runs)
    assert names(listed(runs, capfdbinary)[0]) == ["second", "first"]


def test_what_cannot_be_read_hides_nothing(runs: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")
    (runs / "no job" / "journal").mkdir(parents=True)
    jobs, err = listed(runs, capfdbinary)
    assert names(jobs) == ["second", "first"]
    assert err == f"rolecall: {runs}/broken/run.json: is damaged; use another monitor_dir, or move this one away\n"


def test_the_search_is_bounded(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(ls, "DEEPEST", 1)
    assert names(listed(runs, capfdbinary)[0]) == ["first"]
    monkeypatch.setattr(ls, "MOST_FOLDERS", 1)
    jobs, err = listed(runs, capfdbinary)
    assert names(jobs) == []
    assert err == f"rolecall: {runs}: has more than 1 directories; name one of them\n"


def test_directory_without_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no job is in {tmp_path}\n"
    assert main(["ls", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: cannot be read: No such file or directory; give" in capsys.readouterr().err


def test_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant_job(tmp_path / "a\nb\x1b[2J", "bidi\N{RIGHT-TO-LEFT OVERRIDE}")
    assert main(["ls", str(tmp_path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert os.fspath(tmp_path) in line
    assert head.split()[:2] == ["job", "state"]
