"""Journals of nodes become the same files on the launcher's node, whoever dies and whichever answers are lost."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from rolecall import WriterConflict
from rolecall.delivery.relay.forward import Batch, Outbox, Piece, Reply, begin_on_node
from rolecall.delivery.relay.hub import Answer, Inbox, Opening
from rolecall.rows import Row
from rolecall.store.codec import Damage, last_line
from rolecall.store.journal import Draft, Drafts, JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, _start_of, newest, succeed, this_process
from rolecall.store.reader import read_rows

Found = list[Row | Damage]
PICTURE = Drafts("maze", [Draft(kind="file", data=b"x" * 70_000, suffix=".bin", mime="a/b")])


class Node:
    """One node, its roles, and its forwarder, which may die and come back."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.layout = Layout(root / name)
        self.generation = -1
        self.outbox = Outbox(self.layout, name)

    def restart(self) -> None:
        self.generation, self.outbox = -1, Outbox(self.layout, self.name)

    def send(self, inbox: Inbox, limit: int = 1 << 20) -> tuple[Batch, Reply]:
        """One batch, whose answer is not heard yet."""
        if self.generation < 0:
            self.generation, held = inbox.greet(self.name, self.outbox.files())
            self.outbox.greet(held)
        batch = self.outbox.batch(self.generation, limit)
        return batch, inbox.take(self.name, batch)

    def hear(self, reply: Reply) -> None:
        if reply.is_refused:
            self.generation = -1
        else:
            self.outbox.take(reply)

    def settle(self, inbox: Inbox, limit: int = 1 << 20) -> None:
        """Send until nothing is left."""
        for _ in range(1000):
            batch, reply = self.send(inbox, limit)
            self.hear(reply)
            if not reply.is_refused and batch.is_all and not batch.pieces and not batch.over:
                return
        raise AssertionError("it never ends")


class Role:
    """A role whose process is a real one that can be killed, while the test writes its journal."""

    def __init__(self, writer: str, node: Node, inbox: Inbox) -> None:
        self.writer, self.node = writer, node
        self.process = subprocess.Popen(["sleep", "600"])
        self.owner = replace(this_process(), pid=self.process.pid, start=_start_of(self.process.pid) or "")
        token = uuid.uuid4().hex
        opening = Opening(writer=writer, node=node.name, token=token, owner=self.owner, header={"config": {}})
        self.opened = inbox.open(opening, lambda *_: self.ask(node, inbox))
        session = begin_on_node(node.layout, writer, self.opened.number, self.opened.line)
        self.journal = JournalWriter(session, self.opened.steps, details=self.opened.details)

    @staticmethod
    def ask(node: Node, inbox: Inbox) -> Answer:
        node.settle(inbox)
        return "dead"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.journal.abandon()

    def close(self) -> None:
        self.journal.end("finished")
        self.kill()


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(Layout(tmp_path / "monitor"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node("n1", tmp_path)


@pytest.fixture
def role(node: Node, inbox: Inbox) -> Iterator[Role]:
    made = Role("explorer/0", node, inbox)
    yield made
    made.kill()


def here(tmp_path: Path, writer: str = "explorer/0") -> Session:
    found = newest(Layout(tmp_path / "monitor").journal(writer))
    assert found is not None
    return found


def rows(found: Found) -> list[Row]:
    return [each for each in found if isinstance(each, Row)]


def read(tmp_path: Path, writer: str = "explorer/0") -> Found:
    return list(read_rows(Layout(tmp_path / "monitor"), writer))


def test_rows_and_their_attachments_arrive(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    for step in range(100):
        role.journal.append({"x": step / 2}, values=[PICTURE] if step % 10 == 0 else [])
    written = role.journal.session.path.read_bytes()
    node.settle(inbox)
    assert here(tmp_path).path.read_bytes() == written
    found = read(tmp_path)
    assert len(found) == 110
    assert sum(bool(row.media) for row in rows(found)) == 10
    assert not list(role.journal.session.attachments.iterdir()), "what is held need not stay on the node"


def test_an_attachment_comes_before_its_row(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    """Batches that hold a part of it each: whenever one was written, each row that is there has its file."""
    for _ in range(3):
        role.journal.append({"x": 1.0}, values=[PICTURE])
    while True:
        batch, reply = node.send(inbox, 1000)
        node.hear(reply)
        found = read(tmp_path)
        assert len(rows(found)) == len(found)
        if not batch.pieces:
            break
    assert len(found) == 6


def test_an_ended_session_leaves_the_node(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    role.journal.append({"x": 1.0})
    assert not inbox.is_done()
    role.close()
    node.settle(inbox)
    assert here(tmp_path).status() == "finished"
    assert node.outbox.is_empty()
    assert inbox.is_done()
    assert not [path for path in node.layout.root.rglob("*") if path.is_file()]


def test_a_killed_role_is_ended_by_the_hub(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    role.journal.append({"x": 1.0})
    role.journal.append({"x": 2.0})
    with role.journal.session.path.open("ab") as file:
        file.write(b'{"seq":3,"step":3,"ti')  # torn
    role.kill()
    node.settle(inbox)
    last = last_line(here(tmp_path).path, here(tmp_path).seed) or {}
    assert (last["end"], last["seq"], last["by"]) == ("killed", 2, "hub")
    assert len(rows(read(tmp_path))) == 2
    assert node.outbox.is_empty()


def test_what_was_removed_here_is_sent_again(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    for _ in range(100):
        role.journal.append({"x": 1.0})
    node.settle(inbox)
    here(tmp_path).path.unlink()
    role.close()
    node.settle(inbox)
    assert len(rows(read(tmp_path))) == 100
    assert node.outbox.is_empty()


def test_only_its_node_says_that_a_process_is_gone(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    """Whoever could see it would take its session for over, while its last rows are on the way."""
    role.journal.append({"x": 1.0})
    role.kill()
    assert here(tmp_path).is_live()
    node.settle(inbox)
    assert not here(tmp_path).is_live()


def test_a_name_is_held_while_its_process_lives(inbox: Inbox, node: Node, role: Role) -> None:
    opening = Opening(writer="explorer/0", node="n1", token="t", owner=this_process(), header={"config": {}})
    with pytest.raises(WriterConflict, match="explorer/0"):
        inbox.open(opening, lambda *_: "alive")


def test_a_question_that_comes_again_has_one_answer(inbox: Inbox, node: Node) -> None:
    """The hub died after it opened the session, and before its answer was there."""
    opening = Opening(writer="explorer", node="n1", token="t", owner=this_process(), header={"config": {}})
    first = inbox.open(opening, lambda *_: "alive")
    assert inbox.open(opening, lambda *_: "alive") == first


def test_a_restarted_role_goes_on_with_the_next_step(inbox: Inbox, node: Node, role: Role, tmp_path: Path) -> None:
    for _ in range(5):
        role.journal.append({"x": 1.0})
    role.kill()  # and not a byte of it was forwarded yet
    again = Role("explorer/0", node, inbox)
    again.journal.append({"x": 2.0})
    again.close()
    node.settle(inbox)
    found = rows(read(tmp_path))
    assert [row.step for row in found] == [1, 2, 3, 4, 5, 6]


def test_a_lost_node_ends_its_sessions(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    role.journal.append({"x": 1.0})
    node.settle(inbox)
    role.journal.append({"x": 2.0})
    batch = node.outbox.batch(node.generation)
    assert list(inbox.lose("n1")) == ["explorer/0"]
    assert here(tmp_path).status() == "killed"
    assert inbox.is_done()
    # It was not lost after all: nothing is written behind the end, and its forwarder learns that.
    assert inbox.take("n1", batch).is_refused
    node.settle(inbox)
    assert len(rows(read(tmp_path))) == 1


def test_a_role_after_a_lost_node_hears_of_it(inbox: Inbox, node: Node, role: Role, tmp_path: Path) -> None:
    opening = Opening(writer="explorer/0", node="n2", token="t", owner=this_process(), header={"config": {}})
    assert "lost" in inbox.open(opening, lambda *_: "lost").warning
    first = Session(here(tmp_path).path.with_name("1.jsonl"), 1)
    assert "unseen" in (last_line(first.path, first.seed) or {})


def test_an_older_generation_is_refused(inbox: Inbox, node: Node, role: Role) -> None:
    role.journal.append({"x": 1.0})
    node.send(inbox)
    old = node.outbox.batch(node.generation)
    node.restart()
    node.send(inbox)
    assert inbox.take("n1", old).is_refused


def test_a_gap_is_refused(tmp_path: Path, inbox: Inbox, role: Role) -> None:
    size = here(tmp_path).path.stat().st_size
    generation, _ = inbox.greet("n1", [])
    piece = Piece("explorer@0/1.jsonl", size + 1, b"x")
    reply = inbox.take("n1", Batch(generation=generation, pieces=[piece]))
    assert reply.held == {"explorer@0/1.jsonl": size}
    assert here(tmp_path).path.stat().st_size == size


@pytest.mark.parametrize(
    "file",
    [
        "../run.json",
        "explorer@0/../../run.json",
        "/etc/passwd",
        "explorer@0/run.json",
        "explorer@0/1.files/../../x",
        "explorer@0/1.files/.x",
        "@launch/1.jsonl",
        "explorer@0/1.jsonl\n",
    ],
)
def test_no_name_leads_elsewhere(inbox: Inbox, role: Role, file: str) -> None:
    generation, _ = inbox.greet("n1", [])
    with pytest.raises(OSError, match="no file of a journal"):
        inbox.take("n1", Batch(generation=generation, pieces=[Piece(file, 0, b"x", is_last=True)]))


def test_no_symlink_is_followed(tmp_path: Path, inbox: Inbox, role: Role) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "monitor/journal/explorer@0/1.files").symlink_to(tmp_path / "elsewhere")
    generation, _ = inbox.greet("n1", [])
    with pytest.raises(OSError, match="symlink"):
        inbox.take("n1", Batch(generation=generation, pieces=[Piece("explorer@0/1.files/x", 0, b"x", is_last=True)]))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_changed_file_goes_on_with_its_attachments(tmp_path: Path, inbox: Inbox, node: Node, role: Role) -> None:
    """The writer goes on in a new session, whose rows refer to attachments that have left the node."""
    header = role.opened.header
    role.journal.abandon()
    session = role.journal.session
    role.journal = JournalWriter(session, {}, lambda before, fill: succeed(before, header, fill))
    role.journal.append({"x": 1.0}, values=[PICTURE])
    node.settle(inbox)
    session.path.rename(tmp_path / "away")
    role.journal._look_at = 0.0
    role.journal.append({"x": 2.0}, values=[PICTURE])
    role.close()
    node.settle(inbox)
    found = read(tmp_path)
    assert len(rows(found)) == len(found) == 4


class Deaths(RuleBasedStateMachine):
    """Two nodes. Forwarders, the hub and roles die at any time, answers are lost, and batches come twice."""

    root: Path
    count = 0

    @initialize()
    def begin(self) -> None:
        Deaths.count += 1
        self.path = self.root / str(Deaths.count)
        self.incarnation = 1
        self.inbox = Inbox(Layout(self.path / "monitor"), 1)
        self.nodes = [Node(name, self.path) for name in ("n1", "n2")]
        self.roles: list[Role] = []
        self.written: dict[tuple[str, int], bytes] = {}
        self.late: list[tuple[Node, Batch]] = []

    @rule(at=st.integers(0, 1))
    def start(self, at: int) -> None:
        if len(self.roles) < 4:
            self.roles.append(Role(f"explorer/{len(self.roles)}", self.nodes[at], self.inbox))

    @rule(at=st.integers(0, 3), rows=st.integers(1, 50), has_picture=st.booleans())
    def log(self, at: int, rows: int, has_picture: bool) -> None:
        if at < len(self.roles) and self.roles[at].process.poll() is None:
            for _ in range(rows):
                self.roles[at].journal.append({"x": 0.5, "y": 1.0}, values=[PICTURE] if has_picture else [])
            self._note(self.roles[at])

    @rule(at=st.integers(0, 3), closes=st.booleans())
    def end(self, at: int, closes: bool) -> None:
        if at < len(self.roles) and self.roles[at].process.poll() is None:
            if closes:
                self.roles[at].journal.end("finished")
                self._note(self.roles[at])
            self.roles[at].kill()

    @rule(at=st.integers(0, 1), limit=st.sampled_from([100, 5000, 1 << 20]), is_heard=st.booleans())
    def send(self, at: int, limit: int, is_heard: bool) -> None:
        batch, reply = self.nodes[at].send(self.inbox, limit)
        if is_heard:
            self.nodes[at].hear(reply)
        self.late.append((self.nodes[at], batch))

    @rule(at=st.integers(0, 30))
    def come_late(self, at: int) -> None:
        if self.late:
            node, batch = self.late[at % len(self.late)]
            self.inbox.take(node.name, batch)

    @rule(at=st.integers(0, 1))
    def kill_forwarder(self, at: int) -> None:
        self.nodes[at].restart()

    @rule()
    def kill_hub(self) -> None:
        self.incarnation += 1
        self.inbox = Inbox(Layout(self.path / "monitor"), self.incarnation)

    @invariant()
    def bytes_are_the_same(self) -> None:
        for (writer, number), data in getattr(self, "written", {}).items():
            path = Layout(self.path / "monitor").journal(writer) / f"{number}.jsonl"
            assert data.startswith(path.read_bytes()[: len(data)])

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for role in self.roles:
            role.kill()
        for node in self.nodes:
            node.settle(self.inbox)
        assert self.inbox.is_done()
        assert all(node.outbox.is_empty() for node in self.nodes)
        for (writer, number), data in self.written.items():
            assert (Layout(self.path / "monitor").journal(writer) / f"{number}.jsonl").read_bytes().startswith(data)
            found = read(self.path, writer)
            assert len(rows(found)) == len(found), "no attachment is missing"

    def _note(self, role: Role) -> None:
        self.written[role.writer, role.opened.number] = role.journal.session.path.read_bytes()


def test_any_order_of_deaths_gives_the_same_bytes(tmp_path: Path) -> None:
    Deaths.root = tmp_path
    run_state_machine_as_test(
        Deaths, settings=settings(max_examples=40, stateful_step_count=30, suppress_health_check=list(HealthCheck))
    )
