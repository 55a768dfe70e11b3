"""What a backend holds is compared with the journals, and put back where it is missing."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

from rolecall import MonitorConfig, WriterConflict, launch, open_monitor
from rolecall.__main__ import main
from rolecall.delivery.check.compare import RunReport
from rolecall.delivery.check.verify import Repair, verify
from rolecall.delivery.redeliver import deliver, open_job
from rolecall.job.status import read_deliveries
from rolecall.store.acks import Acknowledgements, Position
from rolecall.store.layout import Layout, read_record

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]
STEPS = range(1, 201)


def run_job(config: MonitorConfig, roles: tuple[str, ...] = ("trainer", "evaluator")) -> Path:
    """A finished job, all of which its backends hold; returns its directory."""
    with launch(config) as job:
        for role in roles:
            with open_monitor(job.config, role) as monitor:
                for step in STEPS:
                    # a metric called like the step gives way in a shared run
                    monitor.log({"loss": 1 / step, "odd": float("nan"), "step": -step}, step)
    return config.monitor_dir


@pytest.fixture
def shared(make_config: MakeConfig) -> Path:
    return run_job(make_config())


@pytest.fixture
def separate(make_config: MakeConfig) -> Path:
    return run_job(make_config(shared_run=False))


def check(root: Path, timeout: float = 60.0, *, repair: bool = False, **options: Any) -> list[RunReport]:
    def send(backend: str, timeout: float) -> None:
        deliver(root, backend, {}, timeout)

    wanted = Repair(deliver=send, **options) if repair else None
    return verify(open_job(root, None, {}), timeout, wanted)


def counts(report: RunReport) -> tuple[str, int, int, int]:
    total = report.total()
    return report.state, total.missing, total.extra, total.different


EQUAL = ("equal", 0, 0, 0)


def tamper(file: Path) -> None:
    """Of a writer's rows, 40 are deleted, 10 altered and 10 doubled."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [line for line in lines if line.get("writer") == "trainer"]
    for row in rows[100:110]:
        key = next(key for key in row["metrics"] if key.endswith("loss"))
        row["metrics"][key] = 7.0
    kept = [line for line in lines if line not in rows[20:60]]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*kept, *rows[120:130]]))


def run_file(server: LinesServer, writer: str = "") -> Path:
    (name,) = (name for name in server.runs() if name.endswith(writer))
    return server.path / f"{name}.jsonl"


# ------------------------------------------------------------------ what is found


@pytest.mark.parametrize("job", ["shared", "separate"])
def test_untouched_runs_are_equal(request: pytest.FixtureRequest, job: str) -> None:
    reports = check(request.getfixturevalue(job))
    assert {counts(report) for report in reports} == {EQUAL}
    assert sum(report.points for report in reports) == sum(report.held for report in reports) == 2 * 3 * len(STEPS)
    assert [report.shared for report in reports] == ([True] if job == "shared" else [False, False])


def test_deleted_altered_and_doubled_rows(shared: Path, server: LinesServer) -> None:
    tamper(run_file(server))
    (report,) = check(shared)
    assert counts(report) == ("different", 3 * 40, 3 * 10, 10)
    assert report.metrics.keys() == {"trainer/loss", "trainer/odd", "trainer/step_"}
    assert {each.kind for each in report.examples} == {"missing", "extra", "different"}


def test_run_is_repaired_in_place(shared: Path, server: LinesServer) -> None:
    """What was altered or doubled stays as it is."""
    tamper(run_file(server))
    (report,) = check(shared, repair=True)
    assert (counts(report), report.sent, report.new_run) == (("different", 0, 30, 10), 40, False)
    ends = [line for line in server.lines() if "closed" in line]
    assert [line["primary"] for line in ends][-1] is False, "a repair ends no run"
    sent = [line for line in server.lines() if line.get("writer") == "trainer"][-40:]
    assert [line["step"] for line in sent] == [*range(21, 61)]
    assert {tuple(line["metrics"]) for line in sent} == {
        ("trainer/loss", "trainer/odd", "trainer/step", "trainer/step_")
    }


def test_lost_metric_is_sent_alone(shared: Path, server: LinesServer) -> None:
    file = run_file(server)
    file.write_text(file.read_text().replace('"trainer/loss": 0.5, ', ""))
    (report,) = check(shared, repair=True)
    assert (counts(report), report.sent) == (EQUAL, 1)
    assert server.lines()[-2]["metrics"] == {"trainer/loss": 0.5, "trainer/step": 2}


def test_repair_leaves_delivery_as_it_was(shared: Path, server: LinesServer) -> None:
    record = read_record(Layout(shared))
    assert record is not None
    before = read_deliveries(Layout(shared), record.plan)
    tamper(run_file(server))
    check(shared, repair=True)
    assert read_deliveries(Layout(shared), record.plan) == before
    lines = len(server.lines())
    assert deliver(shared, None, {}, 30.0) == []
    assert len(server.lines()) == lines


def test_run_that_takes_no_points_in_place(separate: Path, server: LinesServer) -> None:
    """A new run has all of them, altered ones included; the old one is left alone."""
    old = run_file(server, "trainer")
    tamper(old)
    reports = {report.writers[0]: report for report in check(separate, repair=True)}
    assert counts(reports["trainer"]) == ("different", 120, 30, 10)
    assert reports["trainer"].problem == "a run of lines takes rows in order only"
    before = old.read_text()
    reports = {report.writers[0]: report for report in check(separate, repair=True, new_run=True)}
    assert {counts(report) for report in reports.values()} == {EQUAL}
    assert [reports[writer].new_run for writer in ("trainer", "evaluator")] == [True, False]
    assert reports["trainer"].id != old.stem
    assert old.read_text() == before
    assert {counts(report) for report in check(separate)} == {EQUAL}


@pytest.mark.parametrize("job", ["shared", "separate"])
def test_deleted_run_goes_to_new_one(request: pytest.FixtureRequest, server: LinesServer, job: str) -> None:
    root = request.getfixturevalue(job)
    file = run_file(server, "" if job == "shared" else "trainer")
    file.unlink()
    gone = [report for report in check(root) if report.state != "equal"]
    assert [(report.state, report.problem) for report in gone] == [("gone", f"{file} is not there")]
    assert [report.state for report in check(root, repair=True)].count("gone") == 1
    assert not file.exists()
    reports = check(root, repair=True, new_run=True)
    assert {counts(report) for report in reports} == {EQUAL}
    assert [report.new_run for report in reports].count(True) == 1
    assert not file.exists()
    lines = len(server.lines())
    assert deliver(root, None, {}, 30.0) == []
    assert len(server.lines()) == lines


def test_run_that_nobody_knows(shared: Path, server: LinesServer) -> None:
    """What the backend calls it was lost with the launcher's delivery."""
    shutil.rmtree(shared / "delivery" / "lines" / "@launch")
    (report,) = check(shared)
    assert report.state == "gone"
    assert "run.json is missing, which said what lines calls the run" in report.problem
    (report,) = check(shared, repair=True, new_run=True)
    assert counts(report) == EQUAL
    assert len(server.runs()) == 2


def test_new_run_that_cannot_be_opened(shared: Path, server: LinesServer) -> None:
    """Nothing changes, and it can be tried again."""
    run_file(server).unlink()
    server.fail("forbidden")
    # what is gone is seen before the credentials are
    assert [report.state for report in check(shared, repair=True, new_run=True)] == ["unreadable"]
    server.fix("forbidden")
    server.fail("hang", "open")
    assert [report.state for report in check(shared, 0.5)] == ["unreadable"]
    server.fix("hang")
    assert [counts(report) for report in check(shared, repair=True, new_run=True)] == [EQUAL]


def test_job_goes_on_in_its_new_run(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config(resume="allow")
    root = run_job(config)
    run_file(server).unlink()
    (report,) = check(root, repair=True, new_run=True)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.0}, 201)
    assert server.runs() == [report.id]
    assert [counts(report) for report in check(root)] == [EQUAL]


# ------------------------------------------------------------------ what is no difference


def test_rows_that_wait_are_not_missing(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 0.1)
    config = make_config(resume="allow")
    root = run_job(config, ("trainer",))
    with launch(config) as job:
        monitor = open_monitor(job.config, "trainer")
        server.fail("down")
        monitor.log({"loss": 1.0})
        monitor.close(timeout=0)
        job.close(timeout=10)
    server.fix("down")
    capsys.readouterr()
    assert main(["verify", str(root)]) == 0
    said = capsys.readouterr().out
    assert "  1 rows are not delivered yet\n" in said
    assert f"deliver {root}" in said


@pytest.mark.parametrize("is_opened", [False, True])
def test_nothing_delivered_is_not_equal(
    make_config: MakeConfig,
    server: LinesServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_opened: bool,
) -> None:
    """Whether or not the run was opened before the backend went away."""
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 0.1)
    if not is_opened:
        server.fail("down")
    with launch(make_config(open_timeout=0.1 if not is_opened else 30.0)) as job:
        monitor = open_monitor(job.config, "trainer")
        server.fail("down")
        monitor.log({"loss": 1.0})
        monitor.summary["best"] = 1.0
        monitor.close(timeout=0)
        job.close(timeout=10)
    server.fix("down")
    root = job.config.monitor_dir
    capsys.readouterr()
    assert main(["verify", str(root)]) == 1
    said = capsys.readouterr().out
    assert "lines: all roles: nothing is delivered yet, so there is nothing to compare\n" in said
    assert "  1 rows are not delivered yet\n" in said
    assert f" deliver {root}\n" in said
    assert main(["verify", str(root), "--json"]) == 1
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["undelivered"]
    assert main(["deliver", str(root)]) == 0
    assert main(["verify", str(root)]) == 0


def test_held_rows_without_acknowledgement_are_not_extra(shared: Path) -> None:
    """They are on their way while a job runs, or their acknowledgement was lost."""
    shutil.rmtree(shared / "delivery" / "lines" / "trainer")
    (report,) = check(shared)
    assert (counts(report), report.points, report.held) == (EQUAL, 600, 1200)
    assert report.waiting == len(STEPS)


def test_rejected_rows_are_not_missing(make_config: MakeConfig, server: LinesServer) -> None:
    server.fail("picky", "[3, 4]")
    root = run_job(make_config(), ("trainer",))
    (report,) = check(root)
    assert (counts(report), report.points) == (EQUAL, 3 * (len(STEPS) - 2))
    # a new run may take them
    server.fix("picky")
    run_file(server).unlink()
    (report,) = check(root, repair=True, new_run=True)
    assert (counts(report), report.points) == (EQUAL, 3 * len(STEPS))


def test_damaged_journal_is_named(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it lost seems to be extra in the backend."""
    journal = shared / "journal" / "trainer" / "1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"data"', b'"DATA"')
    journal.write_bytes(b"".join(lines))
    assert main(["verify", str(shared)]) == 1
    said = capsys.readouterr().out
    assert "trainer/loss at step 5: 0.2 is extra" in said
    assert f"  damaged: {journal}" in said


def test_cleaned_rows_are_not_extra(
    shared: Path, server: LinesServer, capsys: pytest.CaptureFixture[str], make_config: MakeConfig
) -> None:
    """They are in no journal any more; what is logged afterwards is compared as ever."""
    assert main(["clean", str(shared)]) == 0
    with launch(make_config(resume="allow")) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 500)
    assert main(["verify", str(shared)]) == 0
    said = capsys.readouterr().out
    assert "lines: all roles: equal, 1 points\n  400 rows were removed by `rolecall clean`" in said
    file = run_file(server)
    file.write_text("".join(line for line in file.read_text().splitlines(True) if '"step": 500' not in line))
    assert [counts(report) for report in check(shared)] == [("different", 1, 0, 0)]


def test_nothing_was_delivered_yet(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config()
    launch(config).close()
    assert main(["verify", str(config.monitor_dir)]) == 0
    assert "nothing to compare" in capsys.readouterr().out


# ------------------------------------------------------------------ who may repair


def test_running_job_is_verified_but_not_repaired(
    make_config: MakeConfig, wait_until: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0})
        wait_until(lambda: main(["verify", str(config.monitor_dir)]) == 0)
        capsys.readouterr()
        assert main(["verify", str(config.monitor_dir), "--repair"]) == 2
        assert "a courier still sends rows of" in " ".join(capsys.readouterr().err.split())
    assert main(["verify", str(config.monitor_dir), "--repair"]) == 0


def test_courier_that_lives_is_left_alone(shared: Path, server: LinesServer) -> None:
    tamper(run_file(server))
    lines = len(server.lines())
    acks = Acknowledgements(Layout(shared), "lines", "trainer")
    with pytest.raises(WriterConflict, match="Repair the run once the job has ended"):
        check(shared, repair=True)
    acks.acknowledge(Position(1, 0, 0), 0)
    acks.release("finished")
    assert len(server.lines()) == lines


def test_record_of_somebody_else(shared: Path, server: LinesServer, capsys: pytest.CaptureFixture[str]) -> None:
    """It must not choose where credentials go."""
    (shared / "run.json").chmod(0o666)
    assert main(["verify", str(shared)]) == 2
    assert "others can write it, so its arguments of lines (path) are not used" in capsys.readouterr().err
    assert main(["verify", str(shared), "--trust"]) == 0
    assert main(["verify", str(shared), "--args", f"{{lines: {{path: {server.path}}}}}"]) == 0
    assert main(["verify", str(shared), "--backend", "lines", "--args", f"{{path: {server.path}}}"]) == 0


# ------------------------------------------------------------------ the command


def test_command_says_what_differs(shared: Path, server: LinesServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(shared)]) == 0
    assert capsys.readouterr().out == "lines: all roles: equal, 1200 points\n"
    tamper(run_file(server))
    assert main(["verify", str(shared)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:6] == [
        "lines: all roles: 1200 points in the journal, 1110 in the run",
        "  metric           missing      extra  different",
        "  trainer/loss          40         10         10",
        "  trainer/odd           40         10          0",
        "  trainer/step_         40         10          0",
        "  all                  120         30         10",
    ]
    assert "  trainer/loss at step 101: 7.0 instead of 0.009900990099009901" in said
    assert said[-1].endswith(f"verify {shared} --repair")


def test_tables_are_not_compared(
    make_config: MakeConfig, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, where any were logged."""
    says = "tables are not compared"
    assert main(["verify", str(shared)]) == 0
    assert says not in capsys.readouterr().out
    config = make_config(shared_run=False, monitor_dir=tmp_path / "other", name="other")
    with launch(config) as job:
        for role in ("trainer", "evaluator"):
            with open_monitor(job.config, role) as monitor:
                monitor.log_table("samples", [{"prompt": "2+2"}], 1)
    assert main(["verify", str(config.monitor_dir)]) == 0
    assert capsys.readouterr().out.splitlines().count(says) == 1
    assert [report.tables for report in check(config.monitor_dir)] == [1, 1]


def test_command_prints_json(shared: Path, server: LinesServer, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tamper(run_file(server))
    assert main(["verify", str(shared), "--json"]) == 1
    (report,) = json.loads(capsysbinary.readouterr().out)
    found = {name: report[name] for name in ("backend", "writers", "state", "missing", "extra", "different", "points")}
    assert found == {
        "backend": "lines",
        "writers": ["evaluator", "trainer"],
        "state": "different",
        "missing": 120,
        "extra": 30,
        "different": 10,
        "points": 1200,
    }
    assert report["metrics"]["trainer/odd"] == {"missing": 40, "extra": 10, "different": 0}
    altered = {"kind": "different", "key": "trainer/loss", "step": 101, "wanted": 1 / 101, "held": 7.0}
    assert altered in report["examples"]


def test_command_offers_new_run(shared: Path, server: LinesServer, capsys: pytest.CaptureFixture[str]) -> None:
    run_file(server).unlink()
    assert main(["verify", str(shared)]) == 1
    said = capsys.readouterr().out
    assert "lines: all roles: the run is gone" in said
    assert said.endswith(f"verify {shared} --repair --new-run\n")
    assert main(["verify", str(shared), "--repair", "--new-run"]) == 0
    assert "equal, 1200 points, after everything was sent to a new run\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("down", "the server is down"),
        ("broken", "RuntimeError: the plugin is broken"),
        ("forbidden", "the server refuses the api_key"),
        ("hang", "it was not compared within 0.5 s"),
    ],
)
def test_backend_that_cannot_be_read(
    shared: Path, server: LinesServer, capsys: pytest.CaptureFixture[str], fault: str, words: str
) -> None:
    server.fail(fault)
    try:
        assert main(["verify", str(shared), "--timeout", "0.5" if fault == "hang" else "60"]) == 3
        assert f"lines: all roles: could not be read: {words}" in capsys.readouterr().out
    finally:
        server.fix(fault)


def test_backend_that_is_never_read_back(
    two: tuple[MakeConfig, list[LinesServer]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not keep others from being compared."""
    make, _ = two
    root = run_job(make(), ("trainer",))
    assert main(["verify", str(root)]) == 0
    assert capsys.readouterr().out.startswith("lines: all roles: equal")
    assert main(["verify", str(root), "--backend", "lines-again"]) == 2
    assert "lines-again: what it holds cannot be read back" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--new-run"], "--new-run: is for --repair"),
        (["--backend", "local"], "--backend: nothing can be delivered to 'local'"),
        (["--backend", "mlfow"], "--backend: backend 'mlfow' is not installed"),
        (["--args", "{a: b}"], "--args: a: must be the arguments of a backend"),
    ],
)
def test_command_that_cannot_start(
    shared: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["verify", str(shared), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_directory_without_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "not a monitor_dir" in capsys.readouterr().err


def test_cleaned_rows_go_to_no_new_run(separate: Path, server: LinesServer) -> None:
    assert main(["clean", str(separate)]) == 0
    for writer in ("trainer", "evaluator"):
        run_file(server, writer).unlink()
    reports = check(separate, repair=True, new_run=True)
    assert {(report.state, report.new_run) for report in reports} == {("gone", False)}
    assert "a new run would lack them" in reports[0].problem


def test_backend_that_the_job_does_not_have(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(shared), "--backend", "console"]) == 2
    assert "nothing was delivered to console; the job has lines" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_while_a_backend_is_read(separate: Path, server: LinesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; it says which run of how many is compared."""
    monkeypatch.setattr("rolecall.timings.NOTICE", 0.05)
    server.fail("hang", "read")
    with redirect_stderr(Terminal()) as terminal:
        assert main(["verify", str(separate), "--timeout", "1"]) == 3
    server.fix("hang")
    assert "rolecall: comparing lines ╌" in terminal.getvalue()
    assert "╌ 0/2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
