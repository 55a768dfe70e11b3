"""What a writer says of its run beside rows: config, summary and tags. It is journaled and delivered as rows are."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer

import rolecall
from rolecall import Job, Monitor, MonitorConfig, launch, open_monitor
from rolecall.__main__ import main
from rolecall.delivery.check.verify import verify
from rolecall.delivery.clean import clean
from rolecall.errors import ConfigError
from rolecall.job.history import read_details, read_history, read_rows
from rolecall.job.status import read_deliveries
from rolecall.rows import Details
from rolecall.store.acks import undelivered
from rolecall.store.details import details_of
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout, read_record
from rolecall.store.lease import Session, claim, is_held, newest

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]


class Hostile:
    """Anyone's object."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __str__(self) -> str:
        raise RuntimeError("no words")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(server: LinesServer, kind: str, by: str | None) -> list[Any]:
    """What a run was told, in order."""
    return [line[kind] for line in server.lines() if kind in line and line.get("by") == by]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return claim(tmp_path / "trainer", {"writer": "trainer"}, "it")


@pytest.fixture
def journal(session: Session) -> Iterator[JournalWriter]:
    writer = JournalWriter(session)
    yield writer
    writer.end("finished")


# ------------------------------------------------------------- in the journal


def test_changes_are_lines(session: Session, journal: JournalWriter) -> None:
    journal.append({"loss": 1.0}, 7)
    journal.change(lambda _: {"config": {"lr": 0.1}})
    journal.change(lambda _: {"summary": {"best": math.nan}})
    journal.change(lambda _: {"tags": []})
    journal.change(lambda _: {})
    journal.append({"loss": 2.0})
    *_, first, second, third, row = lines(session.path)
    for number, line in enumerate((first, second, third), start=1):
        assert line.pop("only") == {"": number}
        del line["time"], line["sum"]
    assert first == {"seq": 2, "step": 7, "config": {"lr": 0.1}}
    assert second == {"seq": 3, "step": 7, "summary": {"best": "NaN"}}
    assert third == {"seq": 4, "step": 7, "tags": []}
    assert (row["seq"], row["step"]) == (5, 8)


@pytest.mark.parametrize("rows", [0, 1, 900, 1000, 2500])
def test_details_are_found_from_the_end(session: Session, journal: JournalWriter, rows: int) -> None:
    """Also where the last 1,000 lines hold none of the changes."""
    journal.change(lambda _: {"config": {"lr": 0.1, "seed": 1}, "tags": ["a"]})
    journal.change(lambda _: {"summary": {"best": 0.5, "draft": "x"}})
    for _ in range(rows):
        journal.append({"loss": 1.0})
    journal.change(lambda _: {"summary": {"draft": None}, "config": {"lr": 0.2}})
    expected = Details(config={"lr": 0.2, "seed": 1}, summary={"best": 0.5}, tags=("a",))
    assert details_of(session) == journal.details == expected
    journal.end("finished")
    assert details_of(session) == expected


@pytest.mark.parametrize("change", [{"config": 1}, {"summary": [1]}, {"tags": "a"}, {"summary": {"a": {"b": 1}}}])
def test_strange_change_is_left_out(session: Session, journal: JournalWriter, change: dict[str, Any]) -> None:
    journal.append({}, more=change)
    assert details_of(session) == Details()


def test_change_is_no_row(make_config: MakeConfig) -> None:
    job = launch(make_config(monitor_type="local", monitor_args={}))
    with job, open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as monitor:
        monitor.update_config({"seed": 1})
        monitor.log({"loss": 1.0})
        monitor.summary["best"] = 0.9
    root = job.config.monitor_dir
    assert [(row.seq, row.step) for row in read_rows(root)] == [(2, 1)]
    (writer,) = read_history(root).writers
    assert (writer.rows, writer.damages) == (1, [])
    assert read_details(root) == {"trainer": Details(config={"lr": 0.1, "seed": 1}, summary={"best": 0.9})}


def test_clean_keeps_details(make_config: MakeConfig) -> None:
    with launch(make_config(shared_run=False)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0})
        monitor.summary["best"] = 0.9
    list(clean(job.config.monitor_dir))
    layout = Layout(job.config.monitor_dir)
    assert not list(read_rows(layout.root))
    assert read_details(layout.root)["trainer"].summary == {"best": 0.9}


# ---------------------------------------------------------------- in the role


def test_summary_is_a_mapping(monitor: Monitor) -> None:
    monitor.summary["best"] = 0.9
    monitor.summary.update({"worst": 0.1}, note="ok")
    del monitor.summary["worst"]
    assert dict(monitor.summary) == {"best": 0.9, "note": "ok"}
    assert (len(monitor.summary), monitor.summary.get("worst"), repr(monitor.summary)[:7]) == (2, None, "{'best'")
    with pytest.raises(KeyError):
        del monitor.summary["worst"]
    monitor.summary.clear()
    assert not monitor.summary


def test_tags_are_a_set(monitor: Monitor) -> None:
    monitor.tags.add("a")
    monitor.tags |= {"b"}
    monitor.tags.discard("a")
    monitor.tags.discard("z")
    assert monitor.tags == {"b"}
    assert monitor.tags | {"c"} == {"b", "c"}
    monitor.tags = ("x", "y", "x")
    assert list(monitor.tags) == ["x", "y"]


def test_summary_grows_at_little_cost() -> None:
    """A loop sets thousands of values one by one: each time, only what changes is looked at."""
    looked_at: list[str] = []

    class Watched:
        """No number at sight: `isinstance` has to ask it."""

        def __getattribute__(self, name: str) -> Any:
            looked_at.append(name)
            return object.__getattribute__(self, name)

    value: Any = Watched()
    details = Details(summary={"kept": value}).plus({"summary": {"best": 0.9, "draft": None}})
    assert details.summary == {"kept": value, "best": 0.9}
    assert not looked_at


def test_equal_values_are_no_change(monitor: Monitor) -> None:
    for _ in range(3):
        monitor.summary["best"] = 0.9
        monitor.tags.add("a")
    assert monitor._written is not None
    assert monitor._written.seq == 2


@pytest.mark.parametrize(
    ("set_it", "message"),
    [
        pytest.param(lambda m: m.summary.update(a=Hostile()), "a: a value of the summary must be", id="value"),
        pytest.param(lambda m: m.summary.__setitem__(3, 1.0), "3: a key must be a string", id="key"),
        pytest.param(lambda m: m.summary.update(a={"b": 1}), "a: a value of the summary must be", id="nested"),
        pytest.param(lambda m: m.summary.update(5), "summary: it cannot be recorded (TypeError)", id="no mapping"),
        pytest.param(lambda m: m.tags.add("x" * 65), "a tag must have 1 to 64 characters, not 65", id="long tag"),
        pytest.param(lambda m: m.tags.add(None), "None: a tag must be a string", id="no tag"),
        pytest.param(lambda m: m.tags.add("a\nb"), "a tag must consist of printable characters", id="tag of two lines"),
        pytest.param(lambda m: m.log({}, axis=3), "3: the name of an axis must be a string", id="axis"),
        pytest.param(lambda m: m.update_config({"a": Hostile()}), "update_config: a: it cannot be read", id="config"),
    ],
)
def test_bad_values_are_left_out(
    monitor: Monitor, caplog: pytest.LogCaptureFixture, set_it: Callable[[Monitor], None], message: str
) -> None:
    """Counted, warned of once, and training goes on."""
    for _ in range(2):
        set_it(monitor)
    assert monitor.dropped == 2
    assert caplog.text.count(message) == 1
    assert not monitor.summary
    assert not monitor.tags


def test_secrets_are_masked(monitor: Monitor, job: Job) -> None:
    monitor.update_config({"api_key": "sesame-open", "uri": "https://user:sesame-open@host"})
    (path,) = (job.config.monitor_dir / "journal" / "trainer").glob("*.jsonl")
    assert "sesame-open" not in path.read_text()
    assert '"api_key":"**********"' in path.read_text()


def test_full_disk_raises_nothing(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set is read back, and a later line has it."""

    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("rolecall.store.journal.os.write", refuse)
        monitor.summary["best"] = 0.9
    assert (monitor.lost, dict(monitor.summary)) == (1, {"best": 0.9})
    monitor.close()
    assert monitor._written is not None
    assert details_of(monitor._written.session).summary == {"best": 0.9}


def test_after_close_it_is_counted(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    monitor.summary["best"] = 0.9
    monitor.close()
    monitor.summary["best"] = 1.0
    monitor.update_config({"a": 1})
    assert (dict(monitor.summary), monitor.dropped) == ({"best": 0.9}, 2)
    assert "summary: the change is left out, as the monitor is closed" in caplog.text


def test_disabled_monitor_reads_back(make_config: MakeConfig) -> None:
    with open_monitor(make_config(monitor_type="none", monitor_args={}), "trainer") as monitor:
        monitor.summary["best"] = 0.9
        monitor.tags.add("a")
        monitor.update_config({"lr": 1})
        assert (dict(monitor.summary), set(monitor.tags), monitor.dropped) == ({"best": 0.9}, {"a"}, 0)


def test_restarted_role_reads_back(make_config: MakeConfig) -> None:
    """What it is opened with is later than what it changed before."""
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as monitor:
            monitor.update_config({"lr": 0.05, "seed": 1})
            monitor.summary["best"] = 0.9
            monitor.tags.add("a")
        for _ in range(2):
            with open_monitor(job.config, "trainer", run_config={"lr": 0.2}) as monitor:
                assert (dict(monitor.summary), set(monitor.tags)) == ({"best": 0.9}, {"a"})
    assert read_details(job.config.monitor_dir)["trainer"].config == {"lr": 0.2, "seed": 1}


def test_init_takes_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLECALL_MONITOR_TYPE", raising=False)
    with rolecall.init("p", tags=["a", "b"]) as monitor:
        assert list(monitor.tags) == ["a", "b"]
        monitor.tags.discard("a")
    (record,) = tmp_path.rglob("run.json")
    assert read_details(record.parent)["main"].tags == ("b",)
    for wrong in ([""], ["x" * 65], [3], 5):
        with pytest.raises(ConfigError, match=r"tags: .* must be strings of 1 to 64 printable characters"):
            rolecall.init("p", tags=wrong)  # type: ignore[arg-type]


# -------------------------------------------------------------- to the backend


def test_separate_run_is_told(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    with launch(make_config(shared_run=False), run_config={"seed": 1}) as job:
        with open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as monitor:
            monitor.update_config({"lr": 0.05})
            wait_until(lambda: told(server, "config", "trainer"))
            monitor.update_config({"gamma": 1.0})
            monitor.summary["best"] = 0.9
            monitor.tags.add("a")
        assert told(server, "config", "trainer") == [{"lr": 0.05}, {"lr": 0.05, "gamma": 1.0}]
        assert told(server, "summary", "trainer")[-1] == {"best": 0.9}
        assert told(server, "tags", "trainer")[-1] == ["a"]
        # It is a part of what the run is opened with from then on.
        open_monitor(job.config, "trainer", run_config={"lr": 0.2}).close()
    assert told(server, "run_config", "trainer")[-1] == {"seed": 1, "lr": 0.2, "gamma": 1.0}
    assert told(server, "run_tags", "trainer") == [["a"]]


def test_shared_run_is_told(make_config: MakeConfig, server: LinesServer) -> None:
    """The config and the tags of all roles, and the summary of each under its prefix."""
    with launch(make_config()) as job, open_monitor(job.config, "trainer", run_config={"lr": 0.1}) as trainer:
        with open_monitor(job.config, "explorer", 0) as explorer:
            trainer.update_config({"lr": 0.05})
            explorer.update_config({"n": 8})
            trainer.summary["best"] = 0.9
            explorer.summary["step"] = "x"
            explorer.tags.add("b")
        trainer.tags.add("a")
    assert told(server, "config", None)[-1] == {"trainer": {"lr": 0.05}, "explorer/0": {"n": 8}}
    assert told(server, "summary", "trainer") == [{"trainer/best": 0.9}]
    assert told(server, "summary", "explorer/0") == [{"explorer/0/step_": "x"}], "a step is no value of the summary"
    assert told(server, "tags", None)[-1] == ["b", "a"]
    assert not told(server, "tags", "trainer"), "the primary alone has tags"


def test_changes_are_acknowledged(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    """A change that the backend did not take is left over, as a row is."""
    server.fail("hang", "tell")
    with launch(make_config(shared_run=False)) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.summary["best"] = 0.9
        monitor.close(timeout=0.5)
        assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 1
        server.fix("hang")
    wait_until(lambda: undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0)
    assert told(server, "summary", "trainer") == [{"best": 0.9}]


@pytest.mark.parametrize("shared", [False, True])
def test_killed_courier_tells_again(
    make_config: MakeConfig, server: LinesServer, wait_until: Wait, shared: bool
) -> None:
    """Killed between the setting and the delivery: the next one tells all of it, and nothing old at the end."""
    with launch(make_config(courier="process", shared_run=shared)) as job:
        monitor = open_monitor(job.config, "trainer")
        delivery = Layout(job.config.monitor_dir).delivery("lines", "trainer")
        monitor.summary["worst"] = 0.1
        wait_until(lambda: told(server, "summary", "trainer"))
        server.fail("down")
        monitor.summary["best"] = 0.5
        monitor.update_config({"lr": 0.05})
        monitor.summary["best"] = 0.9
        held = newest(delivery)
        assert held is not None
        owner = held.owner()
        assert owner is not None
        os.kill(owner.pid, signal.SIGKILL)
        server.fix("down")
        wait_until(lambda: is_held(delivery) and newest(delivery) != held)
        monitor.close()
    prefix = "trainer/" if shared else ""
    assert told(server, "summary", "trainer")[-1] == {f"{prefix}worst": 0.1, f"{prefix}best": 0.9}
    config = told(server, "config", None)[-1]["trainer"] if shared else told(server, "config", "trainer")[-1]
    assert config == {"lr": 0.05}
    assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0


def test_broken_summary_holds_up_no_row(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("stubborn")
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.summary["best"] = 0.9
        monitor.log({"loss": 2.0}, 2)
    assert server.seqs("trainer") == [(1, 1), (1, 3)]
    assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0
    assert caplog.text.count("it does not take the summary") == 1


# ------------------------------------------------------------- log(backends=)


def test_row_for_some_backends(two: Any, wait_until: Wait) -> None:
    make_config, (first, again) = two
    with launch(make_config(shared_run=False)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.log({"loss": 2.0}, 2, backends=["lines-again"])
        monitor.log({"loss": 3.0}, 3, backends=("lines", "lines-again"))
        monitor.log({"loss": 4.0}, 4, backends=[])
    assert first.seqs("trainer") == [(1, 1), (1, 3)]
    assert again.seqs("trainer") == [(1, 1), (1, 2), (1, 3)]
    layout = Layout(job.config.monitor_dir)
    assert [undelivered(layout, name, "trainer") for name in ("lines", "lines-again")] == [0, 0]
    assert [row.backends for row in read_rows(layout.root)] == [None, ("lines-again",), ("lines", "lines-again"), ()]


def test_what_was_logged_counts_as_rows(
    two: Any, wait_until: Wait, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each backend those that it was to get; no change of the config, the summary or the tags."""
    make_config, (first, _) = two
    monkeypatch.setattr("rolecall.timings.DRAIN_TIMEOUT", 1.0)
    with launch(make_config(shared_run=False)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.summary["best"] = 1.0
        monitor.log({"loss": 2.0}, 2, backends=["lines-again"])
        wait_until(lambda: deliveries(job) == {"lines": (1, 0), "lines-again": (2, 0)})
        first.fail("down")
        monitor.update_config({"lr": 0.1})
        monitor.tags.add("a")
        monitor.log({"loss": 3.0}, 3, backends=["lines"])
        monitor.log({"loss": 4.0}, 4, backends=["lines-again"])
        monitor.log({"loss": 5.0}, 5, backends=[])
        wait_until(lambda: deliveries(job) == {"lines": (1, 1), "lines-again": (3, 0)})
    assert "rolecall: 5 rows: lines 1, lines-again 3 · to send the rest, run: " in capsys.readouterr().err
    first.fix("down")
    assert main(["deliver", str(job.config.monitor_dir)]) == 0
    assert deliveries(job) == {"lines": (2, 0), "lines-again": (3, 0)}
    capsys.readouterr()
    assert main(["ls", str(job.config.monitor_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["rows"] == 5


def deliveries(job: Job) -> dict[str, tuple[int, int]]:
    """How many rows each backend holds, and how many wait for it."""
    layout = Layout(job.config.monitor_dir)
    record = read_record(layout)
    assert record is not None
    return {each.backend: (each.delivered, each.waiting) for each in read_deliveries(layout, record.plan)}


def test_change_that_waits_is_no_row(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with launch(make_config(shared_run=False)) as job:
        monitor = open_monitor(job.config, "trainer")
        server.fail("hang", "tell")
        monitor.summary["best"] = 0.9
        with caplog.at_level(logging.INFO, "rolecall"):
            monitor.close(timeout=0.5)
        assert "trainer: the last changes of the config, the summary or the tags are not yet in lines" in caplog.text
        assert main(["deliver", str(job.config.monitor_dir), "--timeout", "0.5"]) == 1
        found = capsys.readouterr()
        assert "what it last changed of its config, summary or tags is not in lines yet" in found.err
        assert "something is left" in found.out
        server.fix("hang")


def test_unknown_backend_is_reported_once(monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        monitor.log({"loss": 1.0}, backends=["wanbd", "local"])
    monitor.log({"loss": 1.0}, backends="local")
    assert caplog.text.count("wanbd: there is no backend of this name") == 1
    assert "this job has local" in caplog.text
    assert monitor.dropped == 2


def test_backends_of_any_kind_raise_nothing(monitor: Monitor) -> None:
    for given in (5, [None], [["local"]], Hostile()):
        monitor.log({"loss": 1.0}, backends=given)  # type: ignore[arg-type]
    assert monitor._written is not None
    assert monitor._written.seq == 4


def test_verify_counts_no_row_of_others(two: Any) -> None:
    make_config, _ = two
    with launch(make_config(shared_run=False)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, 1)
        monitor.log({"loss": 2.0}, 2, backends=["lines-again"])
        monitor.summary["best"] = 0.9
    (report,) = verify(job.config.spec(), 30.0)
    assert (report.backend, report.state, report.points) == ("lines", "equal", 1)


def test_console_says_it(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rolecall.console")
    config = make_config(monitor_type="console", monitor_args={}, shared_run=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.update_config({"lr": 0.1})
        monitor.summary["best"] = 0.9
        monitor.tags.add("a")
    for text in ("config: lr=0.1", "summary: best=0.9", "tags: a"):
        assert text in caplog.text
