"""What a person, and a script, sees of a job in `local`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall import ConfigError, MonitorConfig, launch, open_monitor
from rolecall.cli.show import show_csv, show_json
from rolecall.cli.view.screen import show


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


def test_it_draws_roles_rows_last_values_and_charts(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(directory)
    drawn = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in drawn.splitlines() if line.count("│") > 6}
    assert [cell.strip() for cell in lines["explorer/0"].split("│")[2:5]] == ["finished", "50", "50"]
    assert [cell.strip() for cell in lines["trainer"].split("│")[2:5]] == ["finished", "3", "2"]
    assert lines["trainer"].rstrip(" │").endswith("0.25")
    for chart in ("explorer/0/reward/mean", "explorer/0/steps", "trainer/loss"):
        assert chart in drawn
    assert any("⠀" < char <= "⣿" for char in drawn), "a line is drawn"
    assert "\x1b" not in drawn, "no colour where nobody sees it"


def test_a_pattern_chooses_the_charts(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(directory, ["trainer/*"])
    drawn = capsys.readouterr().out
    assert "trainer/loss" in drawn
    assert "explorer/0/reward/mean" not in drawn
    with pytest.raises(ConfigError, match=r"--metric nothing.*explorer/0/reward/mean"):
        show(directory, ["nothing"])


def test_the_csv_has_every_value(directory: Path) -> None:
    out = io.StringIO()
    show_csv(directory, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(rows) == 102
    rewards = [(int(row["step"]), float(row["value"])) for row in rows if row["key"] == "reward/mean"]
    assert rewards == [(step, step / 50) for step in range(1, 51)]
    assert [row["value"] for row in rows if row["key"] == "loss"] == ["nan", "0.25"]


def test_the_json_is_json(directory: Path) -> None:
    out = io.StringIO()
    show_json(directory, out)
    summary = json.loads(out.getvalue(), parse_constant=pytest.fail)
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
