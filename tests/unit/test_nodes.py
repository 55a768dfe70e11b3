"""What a node's agent wrote is in the job's directory, and is nowhere taken for a role."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rolecall.__main__ import main
from rolecall.config.plan import BackendPlan, Plan
from rolecall.delivery.clean import clean
from rolecall.job.status import read_deliveries, read_totals, read_writers, wait_for_writers
from rolecall.store.acks import Acknowledgements, Position, is_left, leases, undelivered
from rolecall.store.codec import encode, end_of_lines
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import LAUNCH, Layout, RunRecord, is_node, node_name, slug_of, write_record, writer_of
from rolecall.store.lease import FORMAT, Session, claim, end, newest, this_process

PLANS = tuple(BackendPlan(backend=name, shared=False, courier="process") for name in ("mlflow", "wandb"))
NODE = "node/gpu17"


def plant(layout: Layout, writer: str, count: int, **header: Any) -> None:
    """A writer that has logged so many rows, and ended."""
    journal = JournalWriter(claim(layout.journal(writer), {"writer": writer, **header}, "it"))
    for _ in range(count):
        journal.append({"cpu/percent" if is_node(writer) else "loss": 0.5})
    journal.end("finished")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A job of one role with 3 rows, on a node of which 5 samples were taken that wandb does not get."""
    found = Layout(tmp_path)
    write_record(
        found,
        RunRecord(run_id="r1", nonce="n1", project="p", name="n", group=None, created=1.0, plan=Plan(backends=PLANS)),
    )
    end(claim(found.journal(LAUNCH), {"writer": LAUNCH}, "it"), "finished")
    plant(found, "trainer", 3)
    plant(found, NODE, 5, without=["wandb"])
    return found


@pytest.mark.parametrize(
    ("host", "writer"),
    [
        ("gpu17", "node/gpu17"),
        ("gpu17.cluster.example", "node/gpu17.cluster.example"),
        ("17", "node/host-17"),
        ("_ü/../x", "node/x"),
        ("..", "node/unnamed"),
        ("a" * 99, f"node/{'a' * 64}"),
        ("1" * 99, f"node/host-{'1' * 59}"),
    ],
)
def test_name_of_a_node(tmp_path: Path, host: str, writer: str) -> None:
    assert node_name(host) == writer
    assert is_node(writer)
    layout = Layout(tmp_path)
    layout.journal(writer).mkdir(parents=True)
    assert layout.writers() == [writer] == [writer_of(slug_of(writer))]
    assert layout.roles() == []


def test_role_called_node_is_a_role(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for writer in ("node", "node/0", "node/12", "node/gpu17", "node/0x"):
        layout.journal(writer).mkdir(parents=True)
    (tmp_path / "journal" / "node@_").mkdir()
    assert layout.roles() == ["node", "node/0", "node/12"]
    assert set(layout.writers()) - set(layout.roles()) == {"node/gpu17", "node/0x"}


def test_node_is_no_role_of_the_job(layout: Layout) -> None:
    assert [each.writer for each in read_writers(layout)] == ["trainer"]
    assert [each.writer for each in wait_for_writers(layout, 0.0)] == ["trainer"]


def test_samples_are_no_rows_of_the_last_line(layout: Layout) -> None:
    rows, totals = read_totals(layout, Plan(backends=PLANS))
    assert rows == 3
    assert {each.backend: each.waiting for each in totals} == {"mlflow": 3, "wandb": 3}


def test_backend_that_measures_lacks_nothing(layout: Layout) -> None:
    assert [undelivered(layout, backend, NODE) for backend in ("mlflow", "wandb")] == [5, 0]
    assert [is_left(layout, backend, NODE) for backend in ("mlflow", "wandb")] == [True, False]
    found = {(each.backend, each.writer) for each in read_deliveries(layout, Plan(backends=PLANS))}
    assert found == {("mlflow", "trainer"), ("wandb", "trainer"), ("mlflow", NODE)}


def test_samples_are_cleaned_without_it(layout: Layout) -> None:
    session = newest(layout.journal(NODE))
    assert session is not None
    acks = Acknowledgements(layout, "mlflow", NODE)
    acks.acknowledge(Position(1, end_of_lines(session.path), 5), 5)
    acks.release("finished")
    assert [(each.writer, each.rows) for each in clean(layout.root)] == [(NODE, 5)]


def test_agent_is_at_work_while_it_lives(layout: Layout) -> None:
    assert leases(layout, [])[layout.journal(NODE)] == "the agent of node/gpu17"


def plant_killed(layout: Layout, writer: str) -> None:
    session = Session(layout.journal(writer) / "2.jsonl", 2)
    header = {"rolecall": FORMAT, "owner": asdict(replace(this_process(), start="0"))}
    session.path.write_bytes(encode(header, session.seed))


@pytest.mark.parametrize(("writer", "state"), [(NODE, "finished"), ("trainer", "killed")])
def test_killed_agent_does_not_fail_the_job(
    layout: Layout, capfdbinary: pytest.CaptureFixture[bytes], writer: str, state: str
) -> None:
    end(claim(layout.journal(LAUNCH), {"writer": LAUNCH, "ends": "with the last role"}, "it"), "finished")
    plant_killed(layout, writer)
    assert main(["ls", str(layout.root), "--json"]) == 0
    (job,) = json.loads(capfdbinary.readouterr().out)
    assert (job["roles"], job["rows"], job["state"]) == (["trainer"], 3, state)


def test_nodes_are_shown_apart(layout: Layout, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    plant(layout, "node/gpu18", 2, without=["wandb"])
    assert main(["show", str(layout.root), "--ascii"]) == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert "1 role, 3 rows" in lines[0]
    assert "system metrics of 2 nodes: gpu17, gpu18" in lines
    charts = [line.split()[0] for line in lines if "loss" in line or "cpu/percent" in line]
    assert charts[0].startswith("trainer/loss")
