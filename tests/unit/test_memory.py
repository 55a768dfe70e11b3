"""`log` when there is no memory: it raises nothing, does not end the process, counts, and goes on."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rolecall import Monitor, MonitorConfig, launch, open_monitor
from rolecall.job.history import read_rows
from rolecall.store import codec
from rolecall.store.codec import ensure_memory

MakeConfig = Callable[..., MonitorConfig]

FULL = """
import ctypes, resource, sys
import rolecall

run = rolecall.init("p", monitor_type="local", monitor_dir=sys.argv[1])
large = [{"text": "x" * (40 << 20)}, {"text": "ä" * (20 << 20)}, {"a": {str(key): 0.5 for key in range(100_000)}}]
table = (["text"], [["x" * (1 << 20)]] * 30)
small, nested, cells = {"loss": 0.5, "count": 2}, {"new/key": {"deep": "text"}}, [{"a": 1}]
wide = {f"metric/{at}/mean": 0.1234567890123456 for at in range(10)}
run.log({"loss": 1.0, "count": 1})
run.log(wide)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = (ctypes.c_void_p * 100_000)()
one, _ = libc.malloc(1024), libc.malloc(24)
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), hard))
for row in large:
    run.log(row)
run.log_table("samples", table)
few = run.dropped
count = 0
for size in (1 << 16, 1 << 12, *range(2560, 512, -16)):
    while piece := libc.malloc(size):
        pieces[count] = piece
        count += 1
run.log(wide)
libc.free(one)  # enough for what the encoder begins with, and for no more
run.log(wide)
for _ in range(100):
    run.log(small)
    run.log(nested)
    run.log_table("samples", cells)
for at in range(count):
    libc.free(pieces[at])
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
run.log({"loss": 0.25})
print(few >= 4, run.dropped - few >= 302, run.lost == 0)
run.finish()
"""


@pytest.fixture
def monitor(make_config: MakeConfig) -> Iterator[Monitor]:
    with launch(make_config(monitor_type="local", monitor_args={})) as job, open_monitor(job.config, "trainer") as it:
        yield it


class Greedy:
    """A scalar that there is no memory for."""

    def item(self) -> float:
        raise MemoryError


@pytest.mark.processes
def test_limit_of_the_process(tmp_path: Path) -> None:
    """Also where the encoder would end the process."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "job")], text=True, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "True True True\n"), ran.stderr
    wide = {f"metric/{at}/mean": 0.1234567890123456 for at in range(10)}
    assert [row.metrics for row in read_rows(tmp_path / "job")] == [{"loss": 1.0, "count": 1}, wide, {"loss": 0.25}]


def test_value_without_memory_costs_itself(
    make_config: MakeConfig, monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.log({"loss": 0.5, "greedy": Greedy()})
    monitor.log_table("samples", [{"greedy": Greedy()}])
    assert monitor.dropped == 2
    assert "greedy: there is no memory to read it" in caplog.text
    assert [row.metrics for row in read_rows(make_config().monitor_dir)] == [{"loss": 0.5}]


def test_warning_without_memory(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted all the same, be the disk full or a value wrong."""

    def emit(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(logging.Logger, "handle", emit)
    monitor.log({"loss": object()})
    monitor.log([])  # type: ignore[arg-type]
    monitor.log({"loss": 0.5}, step="x")  # type: ignore[arg-type]
    assert monitor.dropped == 3
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(monitor._journal, "_descriptor", full)
    monitor.log({"loss": 0.5})
    os.close(full)
    assert monitor.lost == 1
    monkeypatch.undo()


@pytest.mark.parametrize("content", [{"text": "x" * 1000}, {"text": "ä" * 1000}, {"a": {"b": [1.0] * 1000}}])
def test_memory_is_enough_to_encode(monkeypatch: pytest.MonkeyPatch, content: dict[str, object]) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(codec, "bytes", sizes.append, raising=False)
    ensure_memory(content)
    assert sizes[0] > 3 * len(json.dumps(content, ensure_ascii=False).encode())
