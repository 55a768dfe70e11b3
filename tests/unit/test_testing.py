"""What the contract says when a backend fails it, and what plugins' own tests get from `rolecall.testing`."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rolecall import Row
from rolecall.testing import BackendContract, row, ticket
from rolecall.testing.children.nursery import MARK, BackendHung, BackendRaised, Child, Nursery, end_all
from rolecall.testing.compare import differences, same_value
from rolecall.testing.hygiene import _misnamed, _unread

FILE = __file__


class Slow:
    """A reader that hangs, raises, or starts a process that outlives it."""

    def hang(self, run: Any) -> None:
        time.sleep(100)

    def fail(self, run: Any) -> None:
        raise ValueError("there is no such file")

    def end(self, run: Any) -> None:
        os._exit(3)

    def start(self, run: Any) -> list[int]:
        env = {**os.environ, MARK: "a mark"}
        other = subprocess.Popen(["sleep", "100"], env=env, start_new_session=True)
        if (forked := os.fork()) == 0:
            time.sleep(100)
        return [other.pid, forked]

    def values(self, run: Any) -> dict[str, Any]:
        return {"nan": math.nan, "bytes": b"\0\xff", "set": {1}, "pair": (1, 2.5)}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def child(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[[float], Child]]:
    (tmp_path / "work").mkdir()
    started: list[Child] = []

    def start(patience: float) -> Child:
        started.append(nursery.start(tmp_path / "work", dict(os.environ), patience))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.mark.processes
def test_no_process_outlives_its_test(child: Callable[[float], Child], tmp_path: Path) -> None:
    """A fork of it has its session, and another program its environment."""
    started = child(60.0)
    found = read(started, "start")
    started.kill()
    end_all("a mark", {started.pid})
    for pid in found:
        deadline = time.monotonic() + 20
        while is_alive(pid):
            assert time.monotonic() < deadline, f"{pid} is alive"
            time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def read(child: Child, reader: str) -> Any:
    run: dict[str, Any] = {
        "monitor_type": "x",
        "id": "r",
        "url": None,
        "args": {},
        "directory": "/",
        "shared": False,
        "writers": (),
    }
    return child.call("read", test={"module": __name__, "file": FILE, "name": "Slow"}, reader=reader, run=run)


@pytest.mark.processes
def test_numbers_of_processes_are_kept(child: Callable[[float], Child], nursery: Nursery) -> None:
    """What has ended keeps its number until its test has: another process with it would be ended in its place."""
    started = child(60.0)
    started.kill()
    file, deadline = Path(f"/proc/{started.pid}/stat"), time.monotonic() + 20
    while is_alive(started.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert file.exists()
    while file.exists():
        assert time.monotonic() < deadline
        nursery.reap()
        time.sleep(0.02)


@pytest.mark.processes
def test_names_of_other_processes_do_not_matter() -> None:
    """Anybody on the machine may give a process a name that is no text."""
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, bytes([40, 255, 41]), 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as odd:
        assert odd.stdout is not None
        odd.stdout.readline()
        end_all("no such mark", set())
        assert odd.poll() is None
        odd.kill()


def test_hang_is_told_with_its_place(child: Callable[[float], Child]) -> None:
    with pytest.raises(BackendHung, match=r"(?s)hang did not return within 10 s.*test_testing\.py.* in hang"):
        read(child(10.0), "hang")


@pytest.mark.processes
def test_error_is_told_with_its_trace(child: Callable[[float], Child]) -> None:
    with pytest.raises(BackendRaised, match=r"(?s)fail raised ValueError: there is no such file.* in fail") as raised:
        read(child(60.0), "fail")
    assert "Exception" in raised.value.kinds


@pytest.mark.processes
def test_process_that_ends_is_told(child: Callable[[float], Child]) -> None:
    with pytest.raises(BackendHung, match="the process ended in end"):
        read(child(60.0), "end")


@pytest.mark.processes
def test_reader_returns_what_json_lacks(child: Callable[[float], Child]) -> None:
    found = read(child(60.0), "values")
    assert math.isnan(found.pop("nan"))
    assert found == {"bytes": {"base64": "AP8="}, "set": [1], "pair": [1, 2.5]}


def test_ticket_has_defaults() -> None:
    assert (ticket().writer, ticket().role, ticket().primary) == ("trainer", "trainer", True)
    assert ticket(writer="explorer/0").role == "explorer"
    assert ticket(writer=None, shared=True).role is None
    assert ticket(writer="explorer/0", role="scout").role == "scout"


def test_row_has_defaults() -> None:
    assert row() == row(seq=1, step=1, metrics={"loss": 0.5})
    assert (row(seq=7).step, row(seq=7, step=2).step) == (7, 2)
    assert row(text={"answer": "four"}).metrics == {}
    assert isinstance(row(writer="explorer/0"), Row)


def test_differences_are_found_with_repetitions() -> None:
    lacking, extra = differences([(1, 0.5), (1, 0.5), (2, math.nan)], [(1, 0.5), (2, math.nan), (3, 1.0)], 0.0)
    assert (lacking, extra) == ([(3, 1.0)], [(1, 0.5)])


@pytest.mark.parametrize(
    ("held", "wanted", "tolerance", "same"),
    [
        (None, math.inf, 0.0, False),
        ("1.0", 1.0, 1.0, False),
        (math.nan, math.nan, 0.0, True),
        (math.inf, math.inf, 0.0, True),
        (0.0, -0.0, 0.0, False),
        (float(2**53), 2**53 + 1, 0.0, False),
        (1.0000001, 1.0, 1e-6, True),
        (1.00001, 1.0, 1e-6, False),
        (1.0, math.inf, 1e-6, False),
    ],
)
def test_values_are_compared(held: object, wanted: float, tolerance: float, same: bool) -> None:
    assert same_value(held, wanted, tolerance) is same


@pytest.mark.parametrize(
    ("can", "cannot", "said"),
    [
        ({"tabels"}, {}, "`can` names unknown abilities: tabels; known: axes, "),
        ({"media"}, {}, "`can` names unknown abilities: media; known: "),
        (set(), {"stepz": "no"}, "`cannot` names unknown abilities: stepz; known: "),
        ({"axes"}, {"axes": "no"}, "`can` and `cannot` both name axes"),
        (set(), {"axes": " "}, "`cannot` gives no reason for axes"),
    ],
)
def test_abilities_are_named_right(can: set[str], cannot: Mapping[str, str], said: str) -> None:
    (found,) = _misnamed(frozenset(can), cannot)
    assert found.startswith(said)


def test_readers_of_abilities_are_written() -> None:
    class Unread(BackendContract):
        can: ClassVar[frozenset[str]] = frozenset({"times", "media:image", "progress"})

    assert [*_unread(Unread())] == [
        "write the reader media(run)",
        "write the reader points(run)",
        "write the reader times(run)",
    ]
