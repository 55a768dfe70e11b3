"""`shared_run: relay`: one courier reads the journals of all roles and writes one run, where none can be shared."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lines_server import LinesServer
from pydantic import BaseModel

from rolecall import (
    BackendRefused,
    DirectoryError,
    Image,
    Monitor,
    MonitorConfig,
    Registry,
    Row,
    Run,
    SharedRunSupport,
    Status,
    WriterConflict,
    hookimpl,
    launch,
    open_monitor,
    resolve,
)
from rolecall.__main__ import main
from rolecall.delivery.cursor import Cursor
from rolecall.delivery.group import CourierGroup, make_ticket
from rolecall.delivery.redeliver import deliver
from rolecall.delivery.relay.roster import Roster
from rolecall.delivery.relay.serve import Relay
from rolecall.store.acks import Acknowledgements, undelivered
from rolecall.store.layout import LAUNCH, Layout

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]
STEPS = 20


@pytest.fixture
def make(make_config: MakeConfig, server: LinesServer) -> MakeConfig:
    """Configs of a relay to a backend that can share no run."""
    return partial(make_config, shared_run="relay", monitor_args={"path": server.path, "alone": True})


def log_some(config: MonitorConfig, role: str, rank: int | None = None, steps: int = STEPS) -> None:
    with open_monitor(config, role, rank) as monitor:
        for step in range(1, steps + 1):
            monitor.log({"reward": step / 2}, step=step)


def expected(steps: int = STEPS) -> list[tuple[int, float]]:
    return [(step, step / 2) for step in range(1, steps + 1)]


def end_of(server: LinesServer) -> list[str]:
    return [line["closed"] for line in server.lines() if "closed" in line]


@contextmanager
def relaying(directory: Path, timeout: float = 60.0) -> Iterator[list[Any]]:
    """A relay beside the job, as `rolecall relay` runs one; the list gets what is left."""
    relay, left = Relay(directory, {}), list[Any]()
    thread = threading.Thread(target=lambda: left.extend(relay.run(timeout)), name="rolecall")
    thread.start()
    yield left
    thread.join(60.0)
    assert not thread.is_alive()


def test_all_roles_are_one_run(make: MakeConfig, server: LinesServer) -> None:
    with launch(make(), {"seed": 1}) as job:
        for rank in range(3):
            log_some(job.config, "explorer", rank)
        log_some(job.config, "trainer")
    run = job.run_id or ""
    assert server.runs() == [run]
    for writer in ("explorer/0", "explorer/1", "explorer/2", "trainer"):
        assert server.points(run, writer, f"{writer}/reward") == expected()
        assert server.points(run, writer, f"{writer}/step") == [(step, step) for step in range(1, STEPS + 1)]
        assert server.seqs(writer) == [(1, seq) for seq in range(1, STEPS + 1)]
    assert end_of(server) == ["finished"]
    bound = {key: axis for line in server.lines() for key, axis in line.get("axes", {}).items()}
    assert bound["explorer/2/reward"] == "explorer/2/step"


def test_ticket_says_many_writers(make: MakeConfig) -> None:
    with launch(make()) as job:
        log_some(job.config, "trainer")
    for writer in (LAUNCH, "trainer"):
        ticket = make_ticket(job.config.spec(), writer, "lines", shared=False)
        assert (ticket.writers, ticket.shared, ticket.primary, ticket.writer) == ("many", False, True, None)
        assert (ticket.name, ticket.run_id, ticket.backend_run_id) == ("grpo-1", job.run_id, job.run_id)
        assert (ticket.has_axes, ticket.group, ticket.tags) == (True, None, ())


def test_role_has_nothing_beside_it(make: MakeConfig) -> None:
    with launch(make(courier="process")) as job:
        before = set(threading.enumerate())
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0})
            assert set(threading.enumerate()) == before
            assert monitor.url == f"lines://{job.run_id}"
        logs = [path.name for path in (job.config.monitor_dir / "courier").iterdir()]
    assert logs == ["@launch.log"]


def test_rows_keep_their_times(make: MakeConfig, server: LinesServer) -> None:
    with launch(make()) as job:
        log_some(job.config, "trainer")
    lines = (job.config.monitor_dir / "journal/trainer/1.jsonl").read_text().splitlines()
    logged = [line["time"] for line in map(json.loads, lines) if "data" in line]
    assert [line["time"] for line in server.lines() if line.get("writer") == "trainer"] == logged


def test_what_roles_say_is_merged(make: MakeConfig, server: LinesServer) -> None:
    with launch(make(), {"seed": 1}) as job:
        for rank in range(2):
            with open_monitor(job.config, "explorer", rank, run_config={"lr": rank}) as monitor:
                monitor.summary["best"] = rank
                monitor.tags.add(f"tag{rank}")
                monitor.log_table("samples", [{"prompt": "2+2"}], 1)
    told = [line for line in server.lines() if not line.keys().isdisjoint({"config", "summary", "tags"})]
    last = {kind: [line[kind] for line in told if kind in line][-1] for kind in ("config", "summary", "tags")}
    assert last == {
        "config": {"explorer/0": {"lr": 0}, "explorer/1": {"lr": 1}},
        "summary": {"explorer/0/best": 0, "explorer/1/best": 1},
        "tags": ["tag0", "tag1"],
    }
    assert {line["table"] for line in server.lines() if "table" in line} == {"explorer/0/samples", "explorer/1/samples"}


def test_media_that_a_backend_lacks_stay(make: MakeConfig) -> None:
    with launch(make()) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"shot": Image([[[0, 0, 0]]]), "loss": 1.0})
    assert undelivered(Layout(job.config.monitor_dir), "lines", "trainer") == 0


def test_roles_come_late_and_come_back(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    with launch(make()) as job:
        log_some(job.config, "explorer", 0)
        wait_until(lambda: server.points(job.run_id or "", "explorer/0", "explorer/0/reward") == expected())
        log_some(job.config, "late")
        log_some(job.config, "explorer", 0)
        log_some(job.config, "explorer", 0)
    assert server.seqs("explorer/0") == [(session, seq) for session in (1, 2, 3) for seq in range(1, STEPS + 1)]
    assert server.points(job.run_id or "", "late", "late/reward") == expected()
    assert len([line for line in server.lines() if "open" in line]) == 1


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_worst_role_is_the_status(make: MakeConfig, server: LinesServer, status: Any) -> None:
    with launch(make()) as job:
        log_some(job.config, "explorer", 0)
        open_monitor(job.config, "trainer").close(status)
    assert end_of(server) == [status]


def test_role_outlives_the_launcher(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    job = launch(make())
    monitor = open_monitor(job.config, "trainer")
    job.close(timeout=0.0)
    monitor.log({"loss": 1.0})
    wait_until(lambda: server.seqs("trainer") == [(1, 1)])
    log_some(job.config, "late")
    assert not end_of(server)
    monitor.close()
    wait_until(lambda: end_of(server) == ["finished"])
    assert server.points(job.run_id or "", "late", "late/reward") == expected()


def test_new_launcher_takes_over(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    first = launch(make())
    monitor = open_monitor(first.config, "trainer")
    monitor.log({"loss": 1.0})
    wait_until(lambda: server.seqs("trainer") == [(1, 1)])
    first.close("failed", timeout=0.0)
    with launch(make()) as second:
        monitor.log({"loss": 2.0})
        wait_until(lambda: server.seqs("trainer") == [(1, 1), (1, 2)])
        log_some(second.config, "late")
        monitor.close()
    assert second.run_id == first.run_id
    assert end_of(server) == ["finished"]
    assert server.points(first.run_id or "", "late", "late/reward") == expected()


def test_any_process_may_be_primary(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    """The one that launched leaves first, and the last one ends the run."""
    first, second = (open_monitor(make(), "explorer", rank, primary="auto") for rank in range(2))
    first.log({"loss": 1.0})
    first.close()
    second.log({"loss": 2.0})
    wait_until(lambda: server.seqs("explorer/1") == [(1, 1)])
    assert not end_of(server)
    second.close()
    wait_until(lambda: end_of(server) == ["finished"])
    assert server.seqs("explorer/0") == [(1, 1)]


def test_outage_costs_no_row(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    with launch(make()) as job:
        log_some(job.config, "explorer", 0)
        wait_until(lambda: len(server.seqs("explorer/0")) == STEPS)
        server.fail("down")
        log_some(job.config, "explorer", 1)
        log_some(job.config, "late")
        server.fix("down")
    for writer in ("explorer/0", "explorer/1", "late"):
        assert sorted(set(server.seqs(writer))) == [(1, seq) for seq in range(1, STEPS + 1)], writer


def test_refused_credentials_stop_the_launch(make: MakeConfig, server: LinesServer) -> None:
    server.fail("forbidden")
    with pytest.raises(BackendRefused, match="the server refuses the api_key"):
        launch(make())
    assert server.runs() == []


def test_launch_goes_on_while_backend_is_away(make: MakeConfig, server: LinesServer) -> None:
    server.fail("down")
    with launch(make(open_timeout=5.0)) as job:
        log_some(job.config, "trainer")
        server.fix("down")
    assert server.points(job.run_id or "", "trainer", "trainer/reward") == expected()


def test_deliver_sends_what_no_relay_sent(make: MakeConfig, server: LinesServer) -> None:
    with launch(make(courier="none")) as job:
        log_some(job.config, "explorer", 0)
        log_some(job.config, "trainer")
    assert server.runs() == []
    assert deliver(job.config.monitor_dir, None, {}, 60.0) == []
    assert server.runs() == [job.run_id]
    assert server.points(job.run_id or "", "trainer", "trainer/reward") == expected()
    assert end_of(server) == ["finished"]
    assert deliver(job.config.monitor_dir, None, {}, 60.0) == []
    assert len(server.seqs("trainer")) == STEPS


def test_relay_elsewhere_serves_until_the_end(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    with launch(make(courier="none")) as job, relaying(job.config.monitor_dir) as left:
        log_some(job.config, "explorer", 0)
        wait_until(lambda: len(server.seqs("explorer/0")) == STEPS)
        with pytest.raises(WriterConflict, match=r"another relay is alive: process \d+ on "):
            Relay(job.config.monitor_dir, {})
        log_some(job.config, "late")
        job.close()
        # `close` waits for it.
        assert end_of(server) == ["finished"]
    assert left == []
    assert server.points(job.run_id or "", "late", "late/reward") == expected()


def test_relay_elsewhere_outlives_launchers(make: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    first = launch(make(courier="none"))
    with relaying(first.config.monitor_dir):
        monitor = open_monitor(first.config, "trainer")
        monitor.log({"loss": 1.0})
        first.close("failed", timeout=0.0)
        with launch(make(courier="none")) as second:
            wait_until(lambda: server.seqs("trainer") == [(1, 1)])
            monitor.log({"loss": 2.0})
            log_some(second.config, "late")
            monitor.close()
    assert server.seqs("trainer") == [(1, 1), (1, 2)]
    assert end_of(server) == ["finished"]


def test_role_elsewhere_shows_that_it_lives(make: MakeConfig, wait_until: Wait) -> None:
    """Where the relay cannot see its process, one beside the role touches its journal."""
    with launch(make(courier="none")) as job, open_monitor(job.config, "trainer"):
        journal = job.config.monitor_dir / "journal/trainer/1.jsonl"
        os.utime(journal, (0, 0))
        beside = threading.Thread(target=CourierGroup(job.config.spec(), ["trainer"], [], lambda _: None).run)
        beside.start()
        wait_until(lambda: journal.stat().st_mtime > 0)
        assert beside.is_alive()
    beside.join(30.0)
    assert not beside.is_alive()


def test_relay_is_needed_while_a_role_lives(make: MakeConfig) -> None:
    """However long a backend hangs: the process is given up only once no role is left."""
    with launch(make(courier="none")) as job:
        layout = Layout(job.config.monitor_dir)
        launcher = Cursor(layout, LAUNCH, Acknowledgements(layout, "lines", LAUNCH))
        roster = Roster(job.config.spec(), "lines", launcher, lambda: False)
        assert not roster.touch()
        monitor = open_monitor(job.config, "trainer")
        (trainer,) = roster.arrivals(now=True)
        assert roster.touch()
        monitor.close()
        assert not roster.touch()
        for cursor in (launcher, trainer):
            cursor.acks.release(None)


def test_relay_leaves_rows_at_its_timeout(make: MakeConfig, server: LinesServer) -> None:
    server.fail("down")
    with launch(make(courier="none")) as job:
        log_some(job.config, "trainer")
    with relaying(job.config.monitor_dir, timeout=0.5) as left:
        pass
    assert [(each.writer, each.rows) for each in left] == [("trainer", STEPS)]


def test_relay_needs_a_relay_job(make_config: MakeConfig) -> None:
    with launch(make_config()) as job:
        log_some(job.config, "trainer")
    with pytest.raises(DirectoryError, match="shared_run: relay"):
        Relay(job.config.monitor_dir, {})


@pytest.mark.parametrize(("courier", "status"), [("none", 0), ("thread", 2)])
def test_command_relays(make: MakeConfig, server: LinesServer, courier: str, status: int) -> None:
    job = launch(make(courier=courier))
    log_some(job.config, "trainer")
    if status:  # the launcher has a relay
        assert main(["relay", str(job.config.monitor_dir)]) == status
    job.close()
    if not status:
        assert main(["relay", str(job.config.monitor_dir)]) == status
    assert server.points(job.run_id or "", "trainer", "trainer/reward") == expected()


def test_role_without_a_relay_says_so(
    make: MakeConfig, caplog: pytest.LogCaptureFixture, server: LinesServer, wait_until: Wait
) -> None:
    job = launch(make())
    log_some(job.config, "explorer", 0)
    job.close()
    monitor: Monitor = open_monitor(job.config, "trainer")
    monitor.log({"loss": 1.0})
    with caplog.at_level(logging.WARNING, "rolecall"):
        monitor.close()
    assert "trainer: no relay to lines is at work" in caplog.text
    assert deliver(job.config.monitor_dir, None, {}, 60.0) == []
    assert server.seqs("trainer") == [(1, 1)]


def test_verify_compares_the_one_run(make: MakeConfig, server: LinesServer, capsys: pytest.CaptureFixture[str]) -> None:
    with launch(make()) as job:
        log_some(job.config, "explorer", 0)
        log_some(job.config, "trainer")
    assert main(["verify", str(job.config.monitor_dir)]) == 0
    assert "lines: all roles: equal" in capsys.readouterr().out


def test_downgrade_names_the_relay(make_config: MakeConfig, make: MakeConfig, server: LinesServer) -> None:
    (downgrade,) = resolve(make_config(monitor_args={"path": server.path, "alone": True})).downgrades
    assert downgrade.reason.startswith("alone is set; leave it out to share a run. With shared_run: relay, ")
    plan = resolve(make())
    assert plan.downgrades == ()
    assert [(each.shared, each.relayed, each.has_one_run) for each in plan.backends] == [(False, True, True)]


def test_local_needs_no_relay(make: MakeConfig) -> None:
    with launch(make(monitor_type="local", monitor_args={})) as job:
        log_some(job.config, "trainer")
    assert not (job.config.monitor_dir / "delivery").exists()


def test_console_is_relayed(make: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "rolecall.console"),
        launch(make(monitor_type="console", monitor_args={})) as job,
    ):
        log_some(job.config, "explorer", 0, steps=1)
        log_some(job.config, "trainer", steps=1)
    assert "explorer/0 step 1: explorer/0/reward=0.5" in caplog.text
    assert "trainer step 1: trainer/reward=0.5" in caplog.text


class _NoArgs(BaseModel):
    """None."""


class _Growing:
    """A backend without axes, whose SDK takes no step below the last one."""

    GROWING_STEPS = True

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.id, self.url = "growing", None

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return _NoArgs

    @hookimpl
    def supports_shared_run(self) -> SharedRunSupport:
        return SharedRunSupport(supported=False, reason="one process only")

    @hookimpl
    def open_run(self) -> Run:
        return self

    def log(self, rows: Sequence[Row]) -> None:
        self.rows += rows

    def flush(self, timeout: float) -> None:
        """Nothing to wait for."""

    def close(self, status: Status) -> None:
        """Nothing to end."""


def test_steps_grow_for_a_backend_that_needs_it(make_config: MakeConfig) -> None:
    """Also from one relay to the next; the role's own step is a metric."""
    backend = _Growing()
    registry = Registry().register("growing", backend)
    for status in ("failed", "finished"):
        settings = {"project": "p", "name": "n", "monitor_type": "growing", "shared_run": "relay"}
        config = MonitorConfig.load({**settings, "monitor_dir": make_config().monitor_dir}, registry=registry)
        job = launch(config)
        log_some(job.config, "explorer", 0)
        log_some(job.config, "trainer")
        job.close(status)
    steps = [row.step for row in backend.rows]
    assert len(steps) == 4 * STEPS
    assert steps == sorted(set(steps))
    own = [row.metrics["trainer/step"] for row in backend.rows if row.writer == "trainer"]
    assert own == 2 * [*range(1, STEPS + 1)]
