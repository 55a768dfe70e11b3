# ruff: noqa: E501 - screens are wider than code
"""What stands on a real terminal, tmux, while `rolecall show` runs and after it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inline_snapshot import snapshot
from sample_job import plant_job
from terminal import PATIENCE, Tmux

from rolecall import Job, MonitorConfig, launch, open_monitor

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed; it is the terminal of these tests"),
]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Tmux]]:
    opened: list[Tmux] = []

    def open_one(columns: int = 80, rows: int = 24, **environment: str) -> Tmux:
        opened.append(Tmux(tmp_path, columns, rows, environment))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    config = MonitorConfig(project="gsm8k", name="live", monitor_type="local", monitor_dir=tmp_path / "live")
    with launch(config) as launched:
        yield launched


@pytest.mark.parametrize("columns", [80, 160])
def test_show_on_a_terminal(tmp_path: Path, terminal: Callable[..., Tmux], columns: int) -> None:
    plant_job(tmp_path / "runs" / "grpo-1")
    screen = terminal(columns, 26).run("rolecall show runs/grpo-1")
    screens = {
        80: snapshot("""\
runs/grpo-1
role          state     step  rows  last row
buffer        finished     1     1  16:00:06
evaluator     finished   120    36  16:12:00
explorer/0-2  finished   120   360  16:12:00
explorer/3    killed      80    80  16:08:00
trainer/0-1   finished   120   240  16:12:00
mlflow  unfinished  697 delivered, 20 waiting  http://localhost:5000/#/experimen
ts/1/runs/0123456789abcdef0123456789abcdef
  rows of trainer/0 are waiting: the server answers 503
to send what is waiting: rolecall deliver runs/grpo-1
explorer/*/reward/mean           0.8582  explorer/*/return/mean            37.57
 0.982┤            ⢀⣀⣀⡤⠤⠤⠴⢒⣒⣒⣒⠶⠾⢭⣭⣭⣟⣛⡻⠿  42.7┤                ⢀⡤⢒⣒⣒⣒⣢⡤⣀⡀   ⢀⣠⣤⣶⡿
      │       ⣀⡤⠴⠒⣉⡩⠤⢔⣒⣪⠭⣭⣗⣲⠖⠉⠉⠉⠉            │            ⢀⣀⠴⣊⢵⣮⣕⠶⠭⠵⠖⠫⠵⣞⣫⣭⣛⠿⠟⠋⠁
 0.497┤    ⡠⠔⣋⠥⣒⡪⣭⣲⠮⠝⠓⠚⠉⠉                21.9┤   ⣠⠔⣒⣋⣉⣉⣉⣉⣉⡭⣖⣯⡶⠗⠉
      │ ⢀⣴⣯⣶⡿⠾⠛⠋⠉                            │ ⣠⣺⡿⠿⠞⠛⠷⠶⠶⠶⠶⠝⠋⠁
0.0132┤⣰⠿⠛⠉                              1.08┤⣰⠟⠉
       1          0 1 2 3           120       1           0 1 2 3            120
trainer/*/loss/policy  █▄▃▂▁▁▁▁ 0.08629  trainer/*/lr             ▁▁▁▁▁▁▁▁ 1e-06
evaluator/accuracy         ▁▁▂▃▄▅▆█ 0.8  explorer/*/tokens       ▁▂▃▄▅▆▇█ 110000
trainer/*/entropy          █▆▅▄▄▃▁▁ 1.8  explorer/*/p…okens_per_s █▃▁▇▄▁▇▄ 934.3
trainer/*/grad_norm        ▁▁▁▁▁▁▁▁ 1.5  buffer/size                        4096
trainer/*/kl             ▁▂▃▃▅▆▇█ 0.012
11 metrics; to draw all: rolecall show runs/grpo-1 --metric '*'
status 0
$
"""),
        160: snapshot("""\
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
 0.982┤            ⢀⣀⣠⠤⠤⠤⢒⣒⣒⣒⡶⠶⠭⣭⣭⣟⣛⡻⠿  42.7┤                ⣠⠔⣒⣒⣒⣒⡤⣄⣀   ⢀⣀⣤⣶⡿     1.31┤⠱⣀                                 0.8┤                        ⢀⣀⡠⠤⠔⠒⠉
      │       ⣀⠤⠖⢚⣉⡥⠤⣒⣒⡭⢭⣝⣒⠖⠊⠉⠉⠉            │            ⢀⡠⢖⡩⣶⣭⡲⠮⠭⠶⠺⠭⢞⣻⣭⣟⡿⠟⠋⠁          │⠳⡠⡓⢢⣀⡀                                │                   ⣀⡠⠔⠒⠉⠁
 0.497┤    ⡠⢖⣩⢴⣒⢭⣽⡲⠯⠟⠒⠋⠉⠁               21.9┤   ⣠⢔⣒⣉⣉⣉⣉⣉⣩⠥⣺⣵⠾⠊⠁                   0.657┤  ⠑⠱⠥⣕⣒⣤⣄⢀                       0.433┤            ⣀⡠⠤⠔⠒⠊⠉
      │ ⢀⣴⣯⣶⡿⠾⠛⠉⠁                           │ ⣠⣾⡾⠿⠚⠻⠶⠶⠶⠶⠮⠛⠋                            │     ⠈⠈⠛⠹⠟⣷⢵⡴⣄⣤⢀⡀⣀                    │      ⢀⣀⠤⠔⠊⠉
0.0132┤⣰⠿⠛⠉                             1.08┤⣰⠟⠁                                0.00324┤             ⠉⠈⠋⠙⠋⠛⠳⠟⠶⠳⠖⢦⠶⡴⢦⠶⣠  0.0667┤⣀⠤⠔⠒⠊⠉⠁
       1          0 1 2 3          120       1           0 1 2 3           120          1           0 1            120         10       50                 120
trainer/*/entropy         █▆▅▄▄▃▁▁ 1.8  trainer/*/kl            ▁▂▃▃▅▆▇█ 0.012  explorer/*/tokens      ▁▂▃▄▅▆▇█ 110000  buffer/size                       4096
trainer/*/grad_norm       ▁▁▁▁▁▁▁▁ 1.5  trainer/*/lr            ▁▁▁▁▁▁▁▁ 1e-06  explorer/*/…okens_per_s █▃▁▇▄▁▇▄ 934.3
11 metrics; to draw all: rolecall show runs/grpo-1 --metric '*'
status 0
$
"""),
    }
    assert screen == screens[columns]


def test_show_in_ascii(tmp_path: Path, terminal: Callable[..., Tmux]) -> None:
    plant_job(tmp_path / "runs" / "grpo-1")
    by_option = terminal(80, 26).run("rolecall show runs/grpo-1 --ascii")
    by_locale = terminal(80, 26, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").run("rolecall show runs/grpo-1")
    assert by_option == by_locale
    assert by_option.isascii()


def test_colours_and_none(tmp_path: Path, terminal: Callable[..., Tmux]) -> None:
    plant_job(tmp_path / "runs" / "grpo-1")
    coloured = terminal(80, 26)
    coloured.run("rolecall show runs/grpo-1")
    lines = coloured.text("-e").splitlines()
    killed = next(line for line in lines if "explorer/3" in line)
    assert killed == snapshot("explorer/3    \x1b[1m\x1b[31mkilled\x1b[0m\x1b[39m\x1b[49m      80    80  16:08:00")
    legend = next(line for line in lines if line.lstrip().startswith("\x1b[2m") and "120" in line)
    assert legend == snapshot(
        "       \x1b[2m1          \x1b[0m\x1b[36m\x1b[49m0\x1b[39m \x1b[33m1\x1b[39m \x1b[35m2\x1b[39m \x1b[32m3\x1b[2m\x1b[39m           120\x1b[0m\x1b[39m\x1b[49m       \x1b[2m1           \x1b[0m\x1b[36m\x1b[49m0\x1b[39m \x1b[33m1\x1b[39m \x1b[35m2\x1b[39m \x1b[32m3\x1b[2m\x1b[39m            120"
    )
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = terminal(80, 26, **environment)
        plain.run("rolecall show runs/grpo-1")
        assert "\x1b" not in plain.text("-e")


def test_follow_draws_until_the_job_ends(job: Job, terminal: Callable[..., Tmux]) -> None:
    follower = terminal()
    with open_monitor(job.config, "trainer") as trainer:
        trainer.log({"loss": 0.5, "lr": 0.1})
        follower.type("echo before; rolecall show --follow live; echo status $?")
        follower.press("Enter")
        follower.until(lambda: "q: quit" in follower.text())
        assert "before" not in follower.text(), "an alternate screen"
        trainer.log({"loss": 0.25})
        follower.until(lambda: re.search(r"trainer +running +2 +2 ", follower.text()) is not None)
        follower.resize(60, 20)
        trainer.log({"loss": 0.125})
        follower.until(lambda: re.search(r"trainer +running +3 +3 ", follower.text()) is not None)
        assert max(map(len, follower.text().splitlines())) <= 60
        assert len(follower.text().splitlines()) == 20
    job.close()
    follower.until(lambda: "status 0" in follower.text())
    last = follower.text()
    assert re.search(r"gsm8k / live  finished", last)
    assert re.search(r"trainer +finished +3 +3 ", last)
    assert "q: quit" not in last


@pytest.mark.parametrize(
    ("columns", "charts", "is_ascii"), [(80, 2, False), (80, 2, True), (160, 4, False), (160, 4, True)]
)
def test_follow_fills_the_screen(
    job: Job, terminal: Callable[..., Tmux], columns: int, charts: int, is_ascii: bool
) -> None:
    """Charts beside each other as wide as the terminal, in colour, in Unicode or ASCII."""
    follower = terminal(columns, 30)
    with open_monitor(job.config, "explorer", 0) as first, open_monitor(job.config, "explorer", 1) as second:
        for step in range(1, 31):
            first.log({f"metric_{at}": at + step / 30 for at in range(4)})
            second.log({f"metric_{at}": at - step / 30 for at in range(4)})
        follower.type(f"rolecall show --follow live{' --ascii' if is_ascii else ''}")
        follower.press("Enter")
        follower.until(lambda: re.search(r"explorer/0-1 +running +30 +60 ", follower.text()) is not None)
        lines = follower.text().splitlines()
        assert len(lines) == 30
        assert columns - charts < max(map(len, lines)) <= columns, "each chart is as wide"
        heads = next(line for line in lines if "metric_0" in line)
        assert heads.split()[::2] == [f"explorer/*/metric_{at}" for at in range(charts)]
        assert follower.text().isascii() == is_ascii
        assert any("⠀" < char <= "⣿" for char in follower.text()) != is_ascii
        coloured = follower.text("-e")
        assert "\x1b[36m" in coloured
        assert "\x1b[33m" in coloured, "each rank has a colour"
        follower.press("q")


@pytest.mark.parametrize(("end", "status"), [("q", 0), ("C-c", 130), ("TERM", 143), ("HUP", 129)])
def test_terminal_is_restored(job: Job, terminal: Callable[..., Tmux], end: str, status: int) -> None:
    follower = terminal()
    follower.type("stty -a > before; echo here; rolecall show --follow live; echo status $?; stty -a > after")
    follower.press("Enter")
    follower.until(lambda: "q: quit" in follower.text())
    if end in ("TERM", "HUP"):
        os.kill(follower_of(job), getattr(signal, f"SIG{end}"))
    else:
        follower.press(end)
    follower.until(lambda: f"status {status}" in follower.text())
    assert "here" in follower.text(), "what was there before"
    directory = job.config.monitor_dir.parent
    follower.until(lambda: (directory / "after").exists() and (directory / "after").stat().st_size > 0)
    assert (directory / "after").read_text() == (directory / "before").read_text()
    assert "flag=1" in follower._run("display-message", "-p", "flag=#{cursor_flag}"), "the cursor is seen"


def test_stopped_and_continued(job: Job, terminal: Callable[..., Tmux]) -> None:
    follower = terminal()
    follower.type("echo here; rolecall show --follow live")
    follower.press("Enter")
    follower.until(lambda: "q: quit" in follower.text())
    follower.press("C-z")
    follower.until(lambda: "here" in follower.text())
    follower.type("fg")
    follower.press("Enter")
    follower.until(lambda: "q: quit" in follower.text())
    follower.press("q")
    follower.until(lambda: "here" in follower.text())


def test_terminal_is_restored_after_an_error(job: Job, terminal: Callable[..., Tmux]) -> None:
    follower = terminal()
    follower.type("echo here; rolecall show --follow live; echo status $?")
    follower.press("Enter")
    follower.until(lambda: "q: quit" in follower.text())
    (job.config.monitor_dir / "run.json").rename(job.config.monitor_dir / "moved")
    follower.until(lambda: "status 2" in follower.text())
    assert "here" in follower.text()
    assert "not a monitor_dir" in follower.text()
    (job.config.monitor_dir / "moved").rename(job.config.monitor_dir / "run.json")


def test_space_goes_to_the_next_charts(job: Job, terminal: Callable[..., Tmux]) -> None:
    follower = terminal()
    with open_monitor(job.config, "trainer") as trainer:
        for step in (1, 2):
            trainer.log({f"metric_{at:02}": at * step for at in range(30)}, step)
        follower.type("rolecall show --follow live")
        follower.press("Enter")
        follower.until(lambda: "charts 1-4 of 30" in follower.text())
        follower.press("Space")
        follower.until(lambda: "charts 5-8 of 30" in follower.text())
        assert re.search(r"^trainer/metric_04 .*trainer/metric_05 ", follower.text(), re.MULTILINE)
        follower.press("b")
        follower.until(lambda: "charts 1-4 of 30" in follower.text())
        follower.press("q")


def test_pictures_are_few(job: Job) -> None:
    """None while nothing is new, and at most ten a second while there is."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    command = [sys.executable, "-m", "rolecall", "show", "--follow", str(job.config.monitor_dir)]
    with (
        open_monitor(job.config, "trainer") as trainer,
        subprocess.Popen(command, stdin=inside, stdout=inside, env=environment, start_new_session=True) as follower,
    ):
        trainer.log({"loss": 1.0})
        first = read_from(terminal, PATIENCE, b"q: quit")
        if b"trainer/loss" not in first:
            read_from(terminal, PATIENCE, b"trainer/loss")
        # A picture of the last row may still be due.
        read_from(terminal, 1.0)
        assert read_from(terminal, 1.0) == b""
        begin = time.monotonic()
        drawn = b""
        for step in range(2, 202):
            trainer.log({"loss": 1 / step}, step)
            drawn += read_from(terminal, 0.01)
        drawn += read_from(terminal, PATIENCE, b"201")
        pictures = drawn.count(b"\x1b[?2026h")
        assert 1 <= pictures <= 10 * (time.monotonic() - begin) + 1
        os.write(terminal, b"q")
        assert follower.wait(PATIENCE) == 0
    os.close(inside)
    os.close(terminal)


def read_from(terminal: int, seconds: float, until: bytes | None = None) -> bytes:
    """What is written there in this time, or until something is."""
    found, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and (until is None or until not in found):
        if select.select([terminal], [], [], left)[0]:
            found += os.read(terminal, 1 << 16)
    assert until is None or until in found
    return found


def follower_of(job: Job) -> int:
    """The process that follows a job."""
    wanted = ["show", "--follow", "live"]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode().split("\0")[:-1]
            is_here = Path(os.readlink(path.parent / "cwd")) == job.config.monitor_dir.parent
        except OSError:
            continue
        if arguments[-3:] == wanted and is_here and "python" in arguments[0]:
            return int(path.parent.name)
    raise AssertionError("nobody follows the job")
