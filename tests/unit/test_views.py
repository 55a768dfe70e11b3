# ruff: noqa: E501 - screens are wider than code
"""What `rolecall show`, `ls` and a comparison draw, on terminals of two sizes, with and without colours."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from inline_snapshot import snapshot
from sample_job import CREATED, plant_job

from rolecall.__main__ import main
from rolecall.cli.view.chart import Curve, draw
from rolecall.cli.view.compare import compare
from rolecall.cli.view.lines import Line, Look, Span, cells, cut
from rolecall.cli.view.live import read_job
from rolecall.cli.view.metrics import Metric, metrics_of
from rolecall.cli.view.screen import compose, rows_of
from rolecall.cli.view.summary import Job, duration
from rolecall.job.history import MetricHistory

PLAIN = Look(80, 23, has_unicode=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs in `runs`, which tests only read."""
    root = tmp_path_factory.mktemp("planted")
    plant_job(root / "runs" / "grpo-1")
    plant_job(root / "runs" / "grpo-2", "grpo-2", lr=3e-6, speed=2.0)
    return root


@pytest.fixture
def runs(planted: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """They are seen from where `runs` is, in a shell that finds rolecall."""
    monkeypatch.chdir(planted)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def job(name: str = "grpo-1") -> Job:
    return replace(read_job(Path("runs") / name), now=CREATED + 3600)


def screen(look: Look) -> list[str]:
    shown = job()
    (metrics,) = metrics_of([shown.history])
    return [look.paint(line) for line in compose(shown, metrics, look).lines]


def text(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.mark.usefixtures("runs")
def test_screen_of_80_columns_in_ascii() -> None:
    lines = screen(PLAIN)
    assert len(lines) <= 23
    assert text(lines) == snapshot("""\
gsm8k / grpo-1  finished after 12 min  8 roles, 717 rows, 12 tables
runs/grpo-1
role          state     step  rows  last row
buffer        finished     1     1  16:00:06
evaluator     finished   120    36  16:12:00
explorer/0-2  finished   120   360  16:12:00
explorer/3    killed      80    80  16:08:00
trainer/0-1   finished   120   240  16:12:00
mlflow  unfinished  697 delivered, 20 waiting  http://localhost:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef
  rows of trainer/0 are waiting: the server answers 503
to send what is waiting: rolecall deliver runs/grpo-1
explorer/*/reward/mean           0.8582  explorer/*/return/mean            37.57
 0.982+               ********++++++++o  42.7+                 *******       *+o
      |       ****++++ooooxxxooooooooo       |             **+ooxxxxxoooooooooo
 0.497+    *++ooxxxxxxxxxx               21.9+   *++++++++ooxxxx
      | *oxxxxxxx                            | oxxxxxxxxxxxxx
0.0132+xxx                               1.08+xx
       1        *0 +1 o2 x3         120       1         *0 +1 o2 x3          120
trainer/*/loss/policy           0.08629  trainer/*/grad_norm                 1.5
evaluator/accuracy                  0.8  trainer/*/kl                      0.012
trainer/*/entropy                   1.8  trainer/*/lr                      1e-06
11 metrics; to draw all: rolecall show runs/grpo-1 --metric '*'
""")


@pytest.mark.usefixtures("runs")
def test_screen_of_80_columns() -> None:
    assert text(screen(Look(80, 23))) == snapshot("""\
gsm8k / grpo-1  finished after 12 min  8 roles, 717 rows, 12 tables
runs/grpo-1
role          state     step  rows  last row
buffer        finished     1     1  16:00:06
evaluator     finished   120    36  16:12:00
explorer/0-2  finished   120   360  16:12:00
explorer/3    killed      80    80  16:08:00
trainer/0-1   finished   120   240  16:12:00
mlflow  unfinished  697 delivered, 20 waiting  http://localhost:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef
  rows of trainer/0 are waiting: the server answers 503
to send what is waiting: rolecall deliver runs/grpo-1
explorer/*/reward/mean           0.8582  explorer/*/return/mean            37.57
 0.982┤            ⢀⣀⣀⡤⠤⠤⠴⢒⣒⣒⣒⠶⠾⢭⣭⣭⣟⣛⡻⠿  42.7┤                ⢀⡤⢒⣒⣒⣒⣢⡤⣀⡀   ⢀⣠⣤⣶⡿
      │       ⣀⡤⠴⠒⣉⡩⠤⢔⣒⣪⠭⣭⣗⣲⠖⠉⠉⠉⠉            │            ⢀⣀⠴⣊⢵⣮⣕⠶⠭⠵⠖⠫⠵⣞⣫⣭⣛⠿⠟⠋⠁
 0.497┤    ⡠⠔⣋⠥⣒⡪⣭⣲⠮⠝⠓⠚⠉⠉                21.9┤   ⣠⠔⣒⣋⣉⣉⣉⣉⣉⡭⣖⣯⡶⠗⠉
      │ ⢀⣴⣯⣶⡿⠾⠛⠋⠉                            │ ⣠⣺⡿⠿⠞⠛⠷⠶⠶⠶⠶⠝⠋⠁
0.0132┤⣰⠿⠛⠉                              1.08┤⣰⠟⠉
       1          50                120       1           50                 120
trainer/*/loss/policy  █▄▃▂▁▁▁▁ 0.08629  trainer/*/grad_norm        ▁▁▁▁▁▁▁▁ 1.5
evaluator/accuracy         ▁▁▂▃▄▅▆█ 0.8  trainer/*/kl             ▁▂▃▃▅▆▇█ 0.012
trainer/*/entropy          █▆▅▄▄▃▁▁ 1.8  trainer/*/lr             ▁▁▁▁▁▁▁▁ 1e-06
11 metrics; to draw all: rolecall show runs/grpo-1 --metric '*'
""")


@pytest.mark.usefixtures("runs")
def test_screen_of_160_columns() -> None:
    lines = screen(Look(160, 49))
    assert len(lines) <= 49
    assert text(lines) == snapshot("""\
gsm8k / grpo-1  finished after 12 min  8 roles, 717 rows, 12 tables, 12 media rows  run 7ffb7bcd66d4
runs/grpo-1
role          state     step  rows  last row
buffer        finished     1     1  16:00:06
evaluator     finished   120    36  16:12:00
explorer/0-2  finished   120   360  16:12:00
explorer/3    killed      80    80  16:08:00
trainer/0-1   finished   120   240  16:12:00
mlflow  unfinished  697 delivered, 20 waiting  http://localhost:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef
  rows of trainer/0 are waiting: the server answers 503
to send what is waiting: rolecall deliver runs/grpo-1
explorer/*/reward/mean          0.8582  explorer/*/return/mean           37.57  trainer/*/loss/policy          0.08629  evaluator/accuracy                 0.8
 0.982┤               ⢀⣀⣀⠤⠤⠤⠒⠒⢒⣒⣒⣉⠭⠭⠭⠭  42.7┤                 ⡠⠴⠒⠒⠦⣀       ⢀⢔⢯     1.31┤⢣                                  0.8┤                           ⢀⡠⠔⠊
      │          ⢀⣠⠴⠒⠋⢉⣀⡤⠤⠒⠒⣋⣉⡭⠤⠔⠒⠒⠋⠉⠉      │              ⢀⡠⢊⡤⠖⣋⣉⡒⠮⣑⠢⢄⣀⣀⠤⡪⢟⠕⠁         │⡈⠚⡄                                   │                       ⣀⡠⠔⠊⠁
      │       ⢀⠴⠊⠉⣀⡤⠖⠊⣉⡤⠴⢒⣋⡍⠁               │            ⢀⡠⢊⡠⢋⠔⣫⠥⠤⠭⠑⠦⢍⣒⠒⣒⡭⠒⠁           │⢸⡠⡑⢱⢀                                 │                   ⢀⠤⠒⠉
      │     ⣠⠞⢁⡠⠖⢊⣡⠴⣚⡩⠴⠒⠋⠉                  │    ⢀⡤⠤⠤⠤⠤⠴⠒⠉⡠⢊⢔⡕⠉       ⠈⠉               │  ⠣⢢⠉⢣⣤                               │               ⢀⡠⠔⠊⠁
      │   ⢀⠜⣁⠔⣋⢴⣪⠭⠒⠋⠁                       │  ⢀⠴⣁⠤⠤⠤⠤⠤⠤⠖⢊⢔⡵⠉                          │   ⠈⠊⢣⣤⠗⣣⣠                            │            ⣀⠤⠊⠁
      │  ⡠⣣⢞⢵⡮⠒⠉                            │ ⢀⣮⣺⡷⠯⠭⢵⣒⣒⣒⣪⠵⠋                            │       ⠛⢹⠕⣷⢵⣠⡄⣀                       │        ⣀⠤⠒⠉
      │ ⣰⣽⡿⠛⠁                               │ ⣾⠟⠁                                      │          ⠉⠘⠊⠯⠻⡾⣧⣶⣠⣆⣠⡀⡀⢀ ⡀            │   ⢀⡠⠔⠊⠉
0.0132┤⣼⠟⠁                              1.08┤⡼⠃                                 0.00324┤                ⠈ ⠋⠘⠃⠛⠹⠏⠷⠻⡜⢧⠟⡴  0.0667┤⣀⠤⠒⠁
       1          50               120       1           50                120          1         50               120         10       50                 120
trainer/*/entropy                  1.8  trainer/*/grad_norm                1.5  trainer/*/kl                     0.012  trainer/*/lr                     1e-06
2.99┤⠙⠲⢤⣀                                  │                                     0.012┤                           ⣀⡤⠖⠋       │
    │    ⠉⠒⠤⣀                              │                                          │                       ⢀⡠⠖⠋⠁          │
    │        ⠉⠒⠦⣄⡀                         │                                          │                   ⣀⡤⠔⠊⠁              │
    │            ⠈⠓⠦⢄⡀                     │                                          │               ⢀⡠⠔⠊⠁                  │
    │                ⠈⠑⠲⢤⡀              1.5┤⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉        │           ⢀⡠⠔⠊⠁                 1e-06┤⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉
    │                    ⠈⠙⠲⠤⣀             │                                          │       ⢀⡠⠔⠚⠉                          │
    │                         ⠉⠒⠤⣀         │                                          │   ⢀⣠⠴⠊⠁                              │
 1.8┤                             ⠉⠓⠦⣄     │                                    0.0001┤⣠⠴⠚⠉                                  │
     1           50                120      1           50                 120         1          50               120        1          50                120
explorer/*/tokens               110000  explorer/*/perf/tokens_per_s     934.3  buffer/size                       4096
120000┤                           ⣀⡤⠖⠋  1000┤⢱ ⢠⠊⡎⡎⣞⢇ ⢠⢻⣿⡎⡎⡆ ⢰⢑⣟⣟⡏⡆  ⢰⢱⢑⡟⡄  ⡸⣳      │
      │                       ⢀⡠⠖⠋⠁         │⠈⡆⢸⢰⢱⢱⢹⢸ ⢸⢸⢿⢸⢹⢸ ⡎⡎⢿⢿⢇⢸  ⡜⡜⡟⢣⢣  ⡇⡇      │
      │                   ⣀⡤⠔⠊⠁             │⡀⡇⡇⡸⡸⡸⡀⡇⡇⡇⡇⣿⢸⡸⡸⡀⡇⡇⣿⣿⠘⡜⡄ ⡇⡇⣧⢸⢸ ⢰⢱⠁      │
      │               ⢀⡠⠔⠊⠁                 │⢸⢸⢇⠇⡇⡇⢇⢇⢿⢀⢇⢟⡇⡇⡇⢻⢸ ⡟⡟⡄⡇⡇⢰⢱⢱⠉⡎⡎⡆⢸⢸⢰      │
      │           ⢀⡠⠔⠊⠁                     │⠸⣸⣸⢀⢇⢇⢸⢸⣸⢸⢸⢸⢣⢣⢣⢸⢸⢸⢸⡇⡇⢣⢣⡇⢸⢸ ⡇⡇⡇⡎⡎⡎  4096┤⠉
      │       ⢀⡠⠔⠚⠉                         │ ⡟⡟⢸⢸⢸⠘⡜⡟⡼⡸⡸⢸⢸⢸⠟⡇⡇⡸⢣⢣⢸⢸⡇⡇⡇ ⢱⢱⢱⡇⡇⡇      │
      │   ⢀⣠⠴⠊⠁                             │⢢⣧⣧⡜⡜⠘⡄⣧⣧⢣⡇⡇⠈⡎⣾⣦⣧⠃⡇⢸⠈⣾⣾⣆⢇⠇ ⢸⢸⡸⣾⢸       │
  1000┤⣠⠴⠚⠉                              800┤⡸⡸⡸⣠⠃ ⢱⣽⣽⡸⡱⠁ ⢣⢯⢼⣼⡔⠁ ⣇⢯⢯⢯⡜   ⢇⢇⣯⡎       │
       1          50               120       1           50                120       1
text      buffer/note  "filled up"
image     evaluator/maze  logged 12 times, last at step 120
          runs/grpo-1/journal/evaluator/1.files/maze.ppm
table     evaluator/samples  logged 12 times, last at step 120: 4 rows of 3 columns
          prompt            answer  score
          What is 120 + 1?  121     0.25
          What is 120 + 2?  122     0.5
          What is 120 + 3?  123     0.75
""")


@pytest.mark.usefixtures("runs")
def test_colours_of_roles_and_ranks() -> None:
    look = Look(80, 23, has_colour=True)
    lines = screen(look)
    killed = next(line for line in lines if "killed" in line)
    assert killed.startswith("explorer/3")
    assert "\x1b[1;31mkilled" in killed, "bold and red"
    legend = next(line for line in lines if "\x1b[36m0\x1b[0m" in line)
    assert "\x1b[33m1\x1b[0m" in legend
    plain = screen(replace(look, has_colour=False))
    assert len(plain) == len(lines)


@pytest.mark.usefixtures("runs")
def test_comparison_of_two_jobs() -> None:
    look = Look(100, has_unicode=False)
    lines = compare((job(), job("grpo-2")), ["*/reward/mean", "*/loss/*"], look)
    assert text([look.paint(line) for line in lines]) == snapshot("""\
A  gsm8k / grpo-1  finished after 12 min  8 roles, 717 rows, 12 tables, 12 media rows
A  runs/grpo-1
B  gsm8k / grpo-2  finished after 12 min  8 roles, 717 rows, 12 tables, 12 media rows
B  runs/grpo-2
config  A      B
lr      1e-06  3e-06
metric                   last A   last B    best A    best B  mean A  mean B
explorer/*/reward/mean   0.8582   0.9645    0.9817    0.9997  0.5935  0.7619
trainer/*/loss/policy   0.08629  0.08629  0.003242  0.003242  0.3599  0.3599
explorer/*/reward/mean              0.8582 0.9645  trainer/*/loss/policy             0.08629 0.08629
 0.992+                          ++++++++++++++++    1.16++
      |                +++++++++++ **************        | ++
      |           ++++++     ******                      | + ++
      |        ++++    *******                           |   +++++
      |      +++   *****                                 |      ++++
      |    +++ ****                                      |        ++++ +
      |   ++ ***                                         |            + +++++
      | ++***                                            |                +++++++ + +
      |++**                                              |                     + +++++++++++++ + + +
0.0211++*                                          0.0111+                                +++++ ++++
       1                *A +B                 120         1                *A +B                 120
""")


@pytest.mark.usefixtures("runs")
def test_comparison_fits_the_screen() -> None:
    for look in (Look(80, 23), Look(160, 49)):
        lines = compare((job(), job("grpo-2")), [], look)
        assert rows_of(lines, look) <= (look.height or 0)
        painted = [look.paint(line) for line in lines]
        assert any(line.startswith("explorer/*/reward/mean") for line in painted)
        assert any(line.startswith("metric  ") for line in painted)
        is_cut = "rolecall show runs/grpo-1 runs/grpo-2 --metric '*'" in painted[-1]
        assert is_cut == (look.width == 80)


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("columns", [1, 2, 7, 20, 40, 79, 300])
@pytest.mark.parametrize("rows", [1, 5, 12, 100])
def test_any_size_can_be_drawn(columns: int, rows: int) -> None:
    look = Look(columns, rows, has_colour=True)
    shown = job()
    (metrics,) = metrics_of([shown.history])
    lines = compose(shown, metrics, look).lines
    assert all(line.is_whole or line.width <= columns for line in lines)
    assert compare((shown, job("grpo-2")), [], look)


@pytest.mark.usefixtures("runs")
def test_lines_of_commands_and_paths_are_whole() -> None:
    look = Look(30, 60, has_unicode=False)
    lines = screen(look)
    assert "runs/grpo-1" in lines
    assert "to send what is waiting: rolecall deliver runs/grpo-1" in lines
    backend = next(line for line in lines if line.startswith("mlflow"))
    assert backend.endswith("/runs/0123456789abcdef0123456789abcdef")


@pytest.mark.usefixtures("runs")
def test_one_line_for_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "runs", "--ascii"]) == 0
    assert text(capsys.readouterr().out.splitlines()) == snapshot("""\
job             state     started           roles  rows  backends      directory
gsm8k / grpo-1  finished  2025-11-24 16:00      8   717  local,mlflow  runs/grpo-1
gsm8k / grpo-2  finished  2025-11-24 16:00      8   717  local,mlflow  runs/grpo-2
""")


def test_curves_have_marks_and_whole_steps() -> None:
    curves = [Curve("0", [1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0]), Curve("1", [1, 4], [3.0, 0.0])]
    assert text([PLAIN.paint(line) for line in draw(curves, 30, 6, PLAIN)]) == snapshot("""\
  3+++++                  ****
   |    ++++++     *******
1.5+          ++++++
   |     ******     ++++++
  0+*****                 ++++
    1         *0 +1          4
""")


def test_steps_between_the_ends_are_round() -> None:
    (*_, steps) = draw([Curve("0", [3, 997], [0.0, 1.0])], 60, 6, PLAIN)
    assert PLAIN.paint(steps).split() == ["3", "200", "400", "600", "800", "997"]


def test_what_is_not_finite_leaves_a_gap() -> None:
    values = [0.0, 0.0, math.nan, math.inf, 0.0, 0.0]
    (row,) = (line for line in draw([Curve("", [1, 2, 3, 4, 5, 6], values)], 8, 2, PLAIN) if "*" in PLAIN.paint(line))
    assert PLAIN.paint(row) == "0+**  **"


def test_many_ranks_are_a_cloud_with_their_mean() -> None:
    curves = [Curve(str(rank), [1, 2], [float(rank), float(rank)]) for rank in range(9)]
    lines = [PLAIN.paint(line) for line in draw(curves, 20, 10, PLAIN)]
    assert lines[4] == "4+" + "*" * 18
    assert lines[0] == "8+" + "." * 18
    assert lines[-1].split() == ["1", "2"], "no legend of nine"


def test_mean_of_several_ranks() -> None:
    ranks = {}
    for rank in range(3):
        ranks[f"explorer/{rank}"] = MetricHistory()
        for step in range(1, 1001):
            ranks[f"explorer/{rank}"].add(step, float(rank) if step != 7 else math.nan)
    curve = Metric("explorer", "reward", ranks).mean_curve("A")
    assert (curve.label, set(filter(math.isfinite, curve.values))) == ("A", {1.0})
    assert any(map(math.isnan, curve.values)), "a gap where no rank has a value"
    assert 100 < len(curve.steps) <= 256
    assert curve.steps == sorted(curve.steps)
    few = Metric(
        "explorer", "reward", {"explorer/0": MetricHistory([1, 2], [0.0, 1.0]), "explorer/1": MetricHistory([2], [3.0])}
    )
    assert few.mean_curve("B") == Curve("B", [1, 2], [0.0, 2.0])


def test_cells_of_wide_and_combined_characters() -> None:
    assert [cells(each) for each in ("abc", "数学", "e\u0301", "\N{FIRE}", "⣿│▁")] == [3, 4, 1, 2, 3]
    assert cut("数学", 3) == "数"
    line = Line((Span("数学", "bold"), Span("abc")))
    assert [line.cut(width).width for width in (7, 6, 4, 3, 0)] == [7, 6, 4, 2, 0]
    assert line.padded(9).width == 9
    assert [line.fitting(width).width for width in (7, 6, 4, 3, 0)] == [7, 4, 4, 2, 0]


def test_long_names_lose_their_middle() -> None:
    assert PLAIN.shorten("explorer/*/reward/mean", 15) == "explor...d/mean"
    assert Look(80).shorten("explorer/*/reward/mean", 12) == "explor…/mean"
    assert PLAIN.shorten("short", 5) == "short"


def test_durations_for_people() -> None:
    words = [duration(seconds) for seconds in (-5, 59.9, 60, 3600, 7290, 90000, 1e300)]
    assert words == snapshot(["0 s", "59 s", "1 min", "1 h 0 min", "2 h 1 min", "1 d 1 h", "11574074 d 1 h"])
