"""What `rolecall show` and `rolecall export` print of a job in `local`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rolecall import Histogram, Image, MonitorConfig, Table, launch, open_monitor
from rolecall.__main__ import main
from rolecall.cli.view.lines import Look
from rolecall.cli.view.live import read_job
from rolecall.cli.view.screen import compose
from rolecall.config.commands import command
from rolecall.store.codec import encode
from rolecall.store.lease import Session


@pytest.fixture
def directory(make_config: Callable[..., MonitorConfig]) -> Path:
    """A job of two roles, of which one has logged values that cannot be drawn."""
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "explorer", 0) as explorer:
            for step in range(1, 51):
                explorer.log({"reward/mean": step / 50, "steps": step * 10}, step=step)
        with open_monitor(job.config, "trainer") as trainer:
            trainer.log({"loss": math.nan}, step=1)
            trainer.log({"loss": 0.25}, step=2)
            trainer.log_table("samples", [{"prompt": "2+2"}], step=2)
    return job.config.monitor_dir


def test_show_draws_roles_and_charts(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(directory)]) == 0
    drawn = capsys.readouterr().out
    roles = {cells[0]: cells[1:4] for line in drawn.splitlines()[3:5] if (cells := line.split())}
    assert roles == {"explorer/0": ["finished", "50", "50"], "trainer": ["finished", "2", "3"]}
    for chart in ("explorer/0/reward/mean", "explorer/0/steps", "trainer/loss"):
        assert chart in drawn
    assert any("⠀" < char <= "⣿" for char in drawn), "a line is drawn"
    assert "table     trainer/samples  logged once, last at step 2: 1 row of 1 column" in drawn
    assert "\x1b" not in drawn, "no colour where nobody sees it"


def test_media_and_axes_are_listed(
    make_config: Callable[..., MonitorConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "trainer") as trainer:
            trainer.log({"spread": Histogram(counts=[1, 2], edges=[0.0, 0.5, 1.0])}, step=48)
            samples = [{"maze": Image(pixels, caption="start"), "p": 0.5}, {"maze": Image(pixels), "p": 1.0}]
            trainer.log({"samples": Table(samples)}, step=48)
            trainer.log({"accuracy": 0.5}, step=1, axis="eval")
        with open_monitor(job.config, "evaluator") as evaluator:
            evaluator.log({"accuracy": 0.5}, step=3, axis="eval")
    assert main(["show", str(job.config.monitor_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = {cells[0]: cells[2] for line in lines[3:5] if (cells := line.split())}
    assert steps == {"evaluator": "3", "trainer": "48"}
    spread = lines.index("histogram trainer/spread  logged once, last at step 48")
    assert lines[spread + 1] == "          2 bins, 3 values from 0 to 1"
    table = lines.index("table     trainer/samples  logged once, last at step 48: 2 rows of 2 columns")
    names = {path.name for path in (job.config.monitor_dir / "journal" / "trainer" / "1.files").iterdir()}
    heads, start, other = (line.split() for line in lines[table + 1 : table + 4])
    assert (heads, start, other[1]) == (["maze", "p"], ["start", "0.5"], "1")
    assert other[0] in names


def test_table_that_grows_is_drawn_whole(
    make_config: Callable[..., MonitorConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows of all steps count, and the last of them are drawn; other columns begin another table."""
    config = make_config(monitor_type="local", monitor_args={})
    with launch(config) as job, open_monitor(job.config, "trainer") as trainer:
        for step in (1, 2, 5):
            rows = [{"step": step, "reward": step / 2}, {"step": step, "reward": step / 4}]
            trainer.log({"samples": Table(rows, append=True), "plain": Table(rows)}, step=step)
        trainer.log({"other": Table([{"a": 1}], append=True)}, step=6)
        trainer.log({"other": Table([{"b": 2}], append=True)}, step=7)
    assert main(["show", str(job.config.monitor_dir)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    table = lines.index("table trainer/samples logged 3 times, last at step 5: 6 rows of 2 columns")
    assert lines[table + 1 : table + 5] == ["step reward", "2 0.5", "5 2.5", "5 1.25"]
    assert "table trainer/plain logged 3 times, last at step 5: 2 rows of 2 columns" in lines
    assert "table trainer/other logged 2 times, last at step 7: 1 row of 1 column" in lines


def test_a_pattern_chooses_the_charts(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(directory), "--metric", "trainer/*"]) == 0
    drawn = capsys.readouterr().out
    assert "trainer/loss" in drawn
    assert "explorer/0/reward/mean" not in drawn
    assert main(["show", str(directory), "--metric", "nothing"]) == 2
    assert re.search(r"--metric nothing.*explorer/0/reward/mean", capsys.readouterr().err)


@pytest.fixture
def odd(make_config: Callable[..., MonitorConfig]) -> Path:
    """A job whose names mean something to a terminal library, or to an encoding nothing."""
    config = make_config(project="[red]数学[/]", monitor_type="local", monitor_args={})
    with launch(config) as job, open_monitor(job.config, "trainer") as trainer:
        trainer.log({"[bold]loss": 0.5, ":cat:": 1.0, "é" * 60: 2.0}, step=1)
        trainer.log({"[bold]loss": 0.25}, step=2)
    return job.config.monitor_dir


def test_names_are_printed_as_they_are(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(odd)]) == 0
    drawn = capsys.readouterr().out
    for name in ("[red]数学[/]", "[bold]loss", ":cat:", "é" * 60, str(odd)):
        assert name in drawn


def test_a_terminal_that_has_ascii_only(odd: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    show_it = [sys.executable, "-m", "rolecall", "show", str(odd)]
    ran = subprocess.run(show_it, env=env, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.isascii()
    assert b"[red]\\u6570\\u5b66[/]" in ran.stdout
    assert b"\\u25" not in ran.stdout, "frames are drawn in ASCII"
    assert b"*" in ran.stdout, "and so are lines"


def test_commands_and_paths_stay_unbroken(
    odd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("rolecall.cli.view.screen.MOST_CHARTS", 1)
    assert main(["show", str(odd)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(odd) in lines
    assert f"3 metrics; to draw all: {command('show', odd, '--metric', '*')}" in lines


EXTREMES: dict[str, tuple[list[int], list[float]]] = {
    "largest": ([1, 2, 3], [1.7e308, -1.7e308, 1.0]),
    "all_largest": ([1, 2], [1e308, 1e308]),
    "smallest": ([1, 2, 3], [5e-324, 0.0, 1e-320]),
    "both": ([1, 2], [1e308, 1e-308]),
    "negative_zero": ([1], [-0.0]),
    "integers": ([1, 2], [2**63 - 1, -(2**63)]),
    "nan": ([1, 2], [math.nan, math.nan]),
    "infinite": ([1, 2, 3], [math.inf, 1.0, -math.inf]),
    "one_row": ([5], [1.0]),
    "jumps": ([1, 2**63 - 1, -(2**63), 7], [1.0, 2.0, 3.0, 4.0]),
    "same_step": ([7, 7, 7], [1.0, 2.0, 3.0]),
    "close": ([1, 2], [1.0, 1.0 + 2e-16]),
}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_extreme_values_are_drawn(
    make_config: Callable[..., MonitorConfig], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """In 40 columns, too."""
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        for role, (steps, values) in EXTREMES.items():
            with open_monitor(job.config, role) as monitor:
                for step, value in zip(steps, values, strict=True):
                    monitor.log({"x": value}, step)
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["show", str(job.config.monitor_dir), "--metric", "*"]) == 0
    out.seek(0)
    drawn = out.read().splitlines()
    assert all(any(line.startswith(f"{role}/x") for line in drawn) for role in EXTREMES)
    above = next(at for at, line in enumerate(drawn) if line.startswith("largest/x"))
    assert drawn[above + 1].startswith((" 1.7e+308┤", " 1.7e+308+"))
    assert max(map(len, drawn[3 + len(EXTREMES) :])) <= 40
    assert "no finite value" in drawn


NAMES = {
    "long": "k" * 250,
    "emoji": "\N{FIRE}" * 30,
    "right to left": "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}/x",
    "markup": "[bold]loss[/] :cat:",
}


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("key", NAMES.values(), ids=list(NAMES))
def test_every_key_is_above_its_chart(
    make_config: Callable[..., MonitorConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
    key: str,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with launch(make_config(monitor_type="local", monitor_args={})) as job, open_monitor(job.config, "a") as monitor:
        monitor.log({key: 0.5})
    assert main(["show", str(job.config.monitor_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"a/{key}" in [line.removesuffix("0.5").rstrip() for line in lines]


def test_control_characters_are_escaped(
    make_config: Callable[..., MonitorConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a crafted journal, of a record, of a path and of an error."""
    root = tmp_path / "a\nb\x9b31m"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    config = make_config(project="p\N{RIGHT-TO-LEFT OVERRIDE}q", monitor_dir=tmp_path / "link")
    with launch(config) as job, open_monitor(job.config, "trainer"):
        pass
    session = Session(root / "journal" / "trainer" / "1.jsonl", 1)
    row = {"seq": 1, "step": 1, "time": 1e300, "data": {"k\x1b[2J": 0.5}}
    with session.path.open("ab") as file:
        file.write(encode(row, session.seed) + encode({"end": "killed", "seq": 1}, session.seed))
    assert main(["show", str(root)]) == 0
    assert main(["show", str(root), "--metric", "nothing"]) == 2
    assert main(["show", f"{root}\x1b[2J"]) == 2
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert text.replace("\n", "").isprintable()
        assert "k\\x1b[2J" in text
    assert "p\\u202eq" in printed.out
    assert "a\\nb\\x9b31m" in printed.out
    again = next(line for line in printed.out.splitlines() if line.startswith("to send what is waiting: "))
    ran = subprocess.run(["bash", "-c", f"printf %s {again.split(' deliver ')[1]}"], capture_output=True, check=True)
    assert ran.stdout == os.fsencode(root)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_follow_needs_a_terminal(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    assert main(["show", str(directory), "--follow"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    expected = "rolecall: --follow: needs a terminal, and standard output is none; leave out --follow\n"
    assert printed.err == expected


@pytest.mark.parametrize("form", ["--json", "--csv", "--follow"])
def test_forms_that_are_for_one_job(directory: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert main(["show", str(directory), str(directory), form]) == 2
    assert capsys.readouterr().err.startswith(f"rolecall: {form}: is for one job; leave out ")


def test_variables_that_turn_colours_on_and_off(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["show", str(directory)]) == 0
    assert "\x1b[1mgsm8k / grpo-1\x1b[0m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["show", str(directory)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_damage_is_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = next((directory / "journal").glob("explorer*/1.jsonl"))
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    journal.write_bytes(data)
    assert main(["show", str(directory)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged: "))
    assert str(journal) in line


def test_the_csv_has_every_value(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(directory), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 102
    rewards = [(int(row["step"]), float(row["value"])) for row in rows if row["key"] == "reward/mean"]
    assert rewards == [(step, step / 50) for step in range(1, 51)]
    assert [row["value"] for row in rows if row["key"] == "loss"] == ["nan", "0.25"]


def test_the_json_is_json(directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["show", str(directory), "--json"]) == 0
    summary = json.loads(capfdbinary.readouterr().out, parse_constant=pytest.fail)
    assert summary["state"] == "finished"
    writers = {writer["writer"]: writer for writer in summary["writers"]}
    assert writers["trainer"]["tables"] == 1
    assert writers["explorer/0"]["metrics"]["steps"] == {
        "count": 50,
        "first_step": 1,
        "last_step": 50,
        "last": 500,
        "min": 10,
        "max": 500,
    }


def test_summary_and_tags_are_shown(
    make_config: Callable[..., MonitorConfig], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        for rank in range(5):
            with open_monitor(job.config, "explorer", rank) as monitor:
                monitor.tags = ["ablation", f"rank-{rank}"]
                monitor.summary.update(best=0.9, worst=math.nan, note="[bold]two\nlines", draft=1)
                del monitor.summary["draft"]
    assert main(["show", str(job.config.monitor_dir)]) == 0
    found = capfdbinary.readouterr().out.decode().splitlines()
    assert "tags  ablation, rank-0, rank-1, rank-2, rank-3, rank-4" in found
    assert [line for line in found if line.startswith("summary")] == [
        f"summary  explorer/{rank}  best 0.9, worst nan, note [bold]two lines" for rank in range(5)
    ]
    lines = compose(read_job(job.config.monitor_dir), [], Look(80, 24)).lines
    shown = ["".join(span.text for span in line.spans) for line in lines]
    assert [line for line in shown if line.startswith("summary")][-1] == "summary  of 3 more roles"
    assert main(["show", str(job.config.monitor_dir), "--json"]) == 0
    writer = json.loads(capfdbinary.readouterr().out)["writers"][1]
    assert writer["summary"] == {"best": 0.9, "worst": "NaN", "note": "[bold]two\nlines"}
    assert writer["tags"] == ["ablation", "rank-1"]


def test_the_export_has_every_row(directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", str(directory)]) == 0
    rows = [json.loads(line, parse_constant=pytest.fail) for line in capfdbinary.readouterr().out.splitlines()]
    by_writer = {writer: [row for row in rows if row["writer"] == writer] for writer in ("explorer/0", "trainer")}
    assert [row["step"] for row in by_writer["explorer/0"]] == list(range(1, 51))
    assert by_writer["explorer/0"][0]["data"] == {"reward/mean": 0.02, "steps": 10}
    nan, quarter, table = by_writer["trainer"]
    assert nan["data"] == {"loss": "NaN"}
    assert quarter == {
        "writer": "trainer",
        "session": 1,
        "seq": 2,
        "step": 2,
        "time": quarter["time"],
        "data": {"loss": 0.25},
    }
    assert table["table"] == {"name": "samples", "columns": ["prompt"], "rows": [["2+2"]], "append": False}


def test_export_of_damaged_journal_is_clean(directory: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    journal = next((directory / "journal").glob("explorer*/**/1.jsonl"))
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    journal.write_bytes(data)
    assert main(["export", str(directory)]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert 50 <= len([json.loads(line) for line in lines]) < 53


@pytest.mark.parametrize("arguments", [["export"], ["show", "--csv"], ["show", "--json"], ["show"]])
def test_a_directory_without_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main([*arguments, str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rolecall: {tmp_path}: not a monitor_dir (no run.json); give")
    assert printed.out == ""
