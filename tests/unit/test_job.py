"""A job from launch to close, its couriers on threads: what a launcher and its roles are promised."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lines_server import LinesServer

from rolecall import (
    BackendError,
    BackendRefused,
    ConfigError,
    DirectoryError,
    MonitorConfig,
    Registry,
    Undelivered,
    WriterConflict,
    launch,
    open_monitor,
)
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.redeliver import deliver
from rolecall.job.history import read_history, read_rows
from rolecall.store import lease
from rolecall.store.acks import undelivered
from rolecall.store.codec import encode
from rolecall.store.layout import Layout
from rolecall.store.lease import Session

MakeConfig = Callable[..., MonitorConfig]


def log_some(config: MonitorConfig, role: str, rank: int | None = None, steps: int = 10) -> None:
    with open_monitor(config, role, rank) as monitor:
        for step in range(1, steps + 1):
            monitor.log({"reward/mean": step / 2}, step=step)


def fail(config: MonitorConfig, error: type[BaseException]) -> None:
    """A job whose launcher fails after its trainer has ended."""
    with launch(config) as job:
        log_some(job.config, "trainer")
        raise error


def test_roles_share_a_run(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config()) as job:
        log_some(job.config, "explorer", 0)
        log_some(job.config, "trainer")
    assert server.runs() == [job.run_id]
    run = job.run_id or ""
    expected = [(step, step / 2) for step in range(1, 11)]
    assert server.points(run, "explorer/0", "explorer/0/reward/mean") == expected
    assert server.points(run, "explorer/0", "explorer/0/step") == [(step, step) for step in range(1, 11)]
    assert server.points(run, "trainer", "trainer/reward/mean") == expected


def test_keys_are_declared_before_rows(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 30):
            monitor.log({f"key/{step // 3}": 1.0}, step=step)
    mine = [line for line in server.lines() if line.get("by") == "trainer" or line.get("writer") == "trainer"]
    declared: set[str] = set()
    for line in mine:
        for key, axis in line.get("axes", {}).items():
            assert key not in declared
            assert axis == "trainer/step"
            declared.add(key)
        assert line.get("metrics", {}).keys() <= declared | {"trainer/step"}
    assert len(declared) == 10


def test_every_writer_declares_all_keys(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config()) as job:
        log_some(job.config, "explorer", 0)
        log_some(job.config, "trainer")
    union = {"explorer/0/reward/mean": "explorer/0/step", "trainer/reward/mean": "trainer/step"}
    for writer in (None, "trainer"):
        lines = [line["axes"] for line in server.lines() if "axes" in line and line["by"] == writer]
        assert {key: axis for axes in lines for key, axis in axes.items()} == union


def test_primary_ends_the_run_last(make_config: MakeConfig, server: LinesServer) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(make_config(), ZeroDivisionError)
    ends = [line for line in server.lines() if "closed" in line]
    assert [(end["by"], end["closed"], end["primary"]) for end in ends] == [
        ("trainer", "finished", False),
        (None, "failed", True),
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [(0, "finished"), (None, "finished"), (1, "failed"), ("no", "failed"), (130, "killed"), (143, "killed")],
)
def test_status_is_the_process(make_config: MakeConfig, code: object, status: str) -> None:
    config = make_config(monitor_type="local", monitor_args={})
    with pytest.raises(SystemExit):
        leave(config, code)
    assert read_history(config.monitor_dir).state == status


def test_ctrl_c_is_a_kill(make_config: MakeConfig, server: LinesServer) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(make_config(), KeyboardInterrupt)
    assert [line["closed"] for line in server.lines() if "closed" in line] == ["finished", "killed"]


def leave(config: MonitorConfig, code: object) -> None:
    with launch(config):
        sys.exit(code)  # type: ignore[arg-type]


def test_merged_config_reaches_the_run(make_config: MakeConfig, server: LinesServer) -> None:
    with (
        launch(make_config(), run_config={"seed": 7}) as job,
        open_monitor(job.config, "explorer", 0, run_config={"temperature": 1.0}),
        open_monitor(job.config, "trainer", run_config={"lr": 0.1, "api_key": "sk-123456"}),
    ):
        pass
    merged = [line["config"] for line in server.lines() if "config" in line and line["by"] is None][-1]
    assert merged == {"explorer/0": {"temperature": 1.0}, "trainer": {"lr": 0.1, "api_key": "**********"}}
    assert next(line["run_config"] for line in server.lines() if "run_config" in line) == {"seed": 7}


def test_separate_runs_are_named_by_role(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(shared_run=False), run_config={"seed": 7}) as job:
        log_some(job.config, "explorer", 1)
        log_some(job.config, "trainer")
    assert (server.path / "prepared").exists()
    opened = {line["open"]: line for line in server.lines() if "open" in line}
    assert {name: (line["name"], line["group"], line["primary"]) for name, line in opened.items()} == {
        "explorer/1": ("grpo-1_explorer_1", "grpo-1", True),
        "trainer": ("grpo-1_trainer", "grpo-1", True),
    }
    run = f"{job.run_id}-trainer"
    assert server.points(run, "trainer", "reward/mean") == [(step, step / 2) for step in range(1, 11)]
    assert not [line for line in server.lines() if "axes" in line]


def test_commit_and_time_reach_the_backend(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(shared_run=False)) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1, commit=True)
        monitor.log({"a": 2}, step=2)
    rows = [line for line in server.lines() if "metrics" in line]
    assert [row["commit"] for row in rows] == [True, False]
    journal = (job.config.monitor_dir / "journal" / "trainer" / "1.jsonl").read_text().splitlines()
    assert [row["time"] for row in rows] == [json.loads(line)["time"] for line in journal[1:3]]


def test_small_and_large_tables_arrive(make_config: MakeConfig, server: LinesServer) -> None:
    large = (["i", "text"], [[i, "x" * 5000] for i in range(1000)])
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log_table("small", [{"a": 1, "b": "x"}, {"a": 2}], step=1)
        monitor.log_table("large", large, step=2)
    tables = {line["table"]: line for line in server.lines() if "table" in line}
    assert tables["trainer/small"]["rows"] == [[1, "x"], [2, None]]
    assert len(tables["trainer/large"]["rows"]) == 1000
    assert (job.config.monitor_dir / "journal" / "trainer" / "1.files" / "2.json").exists()


def test_hanging_backend_delays_no_other(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("hang")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("rolecall.console").addHandler(handler)
    args = {"lines": {"path": server.path}}
    config = make_config(monitor_type=["lines", "console"], monitor_args=args, open_timeout=0.5)
    caplog.set_level(logging.INFO, "rolecall")
    try:
        job = launch(config)
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"a": 1}, step=1)
        monitor.close(timeout=2.0)
        assert any("trainer step 1" in line for line in lines)
        assert "rolecall deliver" in caplog.text
    finally:
        server.fix("hang")
        logging.getLogger("rolecall.console").removeHandler(handler)
        job.close()


def test_rows_wait_for_their_backend(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1)
        wait_until(lambda: server.seqs("trainer") == [(1, 1)])
        server.fail("down")
        monitor.log({"a": 2}, step=2)
        wait_until(lambda: "not available" in caplog.text)
        server.fix("down")
        wait_until(lambda: (1, 2) in server.seqs("trainer"))
    assert set(server.seqs("trainer")) == {(1, 1), (1, 2)}


def test_launch_without_a_reachable_backend(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None]
) -> None:
    server.fail("down")
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1)
        server.fix("down")
        wait_until(lambda: server.seqs("trainer"))
    assert server.runs() == [job.run_id]


def test_plugins_error_costs_no_row(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with launch(make_config()) as job, open_monitor(job.config, "trainer") as monitor:
        server.fail("broken")
        monitor.log({"a": 1}, step=1)
        wait_until(lambda: "the plugin is broken" in caplog.text)
        server.fix("broken")
    assert set(server.seqs("trainer")) == {(1, 1)}


def test_rejected_rows_are_set_aside(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("picky", "[2, 4]")
    with launch(make_config()) as job:
        log_some(job.config, "trainer", steps=5)
    assert [seq for _, seq in server.seqs("trainer")] == [1, 3, 5]
    assert "the server is picky" in caplog.text
    ledger = (job.config.monitor_dir / "delivery" / "lines" / "trainer" / "1.jsonl").read_text()
    assert ledger.count('"rejected"') == 2
    assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0


def test_refused_credentials_stop_the_launch(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("forbidden")
    args = {"path": server.path, "api_key": "sk-topsecret"}
    for shared in (True, False):
        with pytest.raises(BackendRefused, match="refuses the api_key") as caught:
            launch(make_config(monitor_args=args, shared_run=shared, monitor_dir=server.path.parent / str(shared)))
        assert "topsecret" not in str(caught.value) + caplog.text
    server.fix("forbidden")
    with launch(make_config(monitor_args=args, monitor_dir=server.path.parent / "True")) as job:
        assert job.urls == {"lines": f"lines://{job.run_id}"}


def test_close_tells_what_is_left(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rolecall")
    job = launch(make_config())
    monitor = open_monitor(job.config, "trainer")
    server.fail("down")
    monitor.log({"a": 1}, step=1)
    monitor.close(timeout=0.5)
    monitor.close()
    assert f"rolecall deliver {job.config.monitor_dir}" in caplog.text
    assert caplog.text.count("1 rows not yet in lines") == 1
    server.fix("down")
    job.close()


def test_backend_errors_raise_where_asked(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    job = launch(make_config(on_backend_error="raise"))
    monitor = open_monitor(job.config, "trainer")
    server.fail("down")
    monitor.log({"a": 1}, step=1)
    wait_until(lambda: "not available" in caplog.text)
    with pytest.raises(BackendError, match="the server is down"):
        monitor.log({"a": 2}, step=2)
    with pytest.raises(Undelivered, match="rolecall deliver"):
        monitor.close(timeout=0.5)
    server.fix("down")
    job.close()


def test_two_live_writers_conflict(make_config: MakeConfig) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "trainer"):
            with pytest.raises(WriterConflict, match="writer 'trainer'"):
                open_monitor(job.config, "trainer")
            with open_monitor(job.config, "trainer", 0):
                pass
        with open_monitor(job.config, "trainer") as again:
            again.log({"a": 1}, step=1)
        assert (job.config.monitor_dir / "journal" / "trainer" / "2.jsonl").exists()


def test_two_live_launchers_conflict(make_config: MakeConfig) -> None:
    config = make_config(monitor_type="local", monitor_args={})
    with launch(config), pytest.raises(WriterConflict, match="another monitor_dir"):
        launch(config)
    with launch(config):
        pass


def test_role_in_another_directory(make_config: MakeConfig, tmp_path: Path) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        elsewhere = job.config.model_copy(update={"monitor_dir": tmp_path / "elsewhere"})
        with pytest.raises(DirectoryError, match="all roles share"):
            open_monitor(elsewhere, "trainer")


def test_primary_role_needs_no_launcher(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config()
    with open_monitor(config, "trainer", 0, primary=True) as zero, open_monitor(config, "trainer", 1) as first:
        zero.log({"a": 1}, step=1)
        first.log({"a": 1}, step=1)
        assert zero.run_id == first.run_id
        assert zero.url == f"lines://{zero.run_id}"
    assert server.runs() == [zero.run_id]
    assert [line["by"] for line in server.lines() if "closed" in line][-1] is None


def test_role_without_a_launcher(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rolecall.timings.JOIN_TIMEOUT", 0.3)
    with pytest.raises(ConfigError, match="primary=True"):
        open_monitor(make_config(), "trainer")


def test_unfinished_job_goes_on(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config()
    with pytest.raises(RuntimeError):
        fail(config, RuntimeError)
    (run_id,) = server.runs()
    with launch(config) as second:
        log_some(second.config, "trainer")
    assert second.run_id == run_id
    assert set(server.seqs("trainer")) == {(session, seq) for session in (1, 2) for seq in range(1, 11)}
    with launch(config) as third:
        pass
    assert third.run_id != run_id
    kept = config.monitor_dir / "previous" / run_id
    assert (kept / "journal" / "trainer" / "2.jsonl").exists()
    assert not (config.monitor_dir / "journal" / "trainer").exists()


def test_resume_must_and_never(make_config: MakeConfig) -> None:
    local = {"monitor_type": "local", "monitor_args": {}}
    with pytest.raises(DirectoryError, match="no job is there"):
        launch(make_config(**local, resume="must"))
    job = launch(make_config(**local))
    job.close("failed")
    with launch(make_config(**local, resume="must")) as same:
        assert same.run_id == job.run_id
    with pytest.raises(DirectoryError, match="finished"):
        launch(make_config(**local, resume="must"))
    launch(make_config(**local, resume="never")).close("failed")
    with launch(make_config(**local, resume="never")) as other:
        assert other.run_id != job.run_id


def test_resume_allow_goes_on_after_the_end(make_config: MakeConfig, server: LinesServer) -> None:
    """In the same run, its curves included."""
    config = make_config(resume="allow")
    for steps in ([1, 2], [3, 4]):
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            for step in steps:
                monitor.log({"loss": 1 / step})
    (run,) = server.runs()
    assert server.points(run, "trainer", "trainer/loss") == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert not (config.monitor_dir / "previous").exists()


def test_another_job_in_the_directory(make_config: MakeConfig) -> None:
    local = {"monitor_type": "local", "monitor_args": {}}
    launch(make_config(**local, run_id="one")).close("failed")
    with pytest.raises(ConfigError, match=r"project 'gsm8k', not 'math'.*another monitor_dir"):
        launch(make_config(**local, project="math"))
    with pytest.raises(ConfigError, match="run_id 'one', not 'two'"):
        launch(make_config(**local, run_id="two"))


@pytest.mark.parametrize(("settings", "variable"), [({"monitor_type": "none", "monitor_args": {}}, "0"), ({}, "1")])
def test_turned_off_it_leaves_nothing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], variable: str
) -> None:
    monkeypatch.setenv("ROLECALL_DISABLED", variable)
    config = make_config(**settings)
    with launch(config) as job, open_monitor(job.config, "trainer", primary=True) as monitor:
        monitor.log({"a": 1}, step=1)
        monitor.log_table("t", [{"a": 1}], step=1)
        assert (monitor.url, monitor.run_id, job.urls) == (None, None, {})
    assert not config.monitor_dir.exists()


def test_turned_off_it_needs_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_DISABLED", "1")
    config = MonitorConfig(
        project="p", name="n", monitor_type="wandb", monitor_args={"base_url": "x"}, monitor_dir=tmp_path / "monitor"
    )
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1)
    assert MonitorConfig.from_env(config.to_env()).disabled


@pytest.mark.parametrize("role", ["", "a/b", "..", ".hidden", "@launch", "a b", "x" * 65, "é", 5])
def test_bad_roles_are_refused(make_config: MakeConfig, role: str) -> None:
    with pytest.raises(ConfigError, match="role"):
        open_monitor(make_config(), role)


@pytest.mark.parametrize("rank", [-1, True, "0", 1.0])
def test_bad_ranks_are_refused(make_config: MakeConfig, rank: int) -> None:
    with pytest.raises(ConfigError, match="rank"):
        open_monitor(make_config(), "trainer", rank)


def test_forgotten_monitor_warns_and_ends(make_config: MakeConfig) -> None:
    import gc

    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.log({"a": 1}, step=1)
        with pytest.warns(ResourceWarning, match="monitor of trainer was never closed"):  # noqa: PT031
            del monitor
            gc.collect()
        journal = job.config.monitor_dir / "journal" / "trainer" / "1.jsonl"
        assert '"end":"finished"' in journal.read_text()


def test_calls_after_close_are_counted(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        monitor = open_monitor(job.config, "trainer")
        monitor.close()
        for step in range(3):
            monitor.log({"a": 1}, step=step)
        monitor.log_table("samples", (["text"], [["x"]]))
        assert caplog.text.count("trainer: log: the row is left out, as the monitor is closed") == 1
        assert (monitor.dropped, monitor.lost) == (4, 0)
        text = (job.config.monitor_dir / "journal" / "trainer" / "1.jsonl").read_text()
    assert len(text.splitlines()) == 2


def test_job_that_this_process_holds_open(make_config: MakeConfig) -> None:
    """As when a notebook's cell is run again."""
    config = make_config(monitor_type="local", monitor_args={})
    with launch(config) as job:
        with pytest.raises(WriterConflict, match="this process has launched a job there and not closed it"):
            launch(config)
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"a": 1})
    launch(config).close()


def test_job_of_another_machine_that_died(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after preemption: the job starts again on another node, and waits for what it cannot see to be silent."""
    monkeypatch.setattr(lease, "STALE", 0.5)
    config = make_config(monitor_type="local", monitor_args={}, resume="auto")
    code = """
import os, sys
from rolecall import MonitorConfig, launch, open_monitor
from rolecall.store import lease
lease._space = lambda: "another boot"
job = launch(MonitorConfig.from_env())
monitor = open_monitor(job.config, "trainer")
monitor.log({"a": 1})
print(job.run_id, flush=True)
os._exit(137)
"""
    env = {**os.environ, **config.to_env()}
    died = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=False)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 2})
    assert job.run_id == died.stdout.strip()
    assert [row.step for row in read_rows(config.monitor_dir)] == [1, 2]
    assert "the launcher's place was held by process" in caplog.text
    assert "writer 'trainer' was held by process" in caplog.text


def test_calls_in_a_forked_child_are_counted(make_config: MakeConfig) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"a": 1}, step=1)
            reading, writing = os.pipe()
            if (child := os.fork()) == 0:
                heard: list[str] = []
                handler = logging.Handler()
                handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
                logging.getLogger("rolecall").addHandler(handler)
                monitor.log({"a": 2}, step=2)
                monitor.log({"a": 3}, step=3)
                os.write(writing, json.dumps([heard, monitor.dropped]).encode())
                os._exit(0)
            os.waitpid(child, 0)
            heard, dropped = json.loads(os.read(reading, 10_000))
            monitor.log({"a": 4}, step=4)
        text = (job.config.monitor_dir / "journal" / "trainer" / "1.jsonl").read_text()
    why = "trainer: log: the row is left out, as this process was forked; open a monitor in it"
    assert (heard, dropped, monitor.dropped) == ([why], 2, 0)
    assert text.count('"data":') == 2


def test_calls_where_monitoring_is_off(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with launch(make_config(monitor_type="none", monitor_args={})) as job:
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"a": 1})
        monitor.log({"a": 1})
    assert (monitor.dropped, monitor.lost, caplog.text) == (0, 0, "")


class Lying:
    """Claims to be a key that was logged before, and is no text."""

    def __eq__(self, other: object) -> bool:
        return other == "loss"

    def __hash__(self) -> int:
        return hash("loss")


def test_lying_key_costs_itself_alone(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        with open_monitor(job.config, "trainer") as monitor:
            for step, key in enumerate(["loss", Lying(), "loss"], start=1):
                monitor.log({key: 0.5}, step=step)  # type: ignore[dict-item]
        rows = list(read_rows(job.config.monitor_dir))
    assert [(row.seq, row.step) for row in rows] == [(1, 1), (2, 3)]
    assert (monitor.dropped, monitor.lost) == (1, 0)
    assert "a key must be a string, not Lying" in caplog.text


def test_launch_in_an_unwritable_directory(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryError, match="monitor_dir"):
        launch(make_config(monitor_type="local", monitor_args={}, monitor_dir=tmp_path / "file" / "monitor"))


def test_backend_registered_in_code(tmp_path: Path, server: LinesServer) -> None:
    import lines_backend

    registry = Registry().register("mine", lines_backend)
    settings = {
        "project": "p",
        "name": "n",
        "monitor_type": "mine",
        "monitor_args": {"path": server.path},
        "monitor_dir": tmp_path / "monitor",
    }
    with launch(MonitorConfig.load(settings, registry=registry)) as job:
        log_some(job.config, "trainer", steps=3)
    assert [downgrade.setting for downgrade in job.plan.downgrades] == ["courier"]
    assert server.seqs("trainer") == [(1, 1), (1, 2), (1, 3)]


def test_downgrades_are_logged_once(
    make_config: MakeConfig, server: LinesServer, caplog: pytest.LogCaptureFixture
) -> None:
    with launch(make_config(monitor_args={"path": server.path, "alone": True})) as job:
        log_some(job.config, "trainer")
        log_some(job.config, "explorer")
    assert caplog.text.count("leave it out to share a run") == 1
    record = json.loads((job.config.monitor_dir / "run.json").read_text())
    assert record["plan"]["downgrades"] == [
        {
            "backend": "lines",
            "setting": "shared_run",
            "reason": "alone is set; leave it out to share a run. With shared_run: relay, one process writes one run "
            "of all roles",
        }
    ]
    assert server.runs() == [f"{job.run_id}-explorer", f"{job.run_id}-trainer"]


def test_spooled_journal_is_mirrored(make_config: MakeConfig, server: LinesServer, tmp_path: Path) -> None:
    config = make_config(
        spool_dir=tmp_path / "spool", monitor_type=["lines", "local"], monitor_args={"lines": {"path": server.path}}
    )
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 101):
            monitor.log({"a": step}, step=step)
        monitor.log_table("large", (["i", "text"], [[i, "x" * 5000] for i in range(1000)]), step=100)
    mirrored = config.monitor_dir / "journal" / "trainer"
    assert len((mirrored / "1.jsonl").read_bytes().splitlines()) == 103
    assert [path for path in (tmp_path / "spool").rglob("*") if path.is_file()] == [], "and nothing is left on the node"
    assert (mirrored / "1.files" / "101.json").exists()
    assert len(server.seqs("trainer")) == 100


def test_draining_courier_keeps_others_out(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on below the new job, and send the new job's rows to the old run."""
    config = make_config()
    job = launch(config)
    monitor = open_monitor(job.config, "trainer")
    server.fail("down")
    monitor.log({"a": 1}, step=1)
    monitor.close(timeout=0.1)
    job.close(timeout=0.1)
    monkeypatch.setattr("rolecall.timings.QUIET_TIMEOUT", 0.2)
    with pytest.raises(WriterConflict, match="still at work"):
        launch(make_config(resume="never"))
    server.fix("down")
    monkeypatch.setattr("rolecall.timings.QUIET_TIMEOUT", 30.0)
    with launch(make_config(resume="never")) as anew:
        log_some(anew.config, "trainer", steps=3)
    assert [step for step, _ in server.points(job.run_id or "", "trainer", "trainer/step")] == [1]
    assert [step for step, _ in server.points(anew.run_id or "", "trainer", "trainer/step")] == [1, 2, 3]


def test_retried_closing_keeps_its_status(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    job = launch(make_config())
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1)
    server.fail("down")
    job.close("failed", timeout=0.1)
    wait_until(lambda: "lines: not available" in caplog.text)
    server.fix("down")
    wait_until(lambda: [line for line in server.lines() if "closed" in line and line["by"] is None])
    assert [line["closed"] for line in server.lines() if "closed" in line and line["by"] is None] == ["failed"]


def test_failed_launch_frees_the_directory(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    local = {"monitor_type": "local", "monitor_args": {}}
    with pytest.raises(DirectoryError, match="spool_dir"):
        launch(make_config(**local, spool_dir=tmp_path / "file" / "spool"))
    with launch(make_config(**local)):
        pass


def test_undelivered_primary_ends_its_job(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config(on_backend_error="raise")
    monitor = open_monitor(config, "trainer", primary=True)
    server.fail("down")
    monitor.log({"a": 1}, step=1)
    with pytest.raises(Undelivered):
        monitor.close("failed", timeout=0.2)
    assert read_history(config.monitor_dir).state == "failed"
    server.fix("down")


def test_fault_is_raised_once(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with launch(make_config(on_backend_error="raise")) as job, open_monitor(job.config, "trainer") as monitor:
        server.fail("down")
        monitor.log({"a": 1}, step=1)
        wait_until(lambda: "not available" in caplog.text)
        server.fix("down")
        with pytest.raises(BackendError, match="the server is down"):
            monitor.log({"a": 2}, step=2)
        monitor.log({"a": 3}, step=3)
        wait_until(lambda: len(set(server.seqs("trainer"))) == 2)


def test_deliver_closes_what_couriers_left(make_config: MakeConfig, server: LinesServer) -> None:
    """Two backends at once, of which one needs nothing and the other its primary, rows and end."""
    args = {"lines": {"path": server.path}}
    with launch(make_config(monitor_type=["lines", "console"], monitor_args=args)) as job:
        log_some(job.config, "trainer")
    ledger = job.config.monitor_dir / "delivery" / "lines"
    for name in ("@launch", "trainer"):
        text = (ledger / name / "1.jsonl").read_text()
        (ledger / name / "1.jsonl").write_text("\n".join(text.splitlines()[:1]) + "\n")
        os.utime(ledger / name / "1.jsonl", (0, 0))
    make_dead(ledger)
    before = len(server.lines())
    assert deliver(job.config.monitor_dir, None, args, timeout=30.0) == []
    late = server.lines()[before:]
    assert [line["closed"] for line in late if line.get("by") is None and "closed" in line] == ["finished"]
    assert set(server.seqs("trainer")) == {(1, seq) for seq in range(1, 11)}


def test_deliver_opens_before_roles_join(
    make_config: MakeConfig, server: LinesServer, wait_until: Callable[..., None]
) -> None:
    """The launcher's run of `lines` hangs as it is opened: no role tries to join it, and `console` has its rows."""
    args = {"lines": {"path": server.path}}
    with launch(make_config(monitor_type=["lines", "console"], monitor_args=args)) as job:
        for rank in range(8):
            log_some(job.config, "explorer", rank)
    shutil.rmtree(job.config.monitor_dir / "delivery")
    roles = {f"explorer/{rank}" for rank in range(8)}
    heard: list[tuple[str, str, str]] = []

    def hear(event: CourierEvent) -> None:
        heard.append((event.writer, event.backend, event.kind))

    server.fail("hang")
    try:
        left = deliver(job.config.monitor_dir, None, args, timeout=1.0, on_event=hear)
    finally:
        server.fix("hang")
    assert {(each.backend, each.writer, each.rows) for each in left} == {("lines", role, 10) for role in roles}
    assert roles <= {writer for writer, backend, kind in heard if (backend, kind) == ("console", "ended")}
    assert "lines" not in {backend for writer, backend, _ in heard if writer in roles}
    wait_until(lambda: ("@launch", "lines", "ended") in heard)
    delivered = [(writer, kind) for writer, backend, kind in heard if backend == "lines" and kind != "progress"]
    assert delivered[0] == ("@launch", "opened")
    assert delivered[-1] == ("@launch", "ended")
    assert {writer for writer, kind in delivered if kind == "opened"} == {*roles, "@launch"}


def make_dead(folder: Path) -> None:
    """Give every claim to a process that is gone."""
    for path in folder.rglob("1.jsonl"):
        session = Session(path, 1)
        header = session.header()
        header["owner"]["start"] = "0"
        path.write_bytes(encode(header, session.seed))


def test_rows_left_on_the_node(make_config: MakeConfig, server: LinesServer, tmp_path: Path) -> None:
    """Role and courier died together: monitor_dir has the header alone."""
    config = make_config(spool_dir=tmp_path / "spool")
    with launch(config) as job:
        log_some(job.config, "trainer", steps=20)
    session = Session(job.config.monitor_dir / "journal" / "trainer" / "1.jsonl", 1)
    spooled = tmp_path / "spool" / session.header()["spool"] / "trainer" / "1.jsonl"
    rows = session.path.read_bytes().splitlines(keepends=True)[1:21]
    make_dead(session.path.parent)
    spooled.write_bytes(session.path.read_bytes() + b"".join(rows))
    shutil.rmtree(job.config.monitor_dir / "delivery" / "lines" / "trainer")
    before = len(server.seqs("trainer"))
    args = {"lines": {"path": str(server.path)}}
    record = job.config.monitor_dir / "run.json"
    assert "spool_dir" in record.read_text()
    assert deliver(job.config.monitor_dir, None, args, timeout=30.0) == []
    assert server.seqs("trainer")[before:] == [(1, seq) for seq in range(1, 21)]
