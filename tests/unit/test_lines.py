"""What a job prints: a line at launch, one at the end, warnings for what needs a person, and the rest when asked."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from lines_server import LinesServer

from rolecall import ConfigError, MonitorConfig, launch, open_monitor
from rolecall.job.output.bar import Progress, bar
from rolecall.job.output.lines import JobPrinter

MakeConfig = Callable[..., MonitorConfig]
WaitUntil = Callable[..., None]
Output = pytest.CaptureFixture[str]
LOCAL = {"monitor_type": "local", "monitor_args": {}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in which the job's directory is `monitor`."""
    for name in ("ROLECALL_LOG", "ROLECALL_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def log_rows(config: MonitorConfig, role: str, rank: int | None = None, rows: int = 5) -> None:
    with open_monitor(config, role, rank) as monitor:
        for _ in range(rows):
            monitor.log({"loss": 0.5})


def lines(capsys: Output) -> list[str]:
    """What was printed, each command without the path of its program."""
    out, err = capsys.readouterr()
    assert out == ""
    return re.sub(r"\S*rolecall (show|deliver)", r"rolecall \1", err).splitlines()


# ------------------------------------------------------------------------------------ at launch and at the end


def test_two_lines_for_a_job_of_several_roles(make_config: MakeConfig, server: LinesServer, capsys: Output) -> None:
    args = {"lines": {"path": server.path}}
    with launch(make_config(monitor_type=["lines", "local"], monitor_args=args)) as job:
        log_rows(job.config, "explorer", 0)
        log_rows(job.config, "explorer", 1)
        log_rows(job.config, "trainer", rows=1)
    assert lines(capsys) == [
        f"rolecall: run grpo-1 -> lines://{job.run_id}",
        "rolecall: 11 rows: lines 11, local 11 · rolecall show monitor",
    ]


def test_command_where_no_run_is_open(make_config: MakeConfig, capsys: Output) -> None:
    """As each role opens its own."""
    with launch(make_config(shared_run=False)) as job:
        log_rows(job.config, "trainer", rows=1)
    assert lines(capsys) == [
        "rolecall: run grpo-1 -> rolecall show monitor",
        "rolecall: 1 row: lines 1 · rolecall show monitor",
    ]


def test_role_that_launches_prints_its_own_run(make_config: MakeConfig, capsys: Output) -> None:
    with open_monitor(make_config(shared_run=False), "trainer", primary=True) as monitor:
        monitor.log({"loss": 0.5})
    assert lines(capsys) == [
        f"rolecall: run grpo-1 -> {monitor.url}",
        "rolecall: 1 row: lines 1 · rolecall show monitor",
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_first_and_last_of_any_print(make_config: MakeConfig, capsys: Output, shared: bool) -> None:
    """With `primary="auto"`, the launcher may leave before the others do."""
    first = open_monitor(make_config(shared_run=shared), "explorer", primary="auto")
    second = open_monitor(make_config(shared_run=shared), "trainer", primary="auto")
    assert len(lines(capsys)) == 1
    first.log({"loss": 0.5})
    first.close()
    assert lines(capsys) == []
    second.close()
    assert lines(capsys) == ["rolecall: 1 row: lines 1 · rolecall show monitor"]


def test_roles_print_nothing(make_config: MakeConfig) -> None:
    code = """
from rolecall import MonitorConfig, open_monitor
with open_monitor(MonitorConfig.from_env(), "trainer") as monitor:
    monitor.log({"loss": 0.5})
"""
    with launch(make_config(courier="process")) as job:
        env = {**os.environ, **job.config.to_env()}
        ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_rejected_rows_are_not_held(make_config: MakeConfig, server: LinesServer, capsys: Output) -> None:
    server.fail("picky", "[2]")
    with launch(make_config()) as job:
        log_rows(job.config, "trainer", rows=2)
    assert lines(capsys)[-1] == "rolecall: 2 rows: lines 1 (1 rejected) · rolecall show monitor"


def test_rows_of_earlier_launches_count(make_config: MakeConfig, capsys: Output) -> None:
    for _ in range(2):
        with launch(make_config(resume="allow")) as job:
            log_rows(job.config, "trainer")
    assert lines(capsys)[-1] == "rolecall: 10 rows: lines 10 · rolecall show monitor"


def test_directory_that_does_not_answer(
    make_config: MakeConfig, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError

    with launch(make_config(**LOCAL)) as job:
        log_rows(job.config, "trainer")
        monkeypatch.setattr("rolecall.job.output.lines.read_totals", fail)
    assert lines(capsys)[-1] == "rolecall: run grpo-1 has ended · rolecall show monitor"


def test_end_where_no_thread_starts(make_config: MakeConfig, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in functions of `atexit` in Python 3.12.1."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    job = launch(make_config(**LOCAL))
    log_rows(job.config, "trainer")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    job.close()
    assert lines(capsys)[-1] == "rolecall: 5 rows: local 5 · rolecall show monitor"


def test_program_without_standard_error(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with launch(make_config(**LOCAL)):
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)


# ----------------------------------------------------------------------------------------- a backend is away


def test_one_warning_for_a_job_of_several_roles(
    make_config: MakeConfig,
    server: LinesServer,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
    capsys: Output,
) -> None:
    """And what is left is in the last line, which stands for all roles."""
    caplog.set_level(logging.INFO, "rolecall")
    with launch(make_config()) as job:
        server.fail("down")
        monitors = [open_monitor(job.config, "explorer", rank) for rank in range(3)]
        for monitor in monitors:
            monitor.log({"loss": 0.5})
        wait_until(lambda: caplog.text.count("not available, rows wait in the journal") == 3)
        for monitor in monitors:
            monitor.close(timeout=0.1)
        job.close(timeout=0.1)
        assert caplog.text.count("1 rows not yet in lines") == 3
        assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == [
            next(message for message in caplog.messages if "not available" in message)
        ]
        # The couriers are threads of this process, which may end now.
        assert lines(capsys)[-1] == "rolecall: 3 rows: lines 0 · to send the rest, run: rolecall deliver monitor"
        server.fix("down")


def test_launcher_warns_for_roles_that_join(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """They cannot open the run before it can, and that is no news."""
    caplog.set_level(logging.INFO, "rolecall")
    server.fail("down")
    with launch(make_config()) as job, open_monitor(job.config, "explorer"), open_monitor(job.config, "trainer"):
        wait_until(lambda: caplog.text.count("not available, rows wait in the journal") == 3)
        server.fix("down")
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]
    assert warning.startswith("lines: not available, rows wait in the journal: ")


def test_couriers_that_go_on(
    make_config: MakeConfig, server: LinesServer, wait_until: WaitUntil, capsys: Output
) -> None:
    with launch(make_config(courier="process")) as job:
        server.fail("down")
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 0.5})
        monitor.close(timeout=0.1)
        job.close(timeout=0.1)
        rest = "the rest is on its way; should it not arrive, run: rolecall deliver monitor"
        assert lines(capsys)[-1] == f"rolecall: 1 row: lines 0 · {rest}"
        server.fix("down")
        wait_until(lambda: server.seqs("trainer") == [(1, 1)])


LAUNCH_AND_DIE = """
import os
from rolecall import MonitorConfig, launch
job = launch(MonitorConfig.from_env())
print(job.config.to_env()["ROLECALL_CONFIG"], flush=True)
os._exit(9)
"""


def test_role_whose_launcher_died_warns(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As nobody else will say what is left."""
    command = [sys.executable, "-c", LAUNCH_AND_DIE]
    env = {**os.environ, **make_config().to_env()}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    monitor = open_monitor(MonitorConfig.from_env({"ROLECALL_CONFIG": ran.stdout.strip()}), "trainer")
    server.fail("down")
    monitor.log({"loss": 0.5})
    monitor.close(timeout=0.1)
    (record,) = [each for each in caplog.records if "1 rows not yet in lines" in each.getMessage()]
    assert record.levelname == "WARNING"
    server.fix("down")


# --------------------------------------------------------------------------------------------- ROLECALL_LOG


@pytest.mark.parametrize("level", ["warning", "error", "ERROR"])
def test_lines_can_be_silenced(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, capsys: Output, level: str
) -> None:
    monkeypatch.setenv("ROLECALL_LOG", level)
    with launch(make_config(**LOCAL)):
        pass
    assert lines(capsys) == []


DOES_ALL = """
from rolecall import MonitorConfig, launch, open_monitor
with launch(MonitorConfig.from_env()) as job, open_monitor(job.config, "trainer") as monitor:
    monitor.log({"loss": object()})
"""


@pytest.mark.parametrize(
    ("level", "printed"),
    [("debug", {"run", "must be", "opened"}), ("info", {"run", "must be"}), ("warning", {"must be"}), ("error", set())],
)
def test_level_says_how_much(make_config: MakeConfig, level: str, printed: set[str]) -> None:
    """In a program that has not set up logging."""
    env = {**os.environ, **make_config().to_env(), "ROLECALL_LOG": level}
    ran = subprocess.run([sys.executable, "-c", DOES_ALL], env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert {word for word in ("run", "must be", "opened") if word in ran.stderr} == printed
    assert [line for line in ran.stderr.splitlines() if not line.startswith("rolecall: ")] == []


def test_programs_own_logging_is_used(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    caplog: pytest.LogCaptureFixture,
    wait_until: WaitUntil,
) -> None:
    """What pytest's handlers have got is not printed once more; the level is the program's again after that."""
    monkeypatch.setenv("ROLECALL_LOG", "debug")
    with launch(make_config()):
        wait_until(lambda: "lines: opened" in caplog.messages)
    assert len(lines(capsys)) == 2
    monkeypatch.delenv("ROLECALL_LOG")
    with launch(make_config(**LOCAL)):
        assert logging.getLogger("rolecall").level == logging.NOTSET


def test_unknown_level_is_refused(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_LOG", "verbose")
    with pytest.raises(ConfigError, match="ROLECALL_LOG: must be one of debug, info, warning, error"):
        launch(make_config(**LOCAL))


# ------------------------------------------------------------------------------------- ROLECALL_MODE


def test_mode_turns_all_of_it_off(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, capsys: Output, folder: Path
) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    assert (job._repr_html_(), monitor._repr_html_()) == ("monitoring is off", "monitoring is off")
    assert not (folder / "monitor").exists()
    assert lines(capsys) == []


def test_unknown_mode_is_refused(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was meant to turn off something."""
    monkeypatch.setenv("ROLECALL_MODE", "disable")
    with pytest.raises(ConfigError, match=r"^ROLECALL_MODE: must be 'disabled', or not be set"):
        make_config()


# ------------------------------------------------------------------------------------ what takes longer


def test_waiting_for_a_launcher_is_reported(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rolecall.timings.NOTICE", 0.2)
    with pytest.raises(ConfigError, match=r"no job runs in monitor_dir .* \(waited 1 s\)"):
        open_monitor(make_config(**LOCAL), "trainer", open_timeout=0.8)
    directory = make_config().monitor_dir
    assert caplog.messages == [f"trainer: waiting up to 1 s for a launcher in monitor_dir {directory}"]


def test_short_wait_is_not_reported(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="no job runs"):
        open_monitor(make_config(**LOCAL), "trainer", open_timeout=0.3)
    assert caplog.messages == []


def test_open_timeout_of_a_call_and_of_a_config(make_config: MakeConfig, server: LinesServer) -> None:
    """A backend that takes longer is opened later."""
    server.fail("hang", "open")
    job = launch(make_config(open_timeout=0.1))
    monitor = open_monitor(job.config, "trainer", open_timeout=0)
    assert monitor.url is None
    monitor.close(timeout=0.1)
    job.close(timeout=0.1)
    server.fix("hang")


@pytest.mark.parametrize("seconds", [-1, 1e9, float("nan"), "30"])
def test_odd_open_timeouts_are_refused(make_config: MakeConfig, seconds: float) -> None:
    with pytest.raises(ConfigError, match="open_timeout: must be a number of seconds"):
        open_monitor(make_config(**LOCAL), "trainer", open_timeout=seconds)


class Terminal(io.StringIO):
    """A terminal's standard error."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr("rolecall.timings.NOTICE", 0.05)
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_bar_is_drawn_and_erased(terminal: Terminal, wait_until: WaitUntil) -> None:
    with redirect_stderr(terminal), bar(lambda: Progress("sending rows to mlflow", 50, 100)):
        wait_until(lambda: "sending" in terminal.getvalue())
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert drawn[1] == f"rolecall: sending rows to mlflow {'━' * 10}{'╌' * 10} 50/100"
    assert drawn[-1] == ""


def test_bar_is_cut_to_the_terminal(terminal: Terminal, wait_until: WaitUntil) -> None:
    """A longer one would leave a line behind each time it is drawn."""
    with redirect_stderr(terminal), bar(lambda: Progress("x" * 200)):
        wait_until(lambda: "xxx" in terminal.getvalue())
    assert max(len(line) for line in terminal.getvalue().split("\r\x1b[K")) == 79


def test_no_bar_for_what_is_quick_or_no_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rolecall.timings.NOTICE", 60.0)
    with redirect_stderr(terminal), bar(lambda: Progress("waiting")):
        pass
    assert terminal.getvalue() == ""
    monkeypatch.setattr(Terminal, "isatty", lambda _: False)
    with redirect_stderr(terminal), bar(lambda: pytest.fail("looked")):
        pass


def test_launcher_draws_what_it_waits_for(make_config: MakeConfig, server: LinesServer, terminal: Terminal) -> None:
    server.fail("hang", "open")
    with redirect_stderr(terminal):
        job = launch(make_config(open_timeout=1.0))
        assert re.search(r"rolecall: opening lines \([01] s\)", terminal.getvalue())
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"loss": 0.5})
        monitor.close(timeout=0.1)
        job.close(timeout=1.0)
    assert f"rolecall: sending rows to lines {'╌' * 20} 0/1" in terminal.getvalue()
    server.fix("hang")


# ---------------------------------------------------------------------------------------------- notebooks


def test_notebook_shows_links_and_commands(make_config: MakeConfig, folder: Path) -> None:
    config = make_config(**LOCAL, name="<b>")
    with launch(config) as job:
        printer = JobPrinter(config.name, folder / "a&b", job.plan)
        html = printer.html({"web": "https://x.example/?a=1&b=2", "mlflow": "mlflow ui --x '<y>'", "local": None})
        assert html.startswith("run <b>&lt;b&gt;</b>: ")
        assert '<a href="https://x.example/?a=1&amp;b=2" target="_blank">https://x.example/?a=1&amp;b=2</a>' in html
        assert "<code>mlflow ui --x &#x27;&lt;y&gt;&#x27;</code>" in html
        assert re.search(r"<code>\S*rolecall show &#x27;a&amp;b&#x27;</code>$", html)
        with open_monitor(job.config, "trainer") as monitor:
            assert monitor._repr_html_().startswith("run <b>&lt;b&gt;</b>: <code>")
